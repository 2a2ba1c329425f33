# The demonstration: two private clusters, a Business Central with a live
# workload on blue, bcmig on green.  See demo/run.
.PHONY: demo demo-stop

demo:
	@env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL bash $(srcdir)/demo/run

demo-stop:
	@bash $(srcdir)/demo/stop
