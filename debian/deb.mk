# Packages: Debian's, see debian/make-deb, and a distribution for PGXN.  The reference
# is in them where `make reference` has made it and nothing it is made from is newer.
.PHONY: deb dist

deb:
	@env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL REFERENCE=$(DOCS) bash $(srcdir)/debian/make-deb

# what is committed, as build/bcmig-VERSION.zip; META.json says which version
dist:
	@mkdir -p build
	@v=$$(sed -nE 's/^\t"version": "([^"]+)",$$/\1/p' META.json) && \
		git archive --format=zip $(if $(DOCS),--prefix=bcmig-$$v/docs/ --add-file=$(DOCS) )--prefix=bcmig-$$v/ -o build/bcmig-$$v.zip HEAD && echo build/bcmig-$$v.zip
