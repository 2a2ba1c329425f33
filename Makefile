MODULE_big = bcmig
EXTENSION = bcmig
DATA = bcmig--1.0.sql
PGFILEDESC = "bcmig - moves a live Business Central database into PostgreSQL"

OBJS = $(patsubst %.c,%.o,$(wildcard src/*.c src/*/*.c))

PG_CONFIG ?= pg_config
PG_CPPFLAGS = -I$(srcdir)/src -I$(srcdir)/src/blue -I$(srcdir)/src/sync -I$(srcdir)/src/report
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers -Werror -fvisibility=hidden

SHLIB_LINK = -lz

# PGXS may not be there yet: test and demo install it
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifneq ($(wildcard $(PGXS)),)
include $(PGXS)
else
srcdir = .
all install:
	@echo "pg_config was not found: apt-get install postgresql-server-dev-15, or set PG_CONFIG"; exit 1
endif

$(OBJS): $(wildcard src/*.h src/*/*.h)

include $(srcdir)/demo/demo.mk
include $(srcdir)/test/test.mk
include $(srcdir)/bench/bench.mk
