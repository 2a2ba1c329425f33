# ExtensionObjects.pm: all that makes an extension in a database, as lines of
# text, so that one that was updated can be compared with one freshly installed.
package ExtensionObjects;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(extension_lines extension_differences);

# Each query returns lines; o is a member: classid, objid, and its name.  Columns
# count in their order, not by number: an update may have dropped one.
my $members = q{WITH x AS (SELECT * FROM pg_extension WHERE extname = '%s'),
 o AS (SELECT d.classid, d.objid, i.type || ' ' || i.identity AS name FROM pg_depend d JOIN x ON d.refobjid = x.oid, pg_identify_object(d.classid, d.objid, 0) i
        WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'),
 acl AS (SELECT 'pg_class'::regclass AS classid, oid AS objid, relacl AS acl FROM pg_class UNION ALL SELECT 'pg_proc'::regclass, oid, proacl FROM pg_proc
         UNION ALL SELECT 'pg_type'::regclass, oid, typacl FROM pg_type UNION ALL SELECT 'pg_namespace'::regclass, oid, nspacl FROM pg_namespace
         UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid, fdwacl FROM pg_foreign_data_wrapper),
 rel AS (SELECT o.name, c.* FROM o JOIN pg_class c ON o.classid = 'pg_class'::regclass AND c.oid = o.objid)
};
my @queries = (
	q{SELECT 'extension: ' || extrelocatable || ' ' || extnamespace::regnamespace || ' ' || coalesce(obj_description(oid, 'pg_extension'), '') FROM x},
	q{SELECT name FROM o},
	q{SELECT name || ': comment ' || coalesce(obj_description(objid, classid::regclass::name), 'none') FROM o},
	# a privilege a line: their order in an array is that of the statements
	q{SELECT name || ': privilege ' || coalesce(a::text, 'default') FROM o JOIN acl USING (classid, objid) LEFT JOIN LATERAL unnest(acl) a ON true},
	q{SELECT name || ': initial privilege ' || a::text FROM o JOIN pg_init_privs p ON p.classoid = classid AND p.objoid = objid, unnest(initprivs) a},
	q{SELECT name || ': ' || pg_get_functiondef(objid) FROM o JOIN pg_proc p ON classid = 'pg_proc'::regclass AND p.oid = objid WHERE prokind <> 'a'},
	q{SELECT name || ': ' || to_jsonb(a) FROM o JOIN pg_aggregate a ON classid = 'pg_proc'::regclass AND a.aggfnoid = objid},
	q{SELECT name || format(': kind %s, options %s, security %s %s, persistence %s', relkind, reloptions, relrowsecurity, relforcerowsecurity, relpersistence) FROM rel},
	q{SELECT rel.name || format(': column %s %I %s not null %s, default %s, identity %s, generated %s, storage %s, collation %s, acl %s, comment %s',
	         row_number() OVER (PARTITION BY a.attrelid ORDER BY attnum), attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid),
	         attidentity, attgenerated, attstorage, attcollation::regcollation, attacl, col_description(a.attrelid, attnum))
	    FROM rel JOIN pg_attribute a ON a.attrelid = rel.oid AND attnum > 0 AND NOT attisdropped LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = attnum},
	q{SELECT rel.name || format(': constraint %I %s, comment %s', conname, pg_get_constraintdef(c.oid), obj_description(c.oid, 'pg_constraint')) FROM rel JOIN pg_constraint c ON c.conrelid = rel.oid},
	q{SELECT rel.name || ': ' || pg_get_indexdef(indexrelid) FROM rel JOIN pg_index i ON i.indrelid = rel.oid},
	q{SELECT rel.name || format(': %s, enabled %s', pg_get_triggerdef(t.oid), tgenabled) FROM rel JOIN pg_trigger t ON t.tgrelid = rel.oid WHERE NOT tgisinternal},
	q{SELECT rel.name || ': ' || pg_get_viewdef(rel.oid) FROM rel WHERE relkind IN ('v', 'm')},
	q{SELECT rel.name || ': ' || to_jsonb(p) - 'oid' - 'polrelid' FROM rel JOIN pg_policy p ON p.polrelid = rel.oid},
	q{SELECT rel.name || ': ' || to_jsonb(s) - 'seqrelid' FROM rel JOIN pg_sequence s ON s.seqrelid = rel.oid},
	q{SELECT name || ': ' || concat_ws(', ', typtype, typnotnull, typdefault, format_type(typbasetype, typtypmod),
	         (SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid)) FROM o JOIN pg_type t ON classid = 'pg_type'::regclass AND t.oid = objid},
	q{SELECT name || ': ' || concat_ws(', ', fdwhandler::regproc, fdwvalidator::regproc, fdwoptions) FROM o JOIN pg_foreign_data_wrapper f ON classid = 'pg_foreign_data_wrapper'::regclass AND f.oid = objid},
	q{SELECT name || ': ' || concat_ws(', ', evtevent, evtfoid::regproc, evtenabled, evttags) FROM o JOIN pg_event_trigger e ON classid = 'pg_event_trigger'::regclass AND e.oid = objid},
	q{SELECT format('dumped: %s %s', c::regclass, w) FROM x, unnest(extconfig, extcondition) u(c, w)},
);

# The lines of extension $name in database $db.  The tables of @rows_of
# count with their rows: what the script has put there.
sub extension_lines
{
	my ($node, $db, $name, @rows_of) = @_;
	my @lines;

	foreach my $query (@queries, map { "SELECT '$_: row ' || t::text FROM $_ t" } @rows_of)
	{
		# of a definition of several lines, one
		push @lines, split /\n/, $node->safe_psql($db, sprintf($members, $name)
			. "SELECT regexp_replace(line, E'\\\\n', ' ', 'g') FROM ($query) q(line)");
	}
	return sort @lines;
}

# What is different in database $a ("-") and database $b ("+")
sub extension_differences
{
	my ($node, $a, $b, $name, @rows_of) = @_;
	my %count;

	$count{$_}-- foreach extension_lines($node, $a, $name, @rows_of);
	$count{$_}++ foreach extension_lines($node, $b, $name, @rows_of);
	return map { ($count{$_} < 0 ? '- ' : '+ ') . $_ } grep { $count{$_} != 0 } sort keys %count;
}

1;
