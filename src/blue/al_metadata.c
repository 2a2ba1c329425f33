/*-------------------------------------------------------------------------
 *
 * al_metadata.c
 *	  What Business Central itself says of a table: fields, AL types, keys.
 *
 * Column Metadata of [Application Object Metadata] (NAV 2013 to BC 14: also
 * [Object Metadata]) holds an XML document per object, stored as a compressed
 * BLOB.  Of what is in it, this is read:
 *
 *	<MetaTable ID Name DataPerCompany SourceAppId>
 *		<Fields> <Field ID Name Datatype DataLength FieldClass Enabled
 *			OptionString OptionOrdinalValues EnumTypeId SourceAppId
 *			ObsoleteState/> ...
 *		<Keys> <Key Key="Field1,Field2" Name Enabled Clustered
 *			MaintainSQLIndex/> ...
 *	<MetadataRuntimeDeltas ID Name>				a table extension
 *		<FieldAdd .../> ...						as Field
 *		<KeyAdd .../> ...						as Key
 *	<Enum ID Name>								an enum or enum extension
 *		<Value Ordinal Name/> ...				directly or in <Values>
 *
 * Known from published documents and from programs that read real databases:
 * the elements and attributes above but those that follow, and that absent
 * Enabled means 1.  Guessed from the names of the AL properties: attribute
 * OptionOrdinalValues, element KeyAdd, and of Key all but attribute Key.
 * Which table an extension extends is not in its document but in column
 * [Object Subtype] of its row.
 *
 * Names are compared without regard to case, the namespace is ignored: the
 * spelling of AL properties has changed over the versions.
 *
 * The document comes from another database and is not trusted: it is read as a
 * stream, in constant memory and with interrupts, and one with a document type
 * declaration is refused, so there are no entities.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <libxml/xmlreader.h>

#include "al_metadata.h"

#include "bc_names.h"
#include "bc_types.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "errors.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

/* far beyond the widest table; what is longer is no metadata */
#define DOCUMENT_LIMIT		((Size) 64 * 1024 * 1024)

#if LIBXML_VERSION >= 21200
typedef const xmlError *XmlErrorPtr;
#else
typedef xmlErrorPtr XmlErrorPtr;
#endif

/* what libxml2 complained of first */
typedef struct Complaint
{
	bool		there;
	int			line;
	char		message[200];
} Complaint;

typedef struct Attribute
{
	char	   *name;
	char	   *value;			/* UTF-8 */
} Attribute;

/* an element as it begins; gone when the next one does */
typedef struct Element
{
	int			depth;			/* 0 = the root */
	const char *parent;			/* "" for the root */
	const char *name;
	List	   *attributes;
} Element;

typedef void (*ElementReader) (const Element *element, void *arg);

BCMIG_FUNCTION(bcmig_al_table);
BCMIG_FUNCTION(bcmig_al_keys);
BCMIG_FUNCTION(bcmig_al_enum);
BCMIG_FUNCTION(bcmig_al_identifier);

/* ---------------------------------------------------------------------------
 * The document
 * ---------------------------------------------------------------------------
 */

/* called by libxml2: no ERROR may leave it */
static void
complain(void *arg, XmlErrorPtr error)
{
	Complaint  *c = arg;

	/* namespaces mean nothing here, undeclared ones neither */
	if (c->there || error->level < XML_ERR_ERROR || error->domain == XML_FROM_NAMESPACE)
		return;
	c->there = true;
	c->line = error->line;
	strlcpy(c->message, error->message ? error->message : "no message", sizeof(c->message));

	/* it may quote the document, in whatever encoding, and ends in a newline */
	for (char *p = c->message; *p; p++)
	{
		if (*p == '\n')
			*p = p[1] ? ' ' : '\0';
		else if (*p < ' ' || *p > '~')
			*p = '?';
		if (*p == '\0')
			break;
	}
}

static bool
says_utf16(const char *data, Size len)
{
	for (Size i = 0; i + 6 <= len && i < 100 && data[i] != '>'; i++)
	{
		if (pg_strncasecmp(data + i, "utf-16", 6) == 0)
			return true;
	}
	return false;
}

/*
 * UTF-16 without a byte order mark is named; UTF-8 that says of itself it were
 * UTF-16, as .NET's string writer makes it, is not believed.
 */
static xmlTextReaderPtr
open_reader(const char *data, Size len)
{
	const char *encoding = NULL;
	int			options = XML_PARSE_NONET | XML_PARSE_NOCDATA;

	if (len >= 2 && data[0] == '<' && data[1] == '\0')
		encoding = "UTF-16LE";
	else if (len >= 2 && data[0] == '\0' && data[1] == '<')
		encoding = "UTF-16BE";
	else if (says_utf16(data, len))
		options |= XML_PARSE_IGNORE_ENC;
	return xmlReaderForMemory(data, len, NULL, encoding, options);
}

pg_noreturn static void
no_document(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_BM_DAMAGED),
			 errmsg("metadata of Business Central cannot be read"),
			 errdetail("%s", detail)));
}

/* the element the reader stands on; namespaces and prefixed attributes left out */
static void
take_attributes(xmlTextReaderPtr reader, Element *element)
{
	element->attributes = NIL;
	while (xmlTextReaderMoveToNextAttribute(reader) == 1)
	{
		Attribute  *a;

		if (xmlTextReaderIsNamespaceDecl(reader) == 1 || xmlTextReaderConstPrefix(reader) != NULL)
			continue;
		a = palloc(sizeof(Attribute));
		a->name = pstrdup((const char *) xmlTextReaderConstLocalName(reader));
		a->value = pstrdup((const char *) xmlTextReaderConstValue(reader));
		element->attributes = lappend(element->attributes, a);
	}
}

/* call "element_reader" for the elements of the upper three levels */
static void
read_elements(xmlTextReaderPtr reader, const Complaint *complaint,
			  ElementReader element_reader, void *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(caller, "bcmig element", ALLOCSET_SMALL_SIZES);
	NameData	above[2] = {0};
	int			rc;

	while ((rc = xmlTextReaderRead(reader)) == 1)
	{
		Element		element;
		int			type = xmlTextReaderNodeType(reader);

		CHECK_FOR_INTERRUPTS();
		if (type == XML_READER_TYPE_DOCUMENT_TYPE)
			no_document("It has a document type declaration, which Business Central does not write.");
		element.depth = xmlTextReaderDepth(reader);
		if (type != XML_READER_TYPE_ELEMENT || element.depth > 2)
			continue;

		MemoryContextReset(context);
		MemoryContextSwitchTo(context);
		element.name = pstrdup((const char *) xmlTextReaderConstLocalName(reader));
		if (element.depth < 2)
			namestrcpy(&above[element.depth], element.name);
		element.parent = element.depth > 0 ? NameStr(above[element.depth - 1]) : "";
		take_attributes(reader, &element);
		MemoryContextSwitchTo(caller);
		element_reader(&element, arg);
	}
	MemoryContextDelete(context);
	if (complaint->there)
		no_document(psprintf("XML, line %d: %s", complaint->line, complaint->message));
	if (rc != 0)
		no_document("It is no XML.");
}

static void
read_document(bytea *metadata, ElementReader element_reader, void *arg)
{
	bytea	   *document = bcmig_inflate(metadata, DOCUMENT_LIMIT);
	const char *data = VARDATA_ANY(document);
	Size		len = VARSIZE_ANY_EXHDR(document);
	Complaint	complaint = {0};
	void	   *saved_context = xmlStructuredErrorContext;
	xmlStructuredErrorFunc saved_handler = xmlStructuredError;
	xmlTextReaderPtr volatile reader = NULL;

	if (len == 0)
		no_document("It is empty.");
	if (len > DOCUMENT_LIMIT)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("metadata of Business Central has %zu bytes, more than %zu", len, DOCUMENT_LIMIT)));

	/*
	 * What goes wrong in a decoder is told to the process-wide handler only,
	 * and by default printed to the server's log.
	 */
	xmlInitParser();
	xmlSetStructuredErrorFunc(&complaint, complain);
	PG_TRY();
	{
		reader = open_reader(data, len);
		if (reader == NULL)
			no_document("It is no XML.");
		xmlTextReaderSetStructuredErrorHandler(reader, complain, &complaint);
		read_elements(reader, &complaint, element_reader, arg);
	}
	PG_FINALLY();
	{
		if (reader != NULL)
			xmlFreeTextReader(reader);
		xmlSetStructuredErrorFunc(saved_context, saved_handler);
	}
	PG_END_TRY();
}

/* ---------------------------------------------------------------------------
 * Attributes
 * ---------------------------------------------------------------------------
 */

/* NULL when it is not there */
static const char *
utf8_attribute(const Element *element, const char *name)
{
	ListCell   *lc;

	foreach(lc, element->attributes)
	{
		Attribute  *a = lfirst(lc);

		if (pg_strcasecmp(a->name, name) == 0)
			return a->value;
	}
	return NULL;
}

/* in the server's encoding, in the current memory context; NULL when it is not there */
static char *
text_attribute(const Element *element, const char *name)
{
	const char *value = utf8_attribute(element, name);

	return value ? pstrdup(pg_any_to_server(value, strlen(value), PG_UTF8)) : NULL;
}

pg_noreturn static void
bad_attribute(const Element *element, const char *name)
{
	char	   *number = text_attribute(element, "ID");
	char	   *value = text_attribute(element, name);
	char	   *what = value ? psprintf("cannot be \"%s\"", value) : "is missing";

	no_document(psprintf("Element %s%s%s: attribute %s %s.",
						 pg_any_to_server(element->name, strlen(element->name), PG_UTF8),
						 number ? " " : "", number ? number : "", name, what));
}

/* an integer and what may follow it: NULL when there is none */
static const char *
take_int(const char *s, int *value)
{
	char	   *end;
	long		l;

	errno = 0;
	l = strtol(s, &end, 10);
	if (end == s || errno != 0 || l < PG_INT32_MIN || l > PG_INT32_MAX)
		return NULL;
	while (*end == ' ')
		end++;
	*value = l;
	return end;
}

static char *
needed_text(const Element *element, const char *name)
{
	char	   *value = text_attribute(element, name);

	if (value == NULL)
		bad_attribute(element, name);
	return value;
}

static int
int_attribute(const Element *element, const char *name, bool needed)
{
	const char *value = utf8_attribute(element, name);
	const char *rest;
	int			result = 0;

	if (value == NULL && !needed)
		return 0;
	rest = value ? take_int(value, &result) : NULL;
	if (rest == NULL || *rest != '\0')
		bad_attribute(element, name);
	return result;
}

/* 1 and 0 are what Business Central writes */
static bool
bool_attribute(const Element *element, const char *name, bool absent)
{
	const char *value = utf8_attribute(element, name);
	bool		result = absent;

	if (value == NULL)
		return absent;
	if (!parse_bool(value, &result))
		bad_attribute(element, name);
	return result;
}

/* the spelling in "names" of a value, else the value as it is */
static const char *
word_attribute(const Element *element, const char *name, const char *const *names, const char *absent)
{
	const char *value = utf8_attribute(element, name);

	if (value == NULL || *value == '\0')
		return absent;
	for (; *names; names++)
	{
		if (pg_strcasecmp(value, *names) == 0)
			return *names;
	}
	return text_attribute(element, name);
}

/*
 * Members of an option string: "Quote,Order, ,Blanket Order".  A blank member
 * is one like any other.  A member in quotes may hold a comma (guessed: AL
 * writes such names in quotes).
 */
static List *
split_options(const char *string)
{
	List	   *options = NIL;
	const char *p = string;

	for (;;)
	{
		BcmigAlOption *o = palloc0(sizeof(BcmigAlOption));
		const char *end = *p == '"' ? strchr(p + 1, '"') : NULL;

		if (end != NULL && (end[1] == ',' || end[1] == '\0'))
		{
			o->name = pnstrdup(p + 1, end - p - 1);
			end++;
		}
		else
		{
			end = p + strcspn(p, ",");
			o->name = pnstrdup(p, end - p);
		}
		o->ordinal = list_length(options);
		options = lappend(options, o);
		if (*end == '\0')
			return options;
		p = end + 1;
	}
}

/*
 * Members have the ordinals 0, 1, 2, ... unless said otherwise.  A lone -1 for
 * several members says nothing; any other list that is not as long as the
 * members would name values wrongly.
 */
static List *
read_options(const Element *element)
{
	char	   *names = text_attribute(element, "OptionString");
	const char *p = utf8_attribute(element, "OptionOrdinalValues");
	List	   *options;
	ListCell   *lc;

	if (names == NULL || *names == '\0')
		return NIL;
	options = split_options(names);
	if (p == NULL || *p == '\0' || (strcmp(p, "-1") == 0 && list_length(options) > 1))
		return options;
	foreach(lc, options)
	{
		BcmigAlOption *o = lfirst(lc);

		p = take_int(p, &o->ordinal);
		if (p == NULL || *p != (lnext(options, lc) ? ',' : '\0'))
			bad_attribute(element, "OptionOrdinalValues");
		p++;
	}
	return options;
}

/* ---------------------------------------------------------------------------
 * Tables and enums
 * ---------------------------------------------------------------------------
 */
static BcmigAlField *
read_field(const Element *element)
{
	static const char *const types[] = {"BigInteger", "Binary", "BLOB", "Boolean", "Code", "Date",
		"DateFormula", "DateTime", "Decimal", "Duration", "GUID", "Integer", "Media", "MediaSet",
		"OemCode", "OemText", "Option", "RecordId", "TableFilter", "Text", "Time", NULL};
	static const char *const classes[] = {"Normal", "FlowField", "FlowFilter", NULL};
	static const char *const states[] = {"No", "Pending", "Removed", "PendingMove", "Moved", NULL};
	BcmigAlField *f = palloc0(sizeof(BcmigAlField));

	f->number = int_attribute(element, "ID", true);
	f->name = needed_text(element, "Name");
	f->type = word_attribute(element, "Datatype", types, NULL);
	if (f->type == NULL)
		bad_attribute(element, "Datatype");
	f->length = int_attribute(element, "DataLength", false);
	if (f->length < 0)
		bad_attribute(element, "DataLength");
	f->class = word_attribute(element, "FieldClass", classes, "Normal");
	f->options = read_options(element);
	f->enum_id = int_attribute(element, "EnumTypeId", false);
	if (f->enum_id != 0)
		f->type = "Enum";
	f->app_id = text_attribute(element, "SourceAppId");
	f->enabled = bool_attribute(element, "Enabled", true);
	f->obsolete = word_attribute(element, "ObsoleteState", states, "No");
	return f;
}

static BcmigAlKey *
read_key(const Element *element)
{
	BcmigAlKey *k = palloc0(sizeof(BcmigAlKey));
	const char *p = utf8_attribute(element, "Key");

	k->name = text_attribute(element, "Name");
	do
	{
		int			number;

		while (p != NULL && *p == ' ')
			p++;
		if (p != NULL && pg_strncasecmp(p, "Field", 5) == 0)
			p += 5;
		if (p != NULL)
			p = take_int(p, &number);
		if (p == NULL || (*p != ',' && *p != '\0'))
			bad_attribute(element, "Key");
		k->fields = lappend_int(k->fields, number);
	} while (*p++ == ',');
	k->enabled = bool_attribute(element, "Enabled", true);
	k->clustered = bool_attribute(element, "Clustered", false);
	k->sql_index = bool_attribute(element, "MaintainSQLIndex", true);
	return k;
}

pg_noreturn static void
other_object(const Element *element, const char *wanted)
{
	no_document(psprintf("Its root element is %s, it is not of %s.",
						 pg_any_to_server(element->name, strlen(element->name), PG_UTF8), wanted));
}

static bool
is_element(const Element *element, int depth, const char *parent, const char *name)
{
	return element->depth == depth && pg_strcasecmp(element->parent, parent) == 0 &&
		pg_strcasecmp(element->name, name) == 0;
}

static void
table_element(const Element *element, void *arg)
{
	BcmigAlTable *t = arg;

	if (element->depth == 0)
	{
		t->extension = is_element(element, 0, "", "MetadataRuntimeDeltas");
		if (!t->extension && !is_element(element, 0, "", "MetaTable"))
			other_object(element, "a table");
		t->number = int_attribute(element, "ID", true);
		t->name = needed_text(element, "Name");
		t->app_id = text_attribute(element, "SourceAppId");
		t->per_company = bool_attribute(element, "DataPerCompany", true);
	}
	else if (t->extension ? is_element(element, 1, "MetadataRuntimeDeltas", "FieldAdd") :
			 is_element(element, 2, "Fields", "Field"))
		t->fields = lappend(t->fields, read_field(element));
	else if (t->extension ? is_element(element, 1, "MetadataRuntimeDeltas", "KeyAdd") :
			 is_element(element, 2, "Keys", "Key"))
		t->keys = lappend(t->keys, read_key(element));
}

BcmigAlTable *
bcmig_read_al_table(bytea *metadata)
{
	BcmigAlTable *t = palloc0(sizeof(BcmigAlTable));
	bool		clustered = false;
	ListCell   *lc;

	read_document(metadata, table_element, t);
	foreach(lc, t->keys)
		clustered |= ((BcmigAlKey *) lfirst(lc))->clustered;

	/* the primary key is, unless another one is */
	if (t->keys != NIL && !clustered && !t->extension)
		((BcmigAlKey *) linitial(t->keys))->clustered = true;
	return t;
}

static void
enum_element(const Element *element, void *arg)
{
	List	  **values = arg;
	BcmigAlOption *o;

	if (element->depth == 0 && !is_element(element, 0, "", "Enum"))
		other_object(element, "an enum");
	if (!is_element(element, 1, "Enum", "Value") && !is_element(element, 2, "Values", "Value"))
		return;
	o = palloc(sizeof(BcmigAlOption));
	o->ordinal = int_attribute(element, "Ordinal", true);
	o->name = needed_text(element, "Name");
	*values = lappend(*values, o);
}

List *
bcmig_read_al_enum(bytea *metadata)
{
	List	   *values = NIL;

	read_document(metadata, enum_element, &values);
	return values;
}

/* ---------------------------------------------------------------------------
 * SQL
 * ---------------------------------------------------------------------------
 */
static Datum
text_or_null(const char *s, bool *isnull)
{
	*isnull = s == NULL;
	return s ? CStringGetTextDatum(s) : (Datum) 0;
}

/*
 * SQL: bcmig.al_table(metadata bytea)
 */
Datum
bcmig_al_table(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	BcmigAlTable *t = bcmig_read_al_table(PG_GETARG_BYTEA_PP(0));
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, t->fields)
	{
		BcmigAlField *f = lfirst(lc);
		int			noptions = list_length(f->options);
		Datum	   *names = palloc(sizeof(Datum) * Max(noptions, 1));
		Datum	   *ordinals = palloc(sizeof(Datum) * Max(noptions, 1));
		Datum		values[11] = {0};
		bool		nulls[11] = {0};

		for (int i = 0; i < noptions; i++)
		{
			BcmigAlOption *o = list_nth(f->options, i);

			names[i] = CStringGetTextDatum(o->name);
			ordinals[i] = Int32GetDatum(o->ordinal);
		}
		values[0] = Int32GetDatum(f->number);
		values[1] = CStringGetTextDatum(f->name);
		values[2] = CStringGetTextDatum(f->type);
		values[3] = Int32GetDatum(f->length);
		nulls[3] = f->length == 0;
		values[4] = CStringGetTextDatum(f->class);
		values[5] = PointerGetDatum(construct_array(names, noptions, TEXTOID, -1, false, TYPALIGN_INT));
		values[6] = PointerGetDatum(construct_array(ordinals, noptions, INT4OID, 4, true, TYPALIGN_INT));
		nulls[5] = nulls[6] = noptions == 0;
		values[7] = Int32GetDatum(f->enum_id);
		nulls[7] = f->enum_id == 0;
		values[8] = text_or_null(f->app_id, &nulls[8]);
		values[9] = BoolGetDatum(f->enabled);
		values[10] = CStringGetTextDatum(f->obsolete);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

static const char *
field_name(const BcmigAlTable *t, int number)
{
	ListCell   *lc;

	foreach(lc, t->fields)
	{
		BcmigAlField *f = lfirst(lc);

		if (f->number == number)
			return f->name;
	}
	return NULL;
}

/*
 * SQL: bcmig.al_keys(metadata bytea)
 */
Datum
bcmig_al_keys(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	BcmigAlTable *t = bcmig_read_al_table(PG_GETARG_BYTEA_PP(0));
	int			number = 0;
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, t->keys)
	{
		BcmigAlKey *k = lfirst(lc);
		int			nfields = list_length(k->fields);
		int			lower = 1;
		Datum	   *numbers = palloc(sizeof(Datum) * nfields);
		Datum	   *names = palloc(sizeof(Datum) * nfields);
		bool	   *unnamed = palloc(sizeof(bool) * nfields);
		Datum		values[7] = {0};
		bool		nulls[7] = {0};

		for (int i = 0; i < nfields; i++)
		{
			numbers[i] = Int32GetDatum(list_nth_int(k->fields, i));
			names[i] = text_or_null(field_name(t, list_nth_int(k->fields, i)), &unnamed[i]);
		}
		values[0] = Int32GetDatum(++number);
		values[1] = text_or_null(k->name, &nulls[1]);
		values[2] = PointerGetDatum(construct_array(numbers, nfields, INT4OID, 4, true, TYPALIGN_INT));
		values[3] = PointerGetDatum(construct_md_array(names, unnamed, 1, &nfields, &lower,
													   TEXTOID, -1, false, TYPALIGN_INT));
		values[4] = BoolGetDatum(k->enabled);
		values[5] = BoolGetDatum(k->clustered);
		values[6] = BoolGetDatum(k->sql_index);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * SQL: bcmig.al_enum(metadata bytea)
 */
Datum
bcmig_al_enum(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	List	   *options = bcmig_read_al_enum(PG_GETARG_BYTEA_PP(0));
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, options)
	{
		BcmigAlOption *o = lfirst(lc);
		Datum		values[2] = {Int32GetDatum(o->ordinal), CStringGetTextDatum(o->name)};
		bool		nulls[2] = {0};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * SQL: bcmig.al_identifier(name text, invalid_chars text)
 */
Datum
bcmig_al_identifier(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(bcmig_mapped_name(text_to_cstring(PG_GETARG_TEXT_PP(0)),
													   text_to_cstring(PG_GETARG_TEXT_PP(1)))));
}
