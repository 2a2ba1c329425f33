/* mark.c: positions and traces of a SQL Server blue, as it sent them once */
#include "fuzz.h"

#include "../../src/blue/dialect_tsql.c"

void
fuzz_mark(const FuzzInput *input)
{
	BcmigTableInfo table = {.sync_name = "s", .source_schema = "dbo", .source_table = "t"};
	BcmigColumn key = {.source = "k", .source_type = "text", .native_type = "nvarchar(20)"};
	static const char *const types[] = {"nvarchar(20)", "varbinary(8)", "datetime", "int"};
	Mark		mark;

	if (input->text == NULL)
		return;
	(void) read_mark(input->text, &mark);
	(void) tsql_lost_traces(&table, input->text);
	(void) tsql_poll(input->text, NIL, true);
	for (int i = 0; i < lengthof(types); i++)
	{
		key.native_type = (char *) types[i];
		PG_TRY();
		{
			(void) literal(&key, input->text);
		}
		PG_CATCH();
		{
			FlushErrorState();
		}
		PG_END_TRY();
	}
}
