/*-------------------------------------------------------------------------
 *
 * html.c
 *	  A report as one HTML file: no links, no scripts, no fonts, no images from
 *	  elsewhere, so that it can be sent, kept and read years later.
 *
 * Every text is escaped here and nowhere else; a plot is the only thing that is
 * markup already (plot.c, which escapes by the same function).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "document.h"

#include "miscadmin.h"

#define OPEN_ROWS	12			/* of a table; the others are behind a fold */

/* colours are named once, for light and for dark */
static const char *const style =
	":root{--bg:#fff;--fg:#1d2733;--dim:#5b6877;--line:#d8dee6;--card:#f6f8fa;--blue:#1f6fd0;--green:#1a7f4b;--bad:#b3261e;--warn:#8a5a00;--a:#1f6fd0;--b:#1a7f4b;--c:#b45309;--d:#7c3aed}"
	"@media(prefers-color-scheme:dark){:root{--bg:#12171d;--fg:#e3e9f0;--dim:#9aa7b5;--line:#2d3742;--card:#1a212a;--blue:#6cb0ff;--green:#56d18d;--bad:#ff8a80;--warn:#f2c14e;--a:#6cb0ff;--b:#56d18d;--c:#f5a35c;--d:#c4a2ff}}"
	"*{box-sizing:border-box}html{color-scheme:light dark;-webkit-text-size-adjust:100%}"
	"body{margin:0 auto;max-width:72rem;padding:1rem;background:var(--bg);color:var(--fg);font:16px/1.45 system-ui,sans-serif}"
	"h1{font-size:1.4rem;line-height:1.25;margin:.2rem 0;overflow-wrap:anywhere}h2{font-size:1.15rem;margin:0 0 .6rem;overflow-wrap:anywhere}h3{font-size:1rem;margin:1.1rem 0 .4rem}"
	"section{border:1px solid var(--line);border-radius:10px;background:var(--card);padding:1rem;margin:1rem 0}"
	"section section{background:var(--bg)}"
	"dl{display:grid;grid-template-columns:minmax(7rem,auto) 1fr;gap:.25rem 1rem;margin:0}dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}"
	".scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem}th,td{padding:.3rem .8rem .3rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line);overflow-wrap:normal}"
	"td{min-width:3rem;max-width:26rem;overflow-wrap:break-word}td code{display:inline-block;min-width:17rem}td span{white-space:nowrap}th{color:var(--dim);font-weight:600;white-space:nowrap}td.n,th.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}"
	"code{font:.85em/1.4 ui-monospace,monospace;overflow-wrap:anywhere}.dim{color:var(--dim)}"
	".good{color:var(--green);font-weight:600}.bad{color:var(--bad);font-weight:600}.warn{color:var(--warn);font-weight:600}"
	".verdict{display:inline-block;font-size:1.7rem;font-weight:700;padding:.15rem .9rem;border-radius:8px;border:3px solid;margin:.3rem 0 .8rem}"
	"summary{cursor:pointer;color:var(--blue)}.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:1.2rem}"
	"figure{margin:0;min-width:0}figcaption{font-weight:600;margin-bottom:.3rem}svg{display:block;width:100%;max-width:600px;height:auto}"
	"svg text{fill:var(--fg);font:11px system-ui,sans-serif}.grid{stroke:var(--line);stroke-width:1;fill:none}.line{fill:none;stroke-width:2;stroke-linejoin:round}"
	".line.a{stroke:var(--a)}.line.b{stroke:var(--b)}.line.c{stroke:var(--c)}.line.d{stroke:var(--d)}.bar.a{fill:var(--a)}.bar.b{fill:var(--b)}.bar.c{fill:var(--c)}.bar.d{fill:var(--d)}"
	"@media print{section{break-inside:avoid}}";

char *
bcmig_html_escape(const char *text)
{
	StringInfoData s;

	initStringInfo(&s);
	for (const char *p = text; *p; p++)
	{
		switch (*p)
		{
			case '&':
				appendStringInfoString(&s, "&amp;");
				break;
			case '<':
				appendStringInfoString(&s, "&lt;");
				break;
			case '>':
				appendStringInfoString(&s, "&gt;");
				break;
			case '"':
				appendStringInfoString(&s, "&quot;");
				break;
			case '\'':
				appendStringInfoString(&s, "&#39;");
				break;
			default:
				/* control characters are no characters of HTML */
				if ((unsigned char) *p < 0x20 && *p != '\n' && *p != '\t')
					appendStringInfoString(&s, "\xef\xbf\xbd");
				else
					appendStringInfoChar(&s, *p);
		}
	}
	return s.data;
}

static const char *
class_of(const char *status)
{
	static const char *const good[] = {"ok", "GO", "done", "equal", "yes", "excellent", "good"};
	static const char *const bad[] = {"fail", "NO-GO", "failed", "different", "not_compensated", "attention"};
	static const char *const dim[] = {"skipped", "pending", ""};

	for (int i = 0; i < lengthof(good); i++)
	{
		if (strcmp(status, good[i]) == 0)
			return "good";
	}
	for (int i = 0; i < lengthof(bad); i++)
	{
		if (strcmp(status, bad[i]) == 0)
			return "bad";
	}
	for (int i = 0; i < lengthof(dim); i++)
	{
		if (strcmp(status, dim[i]) == 0)
			return "dim";
	}
	return "warn";
}

static void
html_cell(StringInfo out, const BcmigCell *cell)
{
	char	   *text = bcmig_html_escape(cell->text);

	if (cell->show == BCMIG_SHOW_STATUS)
		appendStringInfo(out, "<span class=\"%s\">%s</span>", class_of(cell->text), text);
	else if (cell->show == BCMIG_SHOW_CODE)
		appendStringInfo(out, "<code>%s</code>", text);
	else
		appendStringInfoString(out, text);
	pfree(text);
}

static bool
is_number(const BcmigField *field)
{
	return field->show > BCMIG_SHOW_BOOL;
}

static void
html_rows(StringInfo out, const BcmigPart *table, int first, int n)
{
	appendStringInfoString(out, "<div class=\"scroll\"><table><thead><tr>");
	for (int i = 0; i < table->nfields; i++)
	{
		if (table->fields[i].label != NULL)
			appendStringInfo(out, "<th%s>%s</th>", is_number(&table->fields[i]) ? " class=\"n\"" : "", bcmig_html_escape(table->fields[i].label));
	}
	appendStringInfoString(out, "</tr></thead><tbody>\n");
	for (int row = first; row < first + n; row++)
	{
		const BcmigCell *cells = list_nth(table->rows, row);

		CHECK_FOR_INTERRUPTS();
		appendStringInfoString(out, "<tr>");
		for (int i = 0; i < table->nfields; i++)
		{
			if (table->fields[i].label == NULL)
				continue;
			appendStringInfoString(out, is_number(&table->fields[i]) ? "<td class=\"n\">" : "<td>");
			html_cell(out, &cells[i]);
			appendStringInfoString(out, "</td>");
		}
		appendStringInfoString(out, "</tr>\n");
	}
	appendStringInfoString(out, "</tbody></table></div>\n");
}

static void
html_table(StringInfo out, const BcmigPart *table)
{
	int			n = list_length(table->rows);

	appendStringInfo(out, "<h3>%s</h3>\n", bcmig_html_escape(table->title));
	if (n == 0)
	{
		appendStringInfoString(out, "<p class=\"dim\">none</p>\n");
		return;
	}
	html_rows(out, table, 0, Min(n, OPEN_ROWS));
	if (n > OPEN_ROWS)
	{
		appendStringInfo(out, "<details><summary>and %s more</summary>\n", bcmig_grouped(n - OPEN_ROWS));
		html_rows(out, table, OPEN_ROWS, n - OPEN_ROWS);
		appendStringInfoString(out, "</details>\n");
	}
}

static void html_parts(StringInfo out, const BcmigPart *in);

static void
html_part(StringInfo out, const BcmigPart *part)
{
	switch (part->kind)
	{
		case BCMIG_PART_SECTION:
			appendStringInfoString(out, "<section>\n");
			if (part->title != NULL)
				appendStringInfo(out, "<h2>%s</h2>\n", bcmig_html_escape(part->title));
			html_parts(out, part);
			appendStringInfoString(out, "</section>\n");
			break;
		case BCMIG_PART_LIST:
			html_parts(out, part);
			break;
		case BCMIG_PART_TABLE:
			if (part->title != NULL)
				html_table(out, part);
			break;
		case BCMIG_PART_PLOT:
			appendStringInfo(out, "<figure><figcaption>%s</figcaption>\n%s</figure>\n", bcmig_html_escape(part->title), part->svg);
			break;
		case BCMIG_PART_LINE:
			break;
	}
}

/* what lines, or plots, that follow each other are put into */
typedef enum Group
{
	ALONE,
	LINES,
	PLOTS
} Group;

static const char *const group_begin[] = {"", "<dl>\n", "<div class=\"plots\">\n"};
static const char *const group_end[] = {"", "</dl>\n", "</div>\n"};

/* the verdict stands out, as the one line with a status */
static bool
is_verdict(const BcmigPart *part)
{
	return part->kind == BCMIG_PART_LINE && part->cell.show == BCMIG_SHOW_STATUS;
}

static Group
group_of(const BcmigPart *part)
{
	if (part->kind == BCMIG_PART_PLOT)
		return PLOTS;
	return part->kind == BCMIG_PART_LINE && !is_verdict(part) ? LINES : ALONE;
}

static void
html_parts(StringInfo out, const BcmigPart *in)
{
	Group		group = ALONE;
	ListCell   *lc;

	foreach(lc, in->parts)
	{
		const BcmigPart *part = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		if (part->kind == BCMIG_PART_LINE && part->title == NULL)
			continue;
		if (group_of(part) != group)
		{
			appendStringInfoString(out, group_end[group]);
			group = group_of(part);
			appendStringInfoString(out, group_begin[group]);
		}
		if (is_verdict(part))
			appendStringInfo(out, "<div class=\"verdict %s\">%s</div>\n", class_of(part->cell.text), bcmig_html_escape(part->cell.text));
		else if (part->kind == BCMIG_PART_LINE)
		{
			appendStringInfo(out, "<dt>%s</dt><dd>", bcmig_html_escape(part->title));
			html_cell(out, &part->cell);
			appendStringInfoString(out, "</dd>\n");
		}
		else
			html_part(out, part);
	}
	appendStringInfoString(out, group_end[group]);
}

/*
 * Well-formed as XML too, so that what reads it need not guess.
 */
char *
bcmig_write_html(const BcmigPart *document)
{
	StringInfoData out;
	char	   *title = bcmig_html_escape(document->title);

	initStringInfo(&out);
	appendStringInfo(&out, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>"
					 "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
					 "<title>%s</title>\n<style>%s</style></head><body>\n<header><h1>%s</h1><div class=\"dim\">%s</div></header>\n",
					 title, style, title, bcmig_html_escape(document->made_at));
	html_parts(&out, document);
	appendStringInfoString(&out, "</body></html>\n");
	return out.data;
}
