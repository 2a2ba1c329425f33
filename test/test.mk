# Tests: everything a fresh machine needs in one command.  See test/run.
#	make test					all
#	make fuzz [TARGETS=...]		libFuzzer, see test/fuzz/run; RUNS or SECONDS_EACH, SEED
#	make test TESTS=t/003_order.pl		one TAP file (or several)
.PHONY: test versions fuzz sanitize valgrind

test:
	@env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL bash $(srcdir)/test/run $(TESTS)

# On PostgreSQL 14 to 18, as far as they are to be had.  See test/versions.
#	make versions VERSIONS="17 18" TESTS=t/003_order.pl
versions:
	@env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL bash $(srcdir)/test/versions $(VERSIONS) $(if $(TESTS),-- $(TESTS))

# On a server with assertions, built for it, that watches memory.  See test/sanitize.
sanitize:
	@env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL bash $(srcdir)/test/sanitize address $(TESTS)

valgrind:
	@env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL bash $(srcdir)/test/sanitize valgrind $(TESTS)

fuzz:
	@env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL bash $(srcdir)/test/fuzz/run $(TARGETS)

# The reference, from a private build: docs/reference.md, which is not in git;
# `make install` takes it along once it is there.
.PHONY: reference

reference:
	@env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL bash $(srcdir)/test/reference >$(srcdir)/docs/reference.tmp
	@mv $(srcdir)/docs/reference.tmp $(srcdir)/docs/reference.md

# Faults under load, for half an hour.  See test/chaos/run.
#	make chaos CHAOS_SECONDS=120 CHAOS_SEED=4711
.PHONY: chaos

chaos:
	@env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL bash $(srcdir)/test/chaos/run
