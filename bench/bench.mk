# Benchmarks.  See bench/run.
#	make bench					all; writes bench/RESULTS.md
#	make bench BENCH=latency	one: copy, memory, latency, idle
.PHONY: bench

bench:
	@env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL BENCH="$(BENCH)" bash $(srcdir)/bench/run
