MODULE_big = bcmig
EXTENSION = bcmig
DATA = $(wildcard bcmig--*.sql)
# made by make reference, where somebody wants it; not one that is older than what it is made from
DOCS := $(shell for f in $(DATA) src/errors.h src/bcmig.c docs/errors.md docs/events.md docs/reference.sql; do [ docs/reference.md -nt $$f ] || exit 0; done; echo docs/reference.md)
PGFILEDESC = "bcmig - moves a live Business Central database into PostgreSQL"

OBJS = $(patsubst %.c,%.o,$(wildcard src/*.c src/*/*.c))

# what the library expects of the SQL, see src/version.c
SQL_VERSION := $(shell sed -nE "s/^default_version = '(.*)'$$/\1/p" $(dir $(firstword $(MAKEFILE_LIST)))bcmig.control)

PG_CONFIG ?= pg_config
XML2_CFLAGS := $(shell pkg-config --cflags libxml-2.0 2>/dev/null || xml2-config --cflags 2>/dev/null)
XML2_LIBS := $(shell pkg-config --libs libxml-2.0 2>/dev/null || xml2-config --libs 2>/dev/null || echo -lxml2)
PG_CPPFLAGS = -I$(srcdir)/src -I$(srcdir)/src/blue -I$(srcdir)/src/sync -I$(srcdir)/src/check -I$(srcdir)/src/switch -I$(srcdir)/src/plan -I$(srcdir)/src/report
PG_CPPFLAGS += $(XML2_CFLAGS) -DBCMIG_VERSION='"$(SQL_VERSION)"'
SHLIB_LINK = $(XML2_LIBS) -lz -lcurl
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers -Werror -fvisibility=hidden

# bitcode would let JIT inline what PostgreSQL calls for every row: hashes, too long to be
override with_llvm = no

# PGXS may not be there yet: test and demo install it
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifneq ($(wildcard $(PGXS)),)
include $(PGXS)
else
srcdir = .
all install:
	@echo "pg_config was not found: apt-get install postgresql-server-dev-15, or set PG_CONFIG"; exit 1
endif

$(OBJS): $(wildcard src/*.h src/*/*.h) bcmig.control | headers

# one clear word instead of the compiler's many
.PHONY: headers
headers:
	@printf '#include <zlib.h>\n#include <curl/curl.h>\n#include <libxml/xmlreader.h>\n' | $(CC) $(XML2_CFLAGS) -E - >/dev/null 2>&1 || \
		{ echo "zlib.h, curl/curl.h or libxml/xmlreader.h was not found: apt-get install zlib1g-dev libcurl4-openssl-dev libxml2-dev"; exit 1; }

include $(srcdir)/demo/demo.mk
include $(srcdir)/test/test.mk
include $(srcdir)/bench/bench.mk
include $(srcdir)/debian/deb.mk
