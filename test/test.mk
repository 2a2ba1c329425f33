# Tests: everything a fresh machine needs in one command.  See test/run.
#	make test					all
#	make fuzz [TARGETS=...]		libFuzzer, see test/fuzz/run; RUNS or SECONDS_EACH, SEED
#	make test TESTS=t/003_order.pl		one TAP file (or several)
.PHONY: test fuzz

test:
	@env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL bash $(srcdir)/test/run $(TESTS)

fuzz:
	@env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL bash $(srcdir)/test/fuzz/run $(TARGETS)
