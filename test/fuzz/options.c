/* options.c: options as JSON */
#include "fuzz.h"

#include "../../src/options.c"

void
fuzz_options(const FuzzInput *input)
{
	static char *const kinds[] = {"integer", "interval", "bytes", "percent", "boolean", "list", "enum", "text"};
	Jsonb	   *json;
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	v;

	if (input->text == NULL)
		return;
	(void) bcmig_near_names(input->text, list_make3("batch_rows", "max_latency", "workers"));
	json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(input->text)));
	if (!JB_ROOT_IS_OBJECT(json))
		return;
	it = JsonbIteratorInit(&json->root);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		for (int k = 0; token == WJB_VALUE && v.type != jbvNull && k < lengthof(kinds); k++)
		{
			OptionDef	def = {.name = "o", .kind = kinds[k], .default_value = "auto", .has_min = k % 2 == 0,
				.has_max = true, .min = 1, .max = INT64CONST(1) << 40, .choices = list_make2("stop", "auto")};

			PG_TRY();
			{
				JsonbValue	value = normalise(&def, &v);

				if (value.type == jbvNumeric)
				{
					double		number = strtod(DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value.val.numeric))), NULL);

					FUZZ_MUST(number <= (double) def.max && (!def.has_min || number >= (double) def.min));
				}
			}
			PG_CATCH();
			{
				FUZZ_MUST(geterrcode() == ERRCODE_BM_OPTION);
				FlushErrorState();
			}
			PG_END_TRY();
		}
	}
}
