/*-------------------------------------------------------------------------
 *
 * document.c
 *	  Building a report, and writing it as text or JSON (html.c: as HTML).
 *
 * What is not known is NULL in JSON and says so in words elsewhere; it is never
 * a zero.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "document.h"

#include "catalog.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/json.h"
#include "utils/timestamp.h"

#define LABEL_WIDTH		19
#define TEXT_ROWS		20		/* of a table in text: the rest is in the other formats */
#define TEXT_WIDTH		60		/* of a column in text, but the last */

/* ---- numbers for people ---- */

/* with a comma before every third digit */
char *
bcmig_grouped(int64 n)
{
	char	   *digits = psprintf(INT64_FORMAT, n);
	StringInfoData s;

	initStringInfo(&s);
	for (char *p = digits; *p; p++)
	{
		appendStringInfoChar(&s, *p);
		if (p[1] != '\0' && strlen(p + 1) % 3 == 0 && *p != '-')
			appendStringInfoChar(&s, ',');
	}
	return s.data;
}

char *
bcmig_milliseconds(double ms)
{
	return ms < 100 ? psprintf("%.1f ms", ms) : psprintf("%s ms", bcmig_grouped((int64) rint(ms)));
}

char *
bcmig_duration(double seconds)
{
	int64		s = (int64) rint(seconds);

	if (s < 120)
		return psprintf(INT64_FORMAT " s", s);
	if (s < 120 * 60)
		return psprintf(INT64_FORMAT " min", s / 60);
	if (s < 48 * 60 * 60)
		return psprintf(INT64_FORMAT " h " INT64_FORMAT " min", s / 3600, s / 60 % 60);
	return psprintf(INT64_FORMAT " d " INT64_FORMAT " h", s / 86400, s / 3600 % 24);
}

/* powers of ten: a GB is 1,000,000,000 bytes */
char *
bcmig_bytes(double bytes)
{
	if (bytes < 1e3)
		return psprintf("%.0f bytes", bytes);
	if (bytes < 1e6)
		return psprintf("%.1f kB", bytes / 1e3);
	if (bytes < 1e9)
		return psprintf("%.1f MB", bytes / 1e6);
	if (bytes < 1e12)
		return psprintf("%.2f GB", bytes / 1e9);
	return psprintf("%.2f TB", bytes / 1e12);
}

/* ---- building ---- */

static BcmigPart *
add_part(BcmigPart *in, BcmigPartKind kind, const char *key, const char *title)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(in ? in->context : CurrentMemoryContext);
	BcmigPart  *part = palloc0(sizeof(BcmigPart));

	part->kind = kind;
	part->context = CurrentMemoryContext;
	part->key = key ? pstrdup(key) : NULL;
	part->title = title ? pstrdup(title) : NULL;
	if (in != NULL)
		in->parts = lappend(in->parts, part);
	MemoryContextSwitchTo(oldcontext);
	return part;
}

BcmigPart *
bcmig_document(const char *kind, const char *title)
{
	BcmigPart  *document = add_part(NULL, BCMIG_PART_SECTION, NULL, title);

	document->made_at = pstrdup(timestamptz_to_str(GetCurrentTimestamp()));
	bcmig_member_text(document, "report", kind);
	bcmig_member_text(document, "made_at", document->made_at);
	return document;
}

BcmigPart *
bcmig_section(BcmigPart *in, const char *key, const char *title)
{
	return add_part(in, BCMIG_PART_SECTION, key, title);
}

BcmigPart *
bcmig_list(BcmigPart *in, const char *key)
{
	return add_part(in, BCMIG_PART_LIST, key, NULL);
}

void
bcmig_plot(BcmigPart *in, const char *title, const char *svg)
{
	BcmigPart  *part = add_part(in, BCMIG_PART_PLOT, NULL, title);

	part->svg = MemoryContextStrdup(in->context, svg);
}

void
bcmig_line(BcmigPart *in, const char *label, const char *format,...)
{
	BcmigPart  *part = add_part(in, BCMIG_PART_LINE, NULL, label);
	MemoryContext oldcontext = MemoryContextSwitchTo(in->context);
	StringInfoData s;
	va_list		args;
	int			needed;

	initStringInfo(&s);
	for (;;)
	{
		va_start(args, format);
		needed = appendStringInfoVA(&s, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&s, needed);
	}
	part->cell.text = s.data;
	MemoryContextSwitchTo(oldcontext);
}

void
bcmig_member_raw(BcmigPart *in, const char *key, const char *json)
{
	add_part(in, BCMIG_PART_LINE, key, NULL)->cell.json = MemoryContextStrdup(in->context, json);
}

void
bcmig_member_int(BcmigPart *in, const char *key, int64 value)
{
	bcmig_member_raw(in, key, psprintf(INT64_FORMAT, value));
}

void
bcmig_member_float(BcmigPart *in, const char *key, bool known, double value)
{
	bcmig_member_raw(in, key, known ? float8out_internal(value) : "null");
}

static char *
quoted(const char *value)
{
	StringInfoData s;

	initStringInfo(&s);
	escape_json(&s, value);
	return s.data;
}

void
bcmig_member_text(BcmigPart *in, const char *key, const char *value)
{
	bcmig_member_raw(in, key, value ? quoted(value) : "null");
}

/* a value of a query, NULL = NULL, for people and for programs; in the current context */
static void
make_cell(BcmigCell *cell, const BcmigField *field, const char *value)
{
	double		number = 0;

	cell->show = field->show;
	if (value == NULL)
	{
		cell->text = pstrdup(field->if_null ? field->if_null : "unknown");
		cell->json = pstrdup("null");
		return;
	}
	if (field->show > BCMIG_SHOW_BOOL)
	{
		number = BCMIG_FLOAT8IN(pstrdup(value));
		cell->json = isfinite(number) ? pstrdup(value) : pstrdup("null");
	}
	switch (field->show)
	{
		case BCMIG_SHOW_TEXT:
		case BCMIG_SHOW_STATUS:
		case BCMIG_SHOW_CODE:
			cell->text = pstrdup(value);
			cell->json = quoted(value);
			break;
		case BCMIG_SHOW_BOOL:
			cell->text = pstrdup(value[0] == 't' ? "yes" : "no");
			cell->json = pstrdup(value[0] == 't' ? "true" : "false");
			break;
		case BCMIG_SHOW_INT:
			cell->text = bcmig_grouped((int64) rint(number));
			break;
		case BCMIG_SHOW_PERCENT:
			cell->text = psprintf("%.2f %%", number);
			break;
		case BCMIG_SHOW_BYTES:
			cell->text = bcmig_bytes(number);
			break;
		case BCMIG_SHOW_BYTE_RATE:
			cell->text = psprintf("%s/s", bcmig_bytes(number));
			break;
		case BCMIG_SHOW_ROW_RATE:
			cell->text = psprintf("%s rows/s", bcmig_grouped((int64) rint(number)));
			break;
		case BCMIG_SHOW_MS:
			cell->text = bcmig_milliseconds(number);
			break;
		case BCMIG_SHOW_SECONDS:
			cell->text = bcmig_duration(number);
			break;
	}
}

void
bcmig_value(BcmigPart *in, const BcmigField *field, const char *value)
{
	BcmigPart  *part = add_part(in, BCMIG_PART_LINE, field->key, field->label);
	MemoryContext oldcontext = MemoryContextSwitchTo(in->context);

	make_cell(&part->cell, field, value);
	MemoryContextSwitchTo(oldcontext);
}

void
bcmig_row_lines(BcmigPart *in, const BcmigField *fields, int nfields, uint64 row)
{
	for (int i = 0; i < nfields; i++)
		bcmig_value(in, &fields[i], bcmig_get_text(row, i + 1));
}

BcmigPart *
bcmig_table(BcmigPart *in, const char *key, const char *title, const BcmigField *fields, int nfields)
{
	BcmigPart  *part = add_part(in, BCMIG_PART_TABLE, key, title);

	part->fields = fields;
	part->nfields = nfields;
	return part;
}

void
bcmig_table_row(BcmigPart *table, const char *const *values)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(table->context);
	BcmigCell  *cells = palloc0(sizeof(BcmigCell) * table->nfields);

	for (int i = 0; i < table->nfields; i++)
		make_cell(&cells[i], &table->fields[i], values[i]);
	table->rows = lappend(table->rows, cells);
	MemoryContextSwitchTo(oldcontext);
}

BcmigPart *
bcmig_result_table(BcmigPart *in, const char *key, const char *title, const BcmigField *fields, int nfields)
{
	BcmigPart  *table = bcmig_table(in, key, title, fields, nfields);
	const char **values = palloc(sizeof(char *) * nfields);

	for (uint64 row = 0; row < SPI_processed; row++)
	{
		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < nfields; i++)
			values[i] = bcmig_get_text(row, i + 1);
		bcmig_table_row(table, values);
	}
	return table;
}

/* ---- text ---- */

static int
width_of(const char *text)
{
	return pg_mbstrlen(text);
}

static void
pad(StringInfo out, const char *text, int width)
{
	int			n = width_of(text);

	appendStringInfoString(out, text);
	if (n < width)
		appendStringInfoSpaces(out, width - n);
}

/* a line break in a value would look like a line of the report */
static char *
one_line(const char *text)
{
	char	   *copy = pstrdup(text);

	for (char *p = copy; *p; p++)
	{
		if (*p == '\n' || *p == '\r' || *p == '\t')
			*p = ' ';
	}
	return copy;
}

static void
text_cells(StringInfo out, const BcmigPart *table, const int *widths, char *const *texts)
{
	int			last = table->nfields - 1;

	while (last > 0 && table->fields[last].label == NULL)
		last--;
	appendStringInfoString(out, "  ");
	for (int i = 0; i <= last; i++)
	{
		if (table->fields[i].label == NULL)
			continue;
		pad(out, texts[i], i == last ? 0 : widths[i] + 2);
	}
	appendStringInfoChar(out, '\n');
}

static void
text_table(StringInfo out, const BcmigPart *table)
{
	int		   *widths = palloc0(sizeof(int) * table->nfields);
	char	  **texts = palloc(sizeof(char *) * table->nfields);
	ListCell   *lc;
	int			n = 0;

	appendStringInfo(out, "\n  %s\n", table->title);
	if (table->rows == NIL)
	{
		appendStringInfoString(out, "  none\n");
		return;
	}
	for (int i = 0; i < table->nfields; i++)
	{
		texts[i] = unconstify(char *, table->fields[i].label ? table->fields[i].label : "");
		widths[i] = width_of(texts[i]);
	}
	foreach(lc, table->rows)
	{
		const BcmigCell *cells = lfirst(lc);

		if (n++ >= TEXT_ROWS)
			break;
		for (int i = 0; i < table->nfields; i++)
			widths[i] = Max(widths[i], Min(TEXT_WIDTH, width_of(cells[i].text)));
	}
	text_cells(out, table, widths, texts);
	n = 0;
	foreach(lc, table->rows)
	{
		const BcmigCell *cells = lfirst(lc);

		if (n++ >= TEXT_ROWS)
			break;
		for (int i = 0; i < table->nfields; i++)
			texts[i] = one_line(cells[i].text);
		text_cells(out, table, widths, texts);
	}
	if (list_length(table->rows) > TEXT_ROWS)
		appendStringInfo(out, "  and %s more, which formats json and html have\n", bcmig_grouped(list_length(table->rows) - TEXT_ROWS));
}

static void
text_section(StringInfo out, const BcmigPart *section)
{
	int			width = LABEL_WIDTH;
	ListCell   *lc;

	if (section->title != NULL)
		appendStringInfo(out, "%s%s\n\n", out->len > 0 ? "\n" : "", one_line(section->title));
	foreach(lc, section->parts)
	{
		const BcmigPart *part = lfirst(lc);

		if (part->kind == BCMIG_PART_LINE && part->title != NULL)
			width = Max(width, width_of(part->title));
	}
	foreach(lc, section->parts)
	{
		const BcmigPart *part = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		switch (part->kind)
		{
			case BCMIG_PART_SECTION:
			case BCMIG_PART_LIST:
				text_section(out, part);
				break;
			case BCMIG_PART_LINE:
				if (part->title == NULL)
					break;
				appendStringInfoString(out, "  ");
				pad(out, part->title, width + 1);
				appendStringInfo(out, "%s\n", one_line(part->cell.text));
				break;
			case BCMIG_PART_TABLE:
				if (part->title != NULL)
					text_table(out, part);
				break;
			case BCMIG_PART_PLOT:
				break;
		}
	}
}

static char *
write_text(const BcmigPart *document)
{
	StringInfoData out;
	BcmigPart	body = *document;

	initStringInfo(&out);
	body.title = NULL;			/* sections have their own */
	text_section(&out, &body);
	return out.data;
}

/* ---- json ---- */

static void json_part(StringInfo out, const BcmigPart *part);

static void
json_members(StringInfo out, const BcmigPart *part, bool named)
{
	bool		first = true;
	ListCell   *lc;

	foreach(lc, part->parts)
	{
		const BcmigPart *member = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		if (named && member->key == NULL)
			continue;
		if (!first)
			appendStringInfoString(out, ", ");
		first = false;
		if (named)
			appendStringInfo(out, "%s: ", quoted(member->key));
		json_part(out, member);
	}
}

static void
json_part(StringInfo out, const BcmigPart *part)
{
	ListCell   *lc;

	switch (part->kind)
	{
		case BCMIG_PART_SECTION:
			appendStringInfoChar(out, '{');
			json_members(out, part, true);
			appendStringInfoChar(out, '}');
			break;
		case BCMIG_PART_LIST:
			appendStringInfoChar(out, '[');
			json_members(out, part, false);
			appendStringInfoChar(out, ']');
			break;
		case BCMIG_PART_TABLE:
			appendStringInfoChar(out, '[');
			foreach(lc, part->rows)
			{
				const BcmigCell *cells = lfirst(lc);
				bool		first = true;

				appendStringInfoString(out, lc == list_head(part->rows) ? "{" : ", {");
				for (int i = 0; i < part->nfields; i++)
				{
					if (part->fields[i].key == NULL)
						continue;
					appendStringInfo(out, "%s\"%s\": %s", first ? "" : ", ", part->fields[i].key, cells[i].json);
					first = false;
				}
				appendStringInfoChar(out, '}');
			}
			appendStringInfoChar(out, ']');
			break;
		case BCMIG_PART_LINE:
			appendStringInfoString(out, part->cell.json);
			break;
		case BCMIG_PART_PLOT:
			appendStringInfoString(out, "null");
			break;
	}
}

static char *
write_json(const BcmigPart *document)
{
	StringInfoData out;

	initStringInfo(&out);
	json_part(&out, document);
	return out.data;
}

/* ---- formats ---- */

static const struct
{
	const char *name;
	char	   *(*write) (const BcmigPart *document);
}			formats[] = {
	{"text", write_text}, {"json", write_json}, {"html", bcmig_write_html}
};

static int
find_format(const char *format)
{
	StringInfoData known;

	initStringInfo(&known);
	for (int i = 0; i < lengthof(formats); i++)
	{
		if (strcmp(formats[i].name, format) == 0)
			return i;
		appendStringInfo(&known, "%s%s", i > 0 ? ", " : "", formats[i].name);
	}
	ereport(ERROR,
			(errcode(ERRCODE_BM_OPTION),
			 errmsg("a report cannot be written as \"%s\"", format),
			 errhint("This version knows: %s.", known.data)));
}

void
bcmig_check_format(const char *format)
{
	(void) find_format(format);
}

char *
bcmig_write_document(const BcmigPart *document, const char *format)
{
	return formats[find_format(format)].write(document);
}
