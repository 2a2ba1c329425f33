/*-------------------------------------------------------------------------
 *
 * document.h
 *	  A report before it is written: once built, it is text, JSON or HTML.
 *
 * A document is a tree.  A section has lines, tables and further sections; a
 * list is an array of sections in JSON.  All of it is kept in the memory context
 * the document was begun in, so parts may be added inside a catalogue scope.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_DOCUMENT_H
#define BCMIG_DOCUMENT_H

#include "bcmig.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"

/* how a value of a query is shown; in JSON numbers are numbers */
typedef enum BcmigShow
{
	BCMIG_SHOW_TEXT,
	BCMIG_SHOW_STATUS,			/* text, coloured where there are colours */
	BCMIG_SHOW_CODE,			/* text: a statement, a hash */
	BCMIG_SHOW_BOOL,
	BCMIG_SHOW_INT,
	BCMIG_SHOW_PERCENT,
	BCMIG_SHOW_BYTES,
	BCMIG_SHOW_BYTE_RATE,		/* bytes a second */
	BCMIG_SHOW_ROW_RATE,
	BCMIG_SHOW_MS,
	BCMIG_SHOW_SECONDS
} BcmigShow;

/* a column of a query */
typedef struct BcmigField
{
	const char *key;			/* in JSON; NULL = not there */
	const char *label;			/* for people; NULL = not for them */
	BcmigShow	show;
	const char *if_null;		/* for people; NULL: "unknown" */
} BcmigField;

typedef struct BcmigCell
{
	char	   *text;
	char	   *json;
	BcmigShow	show;
} BcmigCell;

typedef enum BcmigPartKind
{
	BCMIG_PART_SECTION,
	BCMIG_PART_LIST,
	BCMIG_PART_LINE,
	BCMIG_PART_TABLE,
	BCMIG_PART_PLOT				/* HTML only */
} BcmigPartKind;

typedef struct BcmigPart
{
	BcmigPartKind kind;
	MemoryContext context;
	char	   *key;			/* in JSON; NULL = not there */
	char	   *title;			/* of a line its label; NULL = not for people */
	BcmigCell	cell;			/* of a line */
	int			nfields;		/* of a table */
	const BcmigField *fields;
	List	   *rows;			/* BcmigCell *, nfields each */
	char	   *svg;			/* of a plot */
	List	   *parts;			/* BcmigPart */
	char	   *made_at;		/* of a document */
} BcmigPart;

/* begin one; kind is its "report" in JSON, title its heading in HTML */
extern BcmigPart *bcmig_document(const char *kind, const char *title);

extern BcmigPart *bcmig_section(BcmigPart *in, const char *key, const char *title);
extern BcmigPart *bcmig_list(BcmigPart *in, const char *key);
extern void bcmig_plot(BcmigPart *in, const char *title, const char *svg);

/* a line for people only */
extern void bcmig_line(BcmigPart *in, const char *label, const char *format,...) pg_attribute_printf(3, 4);

/* a member of JSON only */
extern void bcmig_member_raw(BcmigPart *in, const char *key, const char *json);
extern void bcmig_member_int(BcmigPart *in, const char *key, int64 value);
extern void bcmig_member_float(BcmigPart *in, const char *key, bool known, double value);
extern void bcmig_member_text(BcmigPart *in, const char *key, const char *value);

/* both */
extern void bcmig_value(BcmigPart *in, const BcmigField *field, const char *value);

/* a row of the last result, its columns as lines; all rows as a table.  Inside a scope. */
extern void bcmig_row_lines(BcmigPart *in, const BcmigField *fields, int nfields, uint64 row);
extern BcmigPart *bcmig_result_table(BcmigPart *in, const char *key, const char *title, const BcmigField *fields, int nfields);

/* a table without rows yet, and a row of it: nfields texts, NULL = NULL */
extern BcmigPart *bcmig_table(BcmigPart *in, const char *key, const char *title, const BcmigField *fields, int nfields);
extern void bcmig_table_row(BcmigPart *table, const char *const *values);

/* ERROR when there is no such format */
extern void bcmig_check_format(const char *format);
extern char *bcmig_write_document(const BcmigPart *document, const char *format);

/* numbers for people */
extern char *bcmig_grouped(int64 n);
extern char *bcmig_milliseconds(double ms);
extern char *bcmig_duration(double seconds);
extern char *bcmig_bytes(double bytes);

/* html.c; text as HTML and SVG may hold it, and a document */
extern char *bcmig_html_escape(const char *text);
extern char *bcmig_write_html(const BcmigPart *document);

#endif							/* BCMIG_DOCUMENT_H */
