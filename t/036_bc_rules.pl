# The rules Business Central guarantees, made for a company: which, that they
# hold on good data, that each finds its broken row and whose fault that is;
# calculated fields on both sides.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use TdsServer;
use Test::More;

my $server = new_sql_server();
my $blue = $server->{node};
my $green = new_green('green', "bcmig.debug_points = 'rule_failed'");
my $app = '437dbf0e-84ff-417a-965d-ed2bb9650972';
my $shop = 'ec255f57-31d0-4ca2-b751-f2fa7c745abb';
my %rel;

sub on_green { return $green->safe_psql('postgres', $_[0]) }
# names of tables as {Table}
sub on_blue { return $blue->safe_psql('postgres', $_[0] =~ s/\{(.+?)\}/$rel{$1} || die $1/egr) }

my %types = (i => 'int NOT NULL DEFAULT 0', b => 'smallint NOT NULL DEFAULT 0', c => q{varchar(30) NOT NULL DEFAULT ''},
	n => 'numeric(38,20) NOT NULL DEFAULT 0', d => q{timestamp(3) NOT NULL DEFAULT '2026-01-05'});

# a table of BC's; columns as "type:name", those of the key first and with a *
sub table
{
	my ($name, @columns) = @_;
	my ($company, $al) = $name =~ /^(Little)\$(.*)$/ ? ($1, $2) : ('CRONUS', $name);
	my $rel = $rel{$name} = sprintf('t%03d', 1 + keys %rel);
	my (@parts, @key);
	foreach my $column (@columns)
	{
		my ($key, $type, $c) = $column =~ /^(\*?)(\w):(.*)$/ or die $column;
		push @parts, "\"$c\" $types{$type}";
		push @key, "\"$c\"" if $key;
	}
	push @parts, '"$systemId" uuid NOT NULL DEFAULT gen_random_uuid()' if $name !~ /\$ext$/;
	$blue->safe_psql('postgres', "CREATE TABLE $rel (" . join(', ', @parts, 'PRIMARY KEY (' . join(', ', @key) . ')') . qq{, "timestamp" bigint NOT NULL DEFAULT 0);
		} . ($name eq 'Sales Header' || $name =~ /\$ext$/ ? '' : "CREATE UNIQUE INDEX ON $rel (\"\$systemId\");") . qq{
		SELECT mssql.register('$rel', \$q\$$company\$} . ($al =~ s/\$ext$//r) . qq{\$$app} . ($al =~ /\$ext$/ ? '$ext' : '') . q{$q$)});
}

$blue->safe_psql('postgres', q{CREATE TABLE company ("Name" varchar(30) PRIMARY KEY, "Display Name" varchar(250) NOT NULL DEFAULT '', "timestamp" bigint NOT NULL DEFAULT 0);
	SELECT mssql.register('company', 'Company'); INSERT INTO company VALUES ('CRONUS'), ('Little')});
table('G_L Account', '*c:No_', 'b:Account Type', 'c:Totaling');
table('G_L Entry', '*i:Entry No_', 'c:G_L Account No_', 'd:Posting Date', 'c:Document No_', 'n:Amount', 'n:Additional-Currency Amount', 'n:Debit Amount',
	'n:Credit Amount', 'i:Transaction No_', 'i:Dimension Set ID');
table('G_L Register', '*i:No_', 'i:From Entry No_', 'i:To Entry No_');
foreach my $side ([ 'Customer', 'Cust_', 'Detailed Cust_ Ledg_ Entry', 'Receivables' ], [ 'Vendor', 'Vendor', 'Detailed Vendor Ledg_ Entry', 'Payables' ])
{
	my ($party, $short, $details, $account) = @$side;
	table($party, '*c:No_', 'c:No_ Series');
	table("$party Posting Group", '*c:Code', "c:$account Account");
	table("$short Ledger Entry", '*i:Entry No_', "c:$party No_", 'c:Currency Code', 'b:Open', "c:$party Posting Group", 'i:Dimension Set ID', 'n:Sales (LCY)', 'n:Profit (LCY)');
	table($details, '*i:Entry No_', "i:$short Ledger Entry No_", 'i:Entry Type', "c:$party No_", 'c:Currency Code', 'n:Amount', 'n:Debit Amount', 'n:Credit Amount',
		'n:Amount (LCY)', 'n:Debit Amount (LCY)', 'n:Credit Amount (LCY)', 'b:Ledger Entry Amount', 'i:Initial Document Type', 'b:Excluded from calculation');
}
table('Item', '*c:No_', 'c:No_ Series');
table('Item Ledger Entry', '*i:Entry No_', 'c:Item No_', 'c:Variant Code', 'c:Location Code', 'n:Quantity', 'n:Remaining Quantity', 'n:Invoiced Quantity', 'b:Open', 'b:Positive', 'b:Completely Invoiced');
table('Value Entry', '*i:Entry No_', 'i:Item Ledger Entry No_', 'n:Item Ledger Entry Quantity', 'n:Invoiced Quantity', 'n:Cost Amount (Expected)', 'n:Cost Amount (Actual)', 'n:Sales Amount (Actual)');
table('Item Application Entry', '*i:Entry No_', 'i:Inbound Item Entry No_', 'n:Quantity');
table('Dimension Value', '*c:Dimension Code', '*c:Code', 'i:Dimension Value ID');
table('Dimension Set Entry', '*i:Dimension Set ID', '*c:Dimension Code', 'c:Dimension Value Code', 'i:Dimension Value ID');
table('Sales Header', '*i:Document Type', '*c:No_', 'c:No_ Series', 'i:Dimension Set ID');
table('Sales Line', '*i:Document Type', '*c:Document No_', '*i:Line No_', 'i:Type', 'c:No_', 'c:Bill-to Customer No_', 'n:Amount', 'n:Outstanding Amount (LCY)', 'n:Outstanding Qty_ (Base)');
table('Sales Invoice Header', '*c:No_', 'c:No_ Series', 'i:Cust_ Ledger Entry No_');
table('Sales Invoice Line', '*c:Document No_', '*i:Line No_', 'n:Amount');
table('No_ Series Line', '*c:Series Code', '*i:Line No_', 'c:Starting No_', 'c:Ending No_', 'c:Last No_ Used', 'c:Sequence Name');
table('Customer$ext', '*c:No_', "c:Shop No_\$$shop");
table('Little$Customer', '*c:No_', 'c:No_ Series');

# a posted invoice over 100 with its payment, one that is open, one of a vendor
on_blue(q{
	INSERT INTO {G_L Account} ("No_", "Account Type") VALUES ('1200', 0), ('2000', 0), ('4000', 0), ('5000', 0), ('9999', 2);
	INSERT INTO {G_L Entry} ("Entry No_", "G_L Account No_", "Document No_", "Amount", "Debit Amount", "Credit Amount", "Transaction No_", "Dimension Set ID", "Posting Date") VALUES
		(1, '1200', 'S1', 100.1, 100.1, 0, 1, 7, '2026-01-05'), (2, '4000', 'S1', -100.1, 0, 100.1, 1, 7, '2026-01-05'), (3, '2000', 'B1', 100.1, 100.1, 0, 2, 0, '2026-02-05'), (4, '1200', 'B1', -100.1, 0, 100.1, 2, 0, '2026-02-05'),
		(5, '1200', 'S2', 50, 50, 0, 3, 0, '2026-12-31 23:59:59'), (6, '4000', 'S2', -50, 0, 50, 3, 0, '2026-12-31 23:59:59'), (7, '5000', 'P1', -30, 0, -30 * -1, 4, 0, '2026-03-01'), (8, '2000', 'P1', 30, 30, 0, 4, 0, '2026-03-01');
	INSERT INTO {G_L Register} ("No_", "From Entry No_", "To Entry No_") VALUES (1, 1, 2), (2, 3, 4), (3, 5, 6), (4, 7, 8), (5, 0, 0);
	INSERT INTO {Customer} ("No_", "No_ Series") VALUES ('C00010', 'CUST'), ('C00020', ''), ('C90000', '');
	INSERT INTO {Customer$ext} ("No_") VALUES ('C00010'), ('C00020'), ('C90000');
	INSERT INTO {Customer Posting Group} ("Code", "Receivables Account") VALUES ('DOM', '1200'), ('EU', '1200');
	INSERT INTO {Cust_ Ledger Entry} ("Entry No_", "Customer No_", "Open", "Customer Posting Group", "Dimension Set ID", "Sales (LCY)", "Profit (LCY)") VALUES (1, 'C00010', 0, 'DOM', 7, 100.1, 40), (4, 'C00010', 0, 'DOM', 0, 0, 0), (5, 'C00020', 1, 'EU', 0, 50, 10);
	INSERT INTO {Detailed Cust_ Ledg_ Entry} ("Entry No_", "Cust_ Ledger Entry No_", "Entry Type", "Customer No_", "Amount", "Debit Amount", "Credit Amount", "Ledger Entry Amount", "Initial Document Type") VALUES
		(1, 1, 1, 'C00010', 100.1, 100.1, 0, 1, 2), (2, 4, 1, 'C00010', -100.1, 0, 100.1, 1, 1), (3, 1, 2, 'C00010', -100.1, 0, 100.1, 0, 2), (4, 4, 2, 'C00010', 100.1, 100.1, 0, 0, 1), (5, 5, 1, 'C00020', 50, 50, 0, 1, 2),
		(6, 1, 2, 'C00010', 3, 3, 0, 0, 2);
	UPDATE {Detailed Cust_ Ledg_ Entry} SET "Excluded from calculation" = 1, "Entry Type" = 10 WHERE "Entry No_" = 6;
	INSERT INTO {Vendor} ("No_") VALUES ('V1');
	INSERT INTO {Vendor Posting Group} ("Code", "Payables Account") VALUES ('DOM', '5000');
	INSERT INTO {Vendor Ledger Entry} ("Entry No_", "Vendor No_", "Open", "Vendor Posting Group") VALUES (7, 'V1', 1, 'DOM');
	INSERT INTO {Detailed Vendor Ledg_ Entry} ("Entry No_", "Vendor Ledger Entry No_", "Entry Type", "Vendor No_", "Amount", "Debit Amount", "Credit Amount", "Ledger Entry Amount") VALUES (1, 7, 1, 'V1', -30, 0, 30, 1);
	UPDATE {Detailed Cust_ Ledg_ Entry} SET "Amount (LCY)" = "Amount", "Debit Amount (LCY)" = "Debit Amount", "Credit Amount (LCY)" = "Credit Amount";
	UPDATE {Detailed Vendor Ledg_ Entry} SET "Amount (LCY)" = "Amount", "Debit Amount (LCY)" = "Debit Amount", "Credit Amount (LCY)" = "Credit Amount";
	INSERT INTO {Item} ("No_") VALUES ('I1');
	INSERT INTO {Item Ledger Entry} ("Entry No_", "Item No_", "Quantity", "Remaining Quantity", "Invoiced Quantity", "Open", "Positive", "Completely Invoiced") VALUES
		(1, 'I1', 10, 7.5, 10, 1, 1, 1), (2, 'I1', -2.5, 0, -2.5, 0, 0, 1);
	INSERT INTO {Value Entry} ("Entry No_", "Item Ledger Entry No_", "Item Ledger Entry Quantity", "Invoiced Quantity", "Cost Amount (Expected)", "Cost Amount (Actual)", "Sales Amount (Actual)") VALUES
		(1, 1, 10, 0, 100, 0, 0), (2, 1, 0, 10, -100, 100, 0), (3, 2, -2.5, -2.5, 0, -25, 40), (4, 0, 0, 0, 0, 5, 0);
	INSERT INTO {Item Application Entry} ("Entry No_", "Inbound Item Entry No_", "Quantity") VALUES (1, 1, 10), (2, 1, -2.5);
	INSERT INTO {Dimension Value} VALUES ('DEP', 'ADM', 4);
	INSERT INTO {Dimension Set Entry} VALUES (7, 'DEP', 'ADM', 4);
	INSERT INTO {Sales Header} ("Document Type", "No_", "No_ Series", "Dimension Set ID") VALUES (1, 'O1', '', 7);
	INSERT INTO {Sales Line} VALUES (1, 'O1', 10000, 2, 'I1', 'C00010', 20, 24, 2), (1, 'O1', 20000, 0, '', 'C00010', 0, 0, 0);
	INSERT INTO {Sales Invoice Header} ("No_", "No_ Series", "Cust_ Ledger Entry No_") VALUES ('S1', 'INV', 1), ('S2', 'INV', 5);
	INSERT INTO {Sales Invoice Line} VALUES ('S1', 10000, 100.1), ('S2', 10000, 50);
	INSERT INTO {No_ Series Line} VALUES ('CUST', 10000, 'C00010', 'C89999', 'C00010', ''), ('INV', 10000, 'S1', '', 'S2', '');
	INSERT INTO {Little$Customer} ("No_") VALUES ('L1');});

connect_sql_server($green, $server, 's', '{"sweep_interval": "1h", "poll_interval": "50ms"}');
on_green(q{SELECT count(*) FROM bcmig_add_company('s', 'CRONUS', 'cronus'); SELECT count(*) FROM bcmig_add_company('s', 'Little', 'little')});
start_sync($green, 's');
wait_sync($green, 's');

# run a validation of all, or of a table, to its end; its id and verdict
sub validate
{
	my ($target, $meanwhile) = @_;
	my $run = on_green("SELECT bcmig_validate('s', " . (defined $target ? "'$target'" : 'NULL') . ", 'full')");
	$meanwhile->() if defined $meanwhile;
	$green->poll_query_until('postgres', "SELECT state <> 'running' FROM bcmig.validation_run WHERE run_id = $run")
	  or die "validation $run does not end: " . on_green("SELECT phase, target FROM bcmig.worker_status");
	return ($run, on_green("SELECT verdict FROM bcmig.validation_run WHERE run_id = $run"));
}

# what did not hold: "name verdict", in order
sub broken
{
	my ($run) = @_;
	return on_green("SELECT string_agg(name || ' ' || verdict, E'\\n' ORDER BY name COLLATE \"C\") FROM bcmig.rule_result x JOIN bcmig.rule u USING (rule_id) WHERE run_id = $run AND verdict <> 'ok'");
}

my ($run, $verdict) = validate();
is($verdict, 'ok', 'good data are good');
is(broken($run), '', 'and every rule holds') or diag(on_green("SELECT name, verdict, x.detail, examples FROM bcmig.rule_result x JOIN bcmig.rule u USING (rule_id) WHERE run_id = $run AND verdict <> 'ok'"));

# --- which there are ---
my @ledger = map { my $x = $_; map { "$x$_" } '1 detailed entries are of their entry\'s account and currency|business|soft', '1 detailed entries have their entry|reference|hard', '2 nothing remains of closed entries|business|hard',
	'3 something remains of open entries|business|soft', '4 entries have one initial entry|business|soft', '4 only applications and their rounding are no amount of the entry|business|hard',
	'5 amount (LCY) is debit less credit|business|hard', '5 amount is debit less credit|business|hard', '6 entries of posting groups add up to their G/L account|business|soft' } qw(C V);
my @entry = ('Amount', 'Amount (LCY)', 'Original Amount', 'Remaining Amount', 'Remaining Amt. (LCY)');
is(join("\n", sort split /\n/, on_green(q{SELECT regexp_replace(name, '^CRONUS: ', ''), kind, severity FROM bcmig.rule WHERE company = 'CRONUS' AND shipped})), join("\n", sort @ledger,
	'G1 amounts add up to 0|business|hard', 'G1 additional-currency amounts add up to 0|business|hard', 'G2 a register\'s range balances on each date|business|soft', 'G3 a transaction balances|business|soft',
	'G4 a document balances on each date|business|soft', 'G5 amount is debit less credit|business|hard', 'G6 accounts exist|reference|hard', 'G6 accounts are for posting|business|soft', 'G7 registers do not overlap|business|soft',
	'I1 entries are open while a quantity remains|business|hard', 'I2 sign and size of quantities|business|soft', 'I3 quantities are what remains|business|soft', 'I4 applications add up to what remains|business|soft',
	'I5 value entries add up to quantities|business|soft', 'I6 nothing is expected of what is invoiced|business|soft', 'I7 value entries have their item ledger entry|reference|hard',
	'D1 dimension sets exist, 1|reference|hard', 'D2 dimension values of sets exist|reference|hard', 'D2 dimension values of sets have their id|business|soft',
	'P1 Sales Line has its header|reference|hard', 'P1 Sales Invoice Line has its header|reference|hard', (map { "N1 numbers of $_ are not above the last used|business|soft" } 'Customer', 'Vendor', 'Item', 'Sales Header', 'Sales Invoice Header'),
	'E1 records have their companions, 1|business|soft', 'S1 system ids are unique, 1|business|hard',
	map { "$_|calculated|hard" } (map { "G/L Account.$_" } 'Balance', 'Debit Amount', 'Credit Amount'), (map { "Customer.$_" } 'Balance', 'Balance (LCY)', 'Sales (LCY)', 'Profit (LCY)', 'Outstanding Orders (LCY)'),
	'Vendor.Balance', 'Vendor.Balance (LCY)', 'Customer.Payments (LCY)', (map { ("Cust. Ledger Entry.$_", "Vendor Ledger Entry.$_") } @entry), 'Item.Inventory', 'Item.Net Invoiced Qty.', 'Item.Qty. on Sales Order',
	(map { "Item Ledger Entry.$_" } 'Cost Amount (Actual)', 'Cost Amount (Expected)', 'Sales Amount (Actual)'), 'Sales Header.Amount', 'Sales Invoice Header.Amount', 'Sales Invoice Header.Remaining Amount'), 'the rules of a company');
is(on_green(q{SELECT string_agg(name, ' ') FROM bcmig.rule WHERE company = 'Little'}), 'Little: S1 system ids are unique, 1', 'fewer where tables are missing');
like(on_green(q{SELECT query FROM bcmig.rule WHERE name = 'CRONUS: C2 nothing remains of closed entries'}), qr/ AND d\.excluded_from_calculation = 0/, 'what may be missing is used where it is there');
is(on_green(q{SELECT string_agg(DISTINCT t.al_table, ', ') FROM bcmig.rule JOIN bcmig.sync_table t USING (table_id) WHERE kind = 'calculated' AND name LIKE '%: Customer.%'}), 'Customer', 'a calculated field counts for its table');
my $ids = q{SELECT string_agg(rule_id || name || query, ' ' ORDER BY rule_id) FROM bcmig.rule WHERE NOT removed};
my $before = on_green($ids);

# --- green alone ---
green_behind($green, q{
	UPDATE cronus.g_l_entry SET amount = amount + 1 WHERE entry_no = 3;
	UPDATE cronus.detailed_cust_ledg_entry SET cust_ledger_entry_no = 99 WHERE entry_no = 2;
	UPDATE cronus.item_ledger_entry SET open = 0 WHERE entry_no = 1;
	UPDATE cronus.sales_header SET dimension_set_id = 8;
	DELETE FROM cronus.sales_invoice_header WHERE no = 'S2';
	INSERT INTO cronus.sales_header (document_type, no, no_series, dimension_set_id, system_id) SELECT 1, 'O2', '', 0, system_id FROM cronus.sales_header;});
($run, $verdict) = validate();
is($verdict, 'different', 'a hard rule that fails turns the verdict');
is(broken($run), join("\n", map { "CRONUS: $_ fails" } sort 'C1 detailed entries have their entry', 'C2 nothing remains of closed entries', 'C4 entries have one initial entry',
	'C6 entries of posting groups add up to their G/L account', 'D1 dimension sets exist, 1', 'G1 amounts add up to 0', 'G2 a register\'s range balances on each date', 'G3 a transaction balances',
	'G4 a document balances on each date', 'G5 amount is debit less credit', 'G/L Account.Balance', 'I1 entries are open while a quantity remains', 'P1 Sales Invoice Line has its header', 'S1 system ids are unique, 1', 'Sales Invoice Header.Remaining Amount',
	(map { "Cust. Ledger Entry.$_" } @entry)), 'each finds what is wrong on green, no other');
sub examples { return on_green("SELECT examples FROM bcmig.rule_result JOIN bcmig.rule USING (rule_id) WHERE run_id = $run AND name = 'CRONUS: $_[0]'") }
is(examples('G/L Account.Balance'), '[{"key": ["2000"], "blue": 130.1, "green": 131.1}]', 'what each side has');
is(examples('D1 dimension sets exist, 1'), '[{"key": [1, "O1"], "table": "Sales Header", "dimension_set": 8}]', 'which row of which table');
is(examples('P1 Sales Invoice Line has its header'), '[{"line_no": 10000, "document_no": "S2"}]', 'which line');
is(on_green($ids), $before, 'rules stay as they are');
on_green("SELECT * FROM bcmig_repair($run)");
ok($green->poll_query_until('postgres', "SELECT count(*) = 0 FROM bcmig.validation_difference WHERE run_id = $run AND repaired_at IS NULL"), 'green is repaired');

# --- the same on both sides ---
on_green(q{SELECT bcmig_remove_rule('s', 'CRONUS: G4 a document balances on each date')});
on_blue(q{
	UPDATE {G_L Entry} SET "Amount" = -31 WHERE "Entry No_" = 7;
	UPDATE {G_L Entry} SET "Additional-Currency Amount" = 1, "Dimension Set ID" = 9 WHERE "Entry No_" = 1;
	UPDATE {G_L Entry} SET "G_L Account No_" = '8888' WHERE "Entry No_" = 6;
	UPDATE {G_L Entry} SET "G_L Account No_" = '9999' WHERE "Entry No_" = 2;
	UPDATE {G_L Register} SET "From Entry No_" = 7, "To Entry No_" = 8 WHERE "No_" = 5;
	UPDATE {Detailed Cust_ Ledg_ Entry} SET "Cust_ Ledger Entry No_" = 99 WHERE "Entry No_" = 2;
	UPDATE {Detailed Cust_ Ledg_ Entry} SET "Entry Type" = 3, "Debit Amount" = 1 WHERE "Entry No_" = 3;
	UPDATE {Detailed Cust_ Ledg_ Entry} SET "Customer No_" = 'C00010', "Debit Amount (LCY)" = 1 WHERE "Entry No_" = 5;
	INSERT INTO {Cust_ Ledger Entry} ("Entry No_", "Open") VALUES (6, 1);
	UPDATE {Detailed Vendor Ledg_ Entry} SET "Vendor Ledger Entry No_" = 99 WHERE "Entry No_" = 1;
	UPDATE {Item Ledger Entry} SET "Open" = 1, "Positive" = 1 WHERE "Entry No_" = 2;
	UPDATE {Item Ledger Entry} SET "Remaining Quantity" = 7.4 WHERE "Entry No_" = 1;
	UPDATE {Value Entry} SET "Invoiced Quantity" = 9 WHERE "Entry No_" = 2;
	UPDATE {Value Entry} SET "Cost Amount (Expected)" = 1 WHERE "Entry No_" = 3;
	UPDATE {Value Entry} SET "Item Ledger Entry No_" = 77 WHERE "Entry No_" = 4;
	UPDATE {Dimension Set Entry} SET "Dimension Value Code" = 'XXX';
	INSERT INTO {Dimension Set Entry} VALUES (8, 'DEP', 'ADM', 5);
	INSERT INTO {Sales Line} ("Document Type", "Document No_", "Line No_") VALUES (1, 'O9', 1);
	INSERT INTO {Sales Invoice Line} VALUES ('S9', 1, 0);
	INSERT INTO {Sales Invoice Header} ("No_", "No_ Series") VALUES ('S3', 'INV');
	DELETE FROM {Customer$ext} WHERE "No_" = 'C90000';
	UPDATE {Customer} SET "$systemId" = '00000000-0000-0000-0000-000000000000' WHERE "No_" = 'C90000';});
wait_sync($green, 's');
($run, $verdict) = validate();
is($verdict, 'ok', 'which is no difference');
is(broken($run), join("\n", map { "CRONUS: $_ fails on blue" } sort { $a cmp $b } (map { s/\|.*//r } grep { !/^V[1245] .*(account and|closed|LCY|only|debit)/ } @ledger),
	'G1 amounts add up to 0', 'G1 additional-currency amounts add up to 0', 'G2 a register\'s range balances on each date', 'G3 a transaction balances', 'G5 amount is debit less credit', 'G6 accounts exist', 'G6 accounts are for posting',
	'G7 registers do not overlap', 'I1 entries are open while a quantity remains', 'I2 sign and size of quantities', 'I3 quantities are what remains', 'I4 applications add up to what remains', 'I5 value entries add up to quantities',
	'I6 nothing is expected of what is invoiced', 'I7 value entries have their item ledger entry', 'D1 dimension sets exist, 1', 'D2 dimension values of sets exist', 'D2 dimension values of sets have their id',
	'P1 Sales Line has its header', 'P1 Sales Invoice Line has its header', 'N1 numbers of Sales Invoice Header are not above the last used', 'E1 records have their companions, 1', 'S1 system ids are unique, 1'),
	'each finds what is wrong on both sides');
is(examples('E1 records have their companions, 1'), '[{"key": ["C90000"], "table": "Customer"}]', 'a record without its companion');
is(on_green(q{SELECT removed FROM bcmig.rule WHERE name LIKE '%: G4 %'}), 't', 'what was removed is not made again');

# --- tables and companies go ---
on_green(q{SELECT bcmig_remove_table('s', 'cronus.customer_posting_group'); SELECT bcmig_remove_company('s', 'Little')});
is(on_green(q{SELECT count(*) FROM bcmig.rule WHERE company = 'Little'}), '0', 'the rules of a company go with it');
wait_sync($green, 's');
($run, $verdict) = validate('cronus.sales_invoice_line');
is(on_green(q{SELECT string_agg(name, ' ') FROM bcmig.rule WHERE name ~ ': [CV]6 '}), 'CRONUS: V6 entries of posting groups add up to their G/L account', 'those of a table with it');
is(on_green("SELECT string_agg(name, ' ') FROM bcmig.rule_result JOIN bcmig.rule USING (rule_id) WHERE run_id = $run"), 'CRONUS: P1 Sales Invoice Line has its header', 'a run of one table looks at its rules');

# --- a sum that moves ---
green_behind($green, q{UPDATE cronus.g_l_entry SET amount = amount + 1 WHERE entry_no = 3});
my $hold = hold_point($green, 'rule_failed');
($run, $verdict) = validate('cronus.g_l_account', sub {
	$green->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)}) or die 'no rule fails';
	green_behind($green, q{UPDATE cronus.g_l_entry SET amount = amount + CASE entry_no WHEN 3 THEN -1 ELSE 1 END WHERE entry_no IN (3, 5)});
	$hold->quit;
});
is(on_green("SELECT x.verdict, looks FROM bcmig.rule_result x JOIN bcmig.rule USING (rule_id) WHERE run_id = $run AND name = 'CRONUS: G/L Account.Balance'"), 'ok|2', 'each sum was right at one of two looks');
($run, $verdict) = validate('cronus.g_l_account');
is(examples('G/L Account.Balance'), '[{"key": ["1200"], "blue": 50, "green": 51}]', 'one that is wrong at both is wrong');

TdsServer::stop_server($server);
done_testing();
