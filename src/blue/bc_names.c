/*-------------------------------------------------------------------------
 *
 * bc_names.c
 *	  What Business Central's table names mean, and what they are on green.
 *
 *		<company>$<table>						NAV, BC 14 and before
 *		<company>$<table>$<app id>				BC 15 and later
 *		<company>$<table>$<app id>$ext			companion of all apps, BC 23 and later
 *		<company>$<table>$<extending app id>	companion of one app, BC 22 and before
 *		<table>$<app id>, <table>				for all companies, and the platform's own
 *
 * A company's name may hold a $, so the company is the longest one a table's
 * name begins with, after BC's mapping of characters, never what stands before
 * the first $.  A companion of one app looks like a table of that app; it is
 * one when a table of the same company and name has the same key, and
 * $systemId, which the companion lacks.
 *
 * No connection, no catalogue: lists in, lists out.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "bc_names.h"

#include "common/hashfn.h"
#include "common/keywords.h"
#include "mb/pg_wchar.h"

#define APP_ID_LENGTH	36

/* what is not business data, by the name of the table; * = any end */
static const struct
{
	const char *name;
	const char *why;
}			not_migrated[] =
{
	{"$ndo$*", "bookkeeping of the platform"},
	{"Active Session", "sessions"},
	{"Session Event", "sessions"},
	{"Server Instance", "sessions"},
	{"Object Tracking", "sessions"},
	{"Debugger *", "sessions"},
	{"Token Cache", "sessions"},
	{"Object", "code of the application"},
	{"Object Metadata", "code of the application"},
	{"Object Metadata Snapshot", "code of the application"},
	{"Application Object Metadata", "code of the application"},
	{"Application Resource", "code of the application"},
	{"Application Dependency", "code of the application"},
	{"Published Application", "code of the application"},
	{"Installed Application", "code of the application"},
	{"Inplace Installed Application", "code of the application"},
	{"NAV App *", "code of the application"},
	{"User Property", "password hashes"},
	{"Access Control", "security: migrate deliberately"},
	{"Permission*", "security: migrate deliberately"},
	{"Isolated Storage", "secrets"},
	{"Tenant License State", "licence"},
	{"Scheduled Task", "jobs: must not run twice"},
};

static bool
is_one_of(const char *c, int len, const char *chars)
{
	for (; *chars; chars += pg_mblen(chars))
	{
		if (pg_mblen(chars) == len && memcmp(c, chars, len) == 0)
			return true;
	}
	return false;
}

char *
bcmig_mapped_name(const char *name, const char *invalid_chars)
{
	char	   *result = palloc(strlen(name) + 1);
	char	   *out = result;

	while (*name)
	{
		int			len = pg_mblen(name);

		if (is_one_of(name, len, invalid_chars))
			*out++ = '_';
		else
		{
			memcpy(out, name, len);
			out += len;
		}
		name += len;
	}
	*out = '\0';
	return result;
}

static bool
is_app_id(const char *s)
{
	for (int i = 0; i < APP_ID_LENGTH; i++)
	{
		if (i == 8 || i == 13 || i == 18 || i == 23)
		{
			if (s[i] != '-')
				return false;
		}
		else if (strchr("0123456789abcdef", s[i]) == NULL || s[i] == '\0')
			return false;
	}
	return s[APP_ID_LENGTH] == '\0';
}

static const char *
why_left_out(const char *name)
{
	for (int i = 0; i < lengthof(not_migrated); i++)
	{
		size_t		len = strlen(not_migrated[i].name);

		if (not_migrated[i].name[len - 1] == '*' ?
			strncmp(name, not_migrated[i].name, len - 1) == 0 :
			strcmp(name, not_migrated[i].name) == 0)
			return not_migrated[i].why;
	}
	return strstr(name, "$VSIFT$") != NULL ? "sums of an indexed view" : NULL;
}

/* a company, and how it begins table names */
typedef struct Prefix
{
	char	   *company;
	char	   *text;
	size_t		len;
} Prefix;

/* the longest first */
static int
compare_prefixes(const void *a, const void *b)
{
	const Prefix *x = a;
	const Prefix *y = b;

	if (x->len != y->len)
		return x->len > y->len ? -1 : 1;
	return strcmp(x->text, y->text);
}

static void
take_name_apart(BcmigFound *t, const Prefix *prefixes, int nprefixes)
{
	char	   *rest = pstrdup(t->name);
	size_t		len = strlen(rest);
	bool		ext = false;
	char	   *dollar;

	if (len > 4 && strcmp(rest + len - 4, "$ext") == 0)
	{
		ext = true;
		rest[len - 4] = '\0';
	}
	for (int i = 0; i < nprefixes && t->company == NULL; i++)
	{
		if (strncmp(rest, prefixes[i].text, prefixes[i].len) == 0 && rest[prefixes[i].len] == '$')
		{
			t->company = prefixes[i].company;
			rest += prefixes[i].len + 1;
		}
	}
	dollar = strrchr(rest, '$');
	if (dollar != NULL && is_app_id(dollar + 1))
	{
		t->app_id = dollar + 1;
		*dollar = '\0';
	}
	t->al_name = rest;
	t->left_out = why_left_out(rest);
	if (t->company != NULL)
		t->shape = ext ? "companion" : "base";
	else if (t->left_out != NULL)
		t->shape = "platform";
	else if (strchr(rest, '$') != NULL)
	{
		t->shape = "orphan";
		t->left_out = "of a company that is not in table Company";
	}
	else
		t->shape = ext ? "companion" : "shared";
}

static int
compare_strings(const char *x, const char *y)
{
	return x == y ? 0 : x == NULL ? -1 : y == NULL ? 1 : strcmp(x, y);
}

/* by company and AL name, tables with $systemId first, then by name */
static int
compare_found(const void *a, const void *b)
{
	const BcmigFound *x = *(BcmigFound *const *) a;
	const BcmigFound *y = *(BcmigFound *const *) b;
	int			c = compare_strings(x->company, y->company);

	if (c == 0)
		c = strcmp(x->al_name, y->al_name);
	if (c == 0)
		c = (int) y->has_identity - (int) x->has_identity;
	return c != 0 ? c : strcmp(x->name, y->name);
}

static bool
same_keys(const BcmigFound *a, const BcmigFound *b)
{
	ListCell   *x;
	ListCell   *y;

	if (a->keys == NIL || list_length(a->keys) != list_length(b->keys))
		return false;
	forboth(x, a->keys, y, b->keys)
	{
		if (strcmp(lfirst(x), lfirst(y)) != 0)
			return false;
	}
	return true;
}

static void
join(BcmigFound *companion, BcmigFound *base, const char *shape)
{
	companion->shape = shape;
	companion->base = base;
	companion->left_out = base->left_out;
	base->companions = lappend(base->companions, companion);
}

/* tables of one company and AL name: v[0..n-1] */
static void
join_companions(BcmigFound **v, int n)
{
	for (int i = 0; i < n; i++)
	{
		bool		ext = strcmp(v[i]->shape, "companion") == 0;

		for (int k = 0; k < n && v[i]->base == NULL; k++)
		{
			if (k == i || v[k]->base != NULL || strcmp(v[k]->shape, "companion") == 0)
				continue;
			if (ext ? compare_strings(v[i]->app_id, v[k]->app_id) == 0 :
				!v[i]->has_identity && v[k]->has_identity && v[i]->app_id != NULL && same_keys(v[i], v[k]))
				join(v[i], v[k], ext ? "companion" : "app_companion");
		}
		if (ext && v[i]->base == NULL)
			v[i]->left_out = "companion of a table that is not there";
	}
}

void
bcmig_classify(BcmigInventory *inventory)
{
	int			n = list_length(inventory->tables);
	BcmigFound **v = palloc(sizeof(BcmigFound *) * Max(n, 1));
	Prefix	   *prefixes = palloc(sizeof(Prefix) * Max(list_length(inventory->companies), 1));
	int			nprefixes = 0;
	ListCell   *lc;

	foreach(lc, inventory->companies)
	{
		Prefix	   *p = &prefixes[nprefixes++];

		p->company = lfirst(lc);
		p->text = bcmig_mapped_name(p->company, inventory->invalid_chars);
		p->len = strlen(p->text);
	}
	qsort(prefixes, nprefixes, sizeof(Prefix), compare_prefixes);

	n = 0;
	foreach(lc, inventory->tables)
	{
		v[n] = lfirst(lc);
		take_name_apart(v[n++], prefixes, nprefixes);
	}
	qsort(v, n, sizeof(BcmigFound *), compare_found);
	for (int first = 0, last; first < n; first = last)
	{
		for (last = first + 1; last < n && compare_strings(v[first]->company, v[last]->company) == 0 &&
			 strcmp(v[first]->al_name, v[last]->al_name) == 0; last++)
			;
		join_companions(v + first, last - first);
	}
	pfree(v);
}

char *
bcmig_snake(const char *name)
{
	int			len = strlen(name);
	char	   *result = palloc(2 * len + 3);
	char	   *out = result;
	bool		system = name[0] == '$';
	bool		gap = false;
	int			keyword;

	/* what an app's id tells, the hash of a collision tells too */
	if (len > APP_ID_LENGTH + 1 && name[len - APP_ID_LENGTH - 1] == '$' && is_app_id(name + len - APP_ID_LENGTH))
		len -= APP_ID_LENGTH + 1;
	for (int i = 0; i < len; i++)
	{
		unsigned char c = name[i];

		if (c < 0x80 && !isalnum(c))
		{
			gap = true;
			continue;
		}
		/* $systemCreatedAt: BC's own columns are in camel case */
		gap |= system && isupper(c) && i > 0 && islower((unsigned char) name[i - 1]);
		if (out == result ? isdigit(c) : gap)
			*out++ = '_';
		gap = false;
		*out++ = c < 0x80 ? pg_ascii_tolower(c) : c;
	}
	*out = '\0';
	if (result[0] == '\0')
		return pstrdup("_");
	keyword = ScanKeywordLookup(result, &ScanKeywords);
	if (keyword >= 0 && (ScanKeywordCategories[keyword] == RESERVED_KEYWORD ||
						 ScanKeywordCategories[keyword] == TYPE_FUNC_NAME_KEYWORD))
		strcat(result, "_");
	if (strlen(result) >= NAMEDATALEN)
	{
		int			cut = pg_mbcliplen(result, strlen(result), NAMEDATALEN - 10);

		result = psprintf("%.*s_%08x", cut, result, hash_bytes((const unsigned char *) name, strlen(name)));
	}
	return result;
}
