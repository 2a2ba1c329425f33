# Tests: everything a fresh machine needs in one command.  See test/run.
#	make test					all
#	make test TESTS=t/003_order.pl		one TAP file (or several)
.PHONY: test

test:
	@env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL bash $(srcdir)/test/run $(TESTS)
