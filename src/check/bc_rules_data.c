/*-------------------------------------------------------------------------
 *
 * bc_rules_data.c
 *	  Rules Business Central's own posting code guarantees, as data.
 *
 * Hard: the code cannot leave it otherwise.  Soft: normally true, but settings,
 * old versions or deleted history may break it.  Each query returns the rows
 * that break the rule, what they are known by first.  Blank, '' or 0, is no
 * reference.  Rules that hold for every table are in bc_rules.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "bc_rules.h"

#define REFERENCE	"reference"
#define BUSINESS	"business"
#define HARD		"hard"
#define SOFT		"soft"

#define GL_ENTRY		"G/L Entry"
#define ITEM_ENTRY		"Item Ledger Entry"
#define VALUE_ENTRY		"Value Entry"
#define SET_ENTRY		"Dimension Set Entry"

#define NOT_EXCLUDED	"{ AND [d.Excluded from calculation] = 0}"

/* entries of customers or vendors (l), what they consist of (d), posting groups (p) */
#define LEDGER(id, ledger, details, entry, party, group, account) \
	{id "1", "detailed entries have their entry", REFERENCE, HARD, {{'d', details}, {'l', ledger}}, \
		"SELECT [d.Entry No.], [d." entry "] FROM [d] WHERE [d." entry "] <> 0 " \
		"AND NOT EXISTS (SELECT FROM [l] WHERE [l.Entry No.] = [d." entry "])"}, \
	{id "1", "detailed entries are of their entry's account and currency", BUSINESS, SOFT, {{'d', details}, {'l', ledger}}, \
		"SELECT [d.Entry No.], [d." party "], [d.Currency Code], [l.Entry No.] AS entry, [l." party "] AS account_of_entry, [l.Currency Code] AS currency_of_entry " \
		"FROM [d] JOIN [l] ON [l.Entry No.] = [d." entry "] " \
		"WHERE [d." party "] <> [l." party "] OR [d.Currency Code] <> [l.Currency Code]"}, \
	{id "2", "nothing remains of closed entries", BUSINESS, HARD, {{'l', ledger}, {'d', details}}, \
		"SELECT [l.Entry No.], sum([d.Amount]) AS remaining FROM [l] JOIN [d] ON [d." entry "] = [l.Entry No.]" NOT_EXCLUDED " " \
		"WHERE [l.Open] = 0 GROUP BY 1 HAVING sum([d.Amount]) <> 0"}, \
	{id "3", "something remains of open entries", BUSINESS, SOFT, {{'l', ledger}, {'d', details}}, \
		"SELECT [l.Entry No.] FROM [l] LEFT JOIN [d] ON [d." entry "] = [l.Entry No.]" NOT_EXCLUDED " " \
		"WHERE [l.Open] <> 0 GROUP BY 1 HAVING coalesce(sum([d.Amount]), 0) = 0"}, \
	{id "4", "entries have one initial entry", BUSINESS, SOFT, {{'l', ledger}, {'d', details}}, \
		"SELECT [l.Entry No.], count([d.Entry No.]) AS initial_entries FROM [l] " \
		"LEFT JOIN [d] ON [d." entry "] = [l.Entry No.] AND [d.Entry Type] = 1 GROUP BY 1 HAVING count([d.Entry No.]) <> 1"}, \
	{id "4", "only applications and their rounding are no amount of the entry", BUSINESS, HARD, {{'d', details}}, \
		"SELECT [d.Entry No.], [d.Entry Type] FROM [d] WHERE [d.Ledger Entry Amount] = 0 AND [d.Entry Type] NOT IN (2, 10)"}, \
	{id "5", "amount is debit less credit", BUSINESS, HARD, {{'d', details}}, \
		"SELECT [d.Entry No.], [d.Amount], [d.Debit Amount], [d.Credit Amount] FROM [d] " \
		"WHERE [d.Amount] <> [d.Debit Amount] - [d.Credit Amount]"}, \
	{id "5", "amount (LCY) is debit less credit", BUSINESS, HARD, {{'d', details}}, \
		"SELECT [d.Entry No.], [d.Amount (LCY)], [d.Debit Amount (LCY)], [d.Credit Amount (LCY)] FROM [d] " \
		"WHERE [d.Amount (LCY)] <> [d.Debit Amount (LCY)] - [d.Credit Amount (LCY)]"}, \
	{id "6", "entries of posting groups add up to their G/L account", BUSINESS, SOFT, \
		{{'d', details}, {'l', ledger}, {'p', group}, {'g', GL_ENTRY}}, \
		"SELECT account, coalesce(y.amount, 0) AS amount, z.balance FROM (SELECT DISTINCT [p." account "] AS account FROM [p] WHERE [p." account "] <> '') x " \
		"LEFT JOIN (SELECT [p." account "] AS account, sum([d.Amount (LCY)]) AS amount FROM [d] JOIN [l] ON [l.Entry No.] = [d." entry "]" NOT_EXCLUDED " " \
		"JOIN [p] ON [p.Code] = [l." group "] GROUP BY 1) y USING (account) " \
		"CROSS JOIN LATERAL (SELECT coalesce(sum([g.Amount]), 0) AS balance FROM [g] WHERE [g.G/L Account No.] = account) z " \
		"WHERE coalesce(y.amount, 0) <> z.balance"}

/* documents have no header check the other way */
#define OPEN_LINES(lines, headers) \
	{"P1", lines " has its header", REFERENCE, HARD, {{'l', lines}, {'h', headers}}, \
		"SELECT [l.Document Type], [l.Document No.], [l.Line No.] FROM [l] WHERE [l.Document No.] <> '' " \
		"AND NOT EXISTS (SELECT FROM [h] WHERE [h.Document Type] = [l.Document Type] AND [h.No.] = [l.Document No.])"}
#define POSTED_LINES(lines, headers) \
	{"P1", lines " has its header", REFERENCE, HARD, {{'l', lines}, {'h', headers}}, \
		"SELECT [l.Document No.], [l.Line No.] FROM [l] WHERE [l.Document No.] <> '' " \
		"AND NOT EXISTS (SELECT FROM [h] WHERE [h.No.] = [l.Document No.])"}

/*
 * Numbers of one series and shape.  A line with a sequence does not keep the
 * number used last.
 */
#define NUMBERED(table) \
	{"N1", "numbers of " table " are not above the last used", BUSINESS, SOFT, {{'r', table}, {'l', "No. Series Line"}}, \
		"SELECT [r.No.], [r.No. Series] FROM [r] WHERE [r.No. Series] <> '' AND EXISTS (SELECT FROM [l] " \
		"WHERE [l.Series Code] = [r.No. Series]{ AND [l.Sequence Name] = ''} AND length([l.Starting No.]) = length([r.No.]) " \
		"AND regexp_replace([l.Starting No.], '\\d', '', 'g') = regexp_replace([r.No.], '\\d', '', 'g') " \
		"AND [r.No.] >= [l.Starting No.] COLLATE \"C\" AND ([l.Ending No.] = '' OR [r.No.] <= [l.Ending No.] COLLATE \"C\") " \
		"AND [r.No.] > [l.Last No. Used] COLLATE \"C\")"}

const BcmigBcRule bcmig_bc_rules[] =
{
	/* G/L entries (e) */
	{"G1", "amounts add up to 0", BUSINESS, HARD, {{'e', GL_ENTRY}},
		"SELECT sum([e.Amount]) AS sum FROM [e] HAVING sum([e.Amount]) <> 0"},
	{"G1", "additional-currency amounts add up to 0", BUSINESS, HARD, {{'e', GL_ENTRY}},
		"SELECT sum([e.Additional-Currency Amount]) AS sum FROM [e] HAVING sum([e.Additional-Currency Amount]) <> 0"},
	{"G2", "a register balances on each date", BUSINESS, HARD, {{'e', GL_ENTRY}},
		"SELECT [e.G/L Register No.], [e.Posting Date], sum([e.Amount]) AS sum FROM [e] GROUP BY 1, 2 HAVING sum([e.Amount]) <> 0"},
	{"G2", "a register's range balances on each date", BUSINESS, SOFT, {{'r', "G/L Register"}, {'e', GL_ENTRY}},
		"SELECT [r.No.], [e.Posting Date], sum([e.Amount]) AS sum FROM [r] "
		"JOIN [e] ON [e.Entry No.] BETWEEN [r.From Entry No.] AND [r.To Entry No.] GROUP BY 1, 2 HAVING sum([e.Amount]) <> 0",
		"e.G/L Register No."},
	{"G3", "a transaction balances", BUSINESS, SOFT, {{'e', GL_ENTRY}},
		"SELECT [e.Transaction No.], sum([e.Amount]) AS sum FROM [e] WHERE [e.Transaction No.] <> 0 GROUP BY 1 HAVING sum([e.Amount]) <> 0"},
	{"G4", "a document balances on each date", BUSINESS, SOFT, {{'e', GL_ENTRY}},
		"SELECT [e.Document No.], [e.Posting Date], sum([e.Amount]) AS sum FROM [e] GROUP BY 1, 2 HAVING sum([e.Amount]) <> 0"},
	{"G5", "amount is debit less credit", BUSINESS, HARD, {{'e', GL_ENTRY}},
		"SELECT [e.Entry No.], [e.Amount], [e.Debit Amount], [e.Credit Amount] FROM [e] "
		"WHERE [e.Amount] <> [e.Debit Amount] - [e.Credit Amount] OR ([e.Debit Amount] <> 0 AND [e.Credit Amount] <> 0)"},
	{"G6", "accounts exist", REFERENCE, HARD, {{'e', GL_ENTRY}, {'a', "G/L Account"}},
		"SELECT [e.Entry No.], [e.G/L Account No.] FROM [e] WHERE [e.G/L Account No.] <> '' "
		"AND NOT EXISTS (SELECT FROM [a] WHERE [a.No.] = [e.G/L Account No.])"},
	{"G6", "accounts are for posting", BUSINESS, SOFT, {{'e', GL_ENTRY}, {'a', "G/L Account"}},
		"SELECT [e.Entry No.], [e.G/L Account No.], [a.Account Type] FROM [e] JOIN [a] ON [a.No.] = [e.G/L Account No.] WHERE [a.Account Type] <> 0"},
	{"G7", "registers do not overlap", BUSINESS, SOFT, {{'r', "G/L Register"}},
		"SELECT x.* FROM (SELECT [r.No.], [r.From Entry No.] AS from_entry, [r.To Entry No.] AS to_entry, "
		"max([r.To Entry No.]) OVER (ORDER BY [r.From Entry No.], [r.No.] ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS to_entry_before "
		"FROM [r] WHERE [r.From Entry No.] <> 0) x WHERE from_entry > to_entry OR from_entry <= to_entry_before"},

	LEDGER("C", "Cust. Ledger Entry", "Detailed Cust. Ledg. Entry", "Cust. Ledger Entry No.", "Customer No.",
		   "Customer Posting Group", "Receivables Account"),
	LEDGER("V", "Vendor Ledger Entry", "Detailed Vendor Ledg. Entry", "Vendor Ledger Entry No.", "Vendor No.",
		   "Vendor Posting Group", "Payables Account"),

	/* item ledger entries (l), value entries (v), applications (p) */
	{"I1", "entries are open while a quantity remains", BUSINESS, HARD, {{'l', ITEM_ENTRY}},
		"SELECT [l.Entry No.], [l.Open], [l.Remaining Quantity] FROM [l] WHERE ([l.Open] <> 0) <> ([l.Remaining Quantity] <> 0)"},
	{"I2", "sign and size of quantities", BUSINESS, SOFT, {{'l', ITEM_ENTRY}},
		"SELECT [l.Entry No.], [l.Positive], [l.Quantity], [l.Remaining Quantity] FROM [l] WHERE ([l.Positive] <> 0) <> ([l.Quantity] > 0) "
		"OR abs([l.Remaining Quantity]) > abs([l.Quantity]) OR sign([l.Remaining Quantity]) = -sign([l.Quantity]) AND [l.Quantity] <> 0"},
	{"I3", "quantities are what remains", BUSINESS, SOFT, {{'l', ITEM_ENTRY}},
		"SELECT [l.Item No.], [l.Variant Code], [l.Location Code], sum([l.Quantity]) AS quantity, sum([l.Remaining Quantity]) AS remaining "
		"FROM [l] GROUP BY 1, 2, 3 HAVING sum([l.Quantity]) <> sum([l.Remaining Quantity])"},
	{"I4", "applications add up to what remains", BUSINESS, SOFT, {{'l', ITEM_ENTRY}, {'p', "Item Application Entry"}},
		"SELECT [l.Entry No.], [l.Remaining Quantity], x.applied FROM [l] JOIN (SELECT [p.Inbound Item Entry No.] AS no, sum([p.Quantity]) AS applied "
		"FROM [p] WHERE [p.Inbound Item Entry No.] <> 0 GROUP BY 1) x ON x.no = [l.Entry No.] WHERE x.applied <> [l.Remaining Quantity]"},
	{"I5", "value entries add up to quantities", BUSINESS, SOFT, {{'l', ITEM_ENTRY}, {'v', VALUE_ENTRY}},
		"SELECT [l.Entry No.], [l.Quantity], x.quantity AS of_value_entries, [l.Invoiced Quantity], x.invoiced AS invoiced_of_value_entries "
		"FROM [l] LEFT JOIN (SELECT [v.Item Ledger Entry No.] AS no, sum([v.Item Ledger Entry Quantity]) AS quantity, "
		"sum([v.Invoiced Quantity]) AS invoiced FROM [v] GROUP BY 1) x ON x.no = [l.Entry No.] "
		"WHERE coalesce(x.quantity, 0) <> [l.Quantity] OR coalesce(x.invoiced, 0) <> [l.Invoiced Quantity]"},
	{"I6", "nothing is expected of what is invoiced", BUSINESS, SOFT, {{'l', ITEM_ENTRY}, {'v', VALUE_ENTRY}},
		"SELECT [l.Entry No.], sum([v.Cost Amount (Expected)]) AS expected FROM [l] JOIN [v] ON [v.Item Ledger Entry No.] = [l.Entry No.] "
		"WHERE [l.Completely Invoiced] <> 0 GROUP BY 1 HAVING sum([v.Cost Amount (Expected)]) <> 0"},
	{"I7", "value entries have their item ledger entry", REFERENCE, HARD, {{'v', VALUE_ENTRY}, {'l', ITEM_ENTRY}},
		"SELECT [v.Entry No.], [v.Item Ledger Entry No.] FROM [v] WHERE [v.Item Ledger Entry No.] <> 0 "
		"AND NOT EXISTS (SELECT FROM [l] WHERE [l.Entry No.] = [v.Item Ledger Entry No.])"},

	/* dimension sets (s), values (v) */
	{"D2", "dimension values of sets exist", REFERENCE, HARD, {{'s', SET_ENTRY}, {'v', "Dimension Value"}},
		"SELECT [s.Dimension Set ID], [s.Dimension Code], [s.Dimension Value Code] FROM [s] WHERE [s.Dimension Value Code] <> '' "
		"AND NOT EXISTS (SELECT FROM [v] WHERE [v.Dimension Code] = [s.Dimension Code] AND [v.Code] = [s.Dimension Value Code])"},
	{"D2", "dimension values of sets have their id", BUSINESS, SOFT, {{'s', SET_ENTRY}, {'v', "Dimension Value"}},
		"SELECT [s.Dimension Set ID], [s.Dimension Code], [s.Dimension Value Code], [s.Dimension Value ID], [v.Dimension Value ID] AS id_of_value "
		"FROM [s] JOIN [v] ON [v.Dimension Code] = [s.Dimension Code] AND [v.Code] = [s.Dimension Value Code] "
		"WHERE [s.Dimension Value ID] <> [v.Dimension Value ID]"},

	OPEN_LINES("Sales Line", "Sales Header"),
	OPEN_LINES("Purchase Line", "Purchase Header"),
	POSTED_LINES("Sales Shipment Line", "Sales Shipment Header"),
	POSTED_LINES("Sales Invoice Line", "Sales Invoice Header"),
	POSTED_LINES("Sales Cr.Memo Line", "Sales Cr.Memo Header"),
	POSTED_LINES("Purch. Rcpt. Line", "Purch. Rcpt. Header"),
	POSTED_LINES("Purch. Inv. Line", "Purch. Inv. Header"),
	POSTED_LINES("Purch. Cr. Memo Line", "Purch. Cr. Memo Hdr."),

	NUMBERED("Customer"),
	NUMBERED("Vendor"),
	NUMBERED("Item"),
	NUMBERED("Sales Header"),
	NUMBERED("Sales Shipment Header"),
	NUMBERED("Sales Invoice Header"),
	NUMBERED("Sales Cr.Memo Header"),
	NUMBERED("Purchase Header"),
	NUMBERED("Purch. Rcpt. Header"),
	NUMBERED("Purch. Inv. Header"),
	NUMBERED("Purch. Cr. Memo Hdr."),
	{NULL}
};
