MODULE_big = bcmig
EXTENSION = bcmig
DATA = bcmig--1.0.sql
PGFILEDESC = "bcmig - moves a live Business Central database into PostgreSQL"

OBJS = $(patsubst %.c,%.o,$(wildcard src/*.c src/*/*.c))

PG_CONFIG ?= pg_config
PG_CPPFLAGS = -I$(srcdir)/src -I$(srcdir)/src/blue -I$(srcdir)/src/sync -I$(srcdir)/src/report
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers -Werror -fvisibility=hidden

PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(OBJS): $(wildcard src/*.h src/*/*.h)

include $(srcdir)/demo/demo.mk
