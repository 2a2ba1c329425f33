# schema.awk: SQL for the tables of tables.txt
#
#	awk -v company='My Company' -v only='Customer,G_L Entry' -f schema.awk tables.txt
#
# makes the tables of one company ("only": just these); with company '' the
# shared ones.  Every table goes into demo.tables, the list the demo works by.
# Column order, defaults and NOT NULL are as BC makes them: timestamp first,
# then the fields, then the five system columns; only a blob may be NULL.

BEGIN {
	blank_guid = "'00000000-0000-0000-0000-000000000000'"
	n = split(only, list, ",")
	for (i = 1; i <= n; i++)
		wanted[list[i]] = 1
}

function ident(s)
{
	gsub(/"/, "\"\"", s)
	return "\"" s "\""
}

function literal(s)
{
	gsub(/'/, "''", s)
	return "'" s "'"
}

function sql_type(t)
{
	if (t == "i" || t == "o") return "integer NOT NULL DEFAULT 0"
	if (t == "L") return "bigint NOT NULL DEFAULT 0"
	if (t == "b") return "smallint NOT NULL DEFAULT 0"
	if (t == "d") return "numeric(38,20) NOT NULL DEFAULT 0"
	if (t == "D") return "timestamp(3) NOT NULL DEFAULT '1753-01-01'"
	if (t == "g") return "uuid NOT NULL DEFAULT " blank_guid
	if (t == "F") return "varchar(32) NOT NULL DEFAULT ''"
	if (t == "R") return "bytea NOT NULL DEFAULT '\\x00'"
	if (t == "B") return "bytea"
	if (t ~ /^[ct][0-9]+$/) return "varchar(" substr(t, 2) ") NOT NULL DEFAULT ''"
	print "tables.txt: unknown type " t > "/dev/stderr"
	exit 1
}

function list_of_idents(s,   part, n, i, out)
{
	n = split(s, part, ", ")
	for (i = 1; i <= n; i++)
		out = out (i > 1 ? ", " : "") ident(part[i])
	return out
}

function finish(   full, i)
{
	if (name == "" || (shared == (company != "")) || (only != "" && !(name in wanted)))
		return
	full = ident((shared ? "" : company "$") name)
	print "CREATE TABLE public." full " (\n\t\"timestamp\" bigint NOT NULL DEFAULT 0" columns
	if (!companion)
		print "\t, \"$systemId\" uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE" \
			"\n\t, \"$systemCreatedAt\" timestamp(3) NOT NULL DEFAULT '1753-01-01'" \
			"\n\t, \"$systemCreatedBy\" uuid NOT NULL DEFAULT " blank_guid \
			"\n\t, \"$systemModifiedAt\" timestamp(3) NOT NULL DEFAULT '1753-01-01'" \
			"\n\t, \"$systemModifiedBy\" uuid NOT NULL DEFAULT " blank_guid
	if (key != "")
		print "\t, PRIMARY KEY (" list_of_idents(key) ")"
	print ");"
	for (i = 1; i <= indexes; i++)
		print "CREATE INDEX ON public." full " (" list_of_idents(index_on[i]) ");"
	print "INSERT INTO demo.tables (company, name, full_name, capture) VALUES (" literal(company) ", " literal(name) ", " \
		literal((shared ? "" : company "$") name) ", '" capture "');"
}

function start(n, s)
{
	finish()
	name = n
	shared = s
	columns = key = ""
	capture = "change_tracking"
	companion = indexes = 0
}

/^#/ || /^$/ { next }
/^table /    { start(substr($0, 7), 0); next }
/^shared /   { start(substr($0, 8), 1); next }
/^key /      { key = substr($0, 5); next }
/^capture /  { capture = $2; next }
/^companion/ { companion = 1; next }
/^index /    { index_on[++indexes] = substr($0, 7); next }
{
	n = split($0, part, /, /)
	for (i = 1; i <= n; i++)
	{
		match(part[i], / [^ ]+$/)
		columns = columns "\n\t, " ident(substr(part[i], 1, RSTART - 1)) " " sql_type(substr(part[i], RSTART + 1))
	}
}
END { finish() }
