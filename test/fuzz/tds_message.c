/* tds_message.c: errors of SQL Server and DB-Library, as tds_fdw words them */
#include "fuzz.h"

#include "../../src/blue/tds_messages.c"

void
fuzz_tds_message(const FuzzInput *input)
{
	char	   *text = pnstrdup((const char *) input->data, input->size);
	ErrorData	notice = {.elevel = NOTICE, .message = text};

	last.number = 0;
	take_message(&notice);
	(void) purpose_of(text);
	PG_TRY();
	{
		ereport(ERROR, (errcode(ERRCODE_FDW_ERROR), errmsg("%s", text)));
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(CurTransactionContext);
		bcmig_tds_explain_error(text);
	}
	PG_END_TRY();
}
