# Benchmarks: make bench runs all, make bench BENCH=copy one.  See bench/run.
.PHONY: bench

bench:
	@env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL bash $(srcdir)/bench/run $(BENCH)
