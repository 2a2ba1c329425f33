/* image.c: the image of a row, of values blue sends */
#include "fuzz.h"

#include "../../src/check/row_image.c"

void
fuzz_image(const FuzzInput *input)
{
	static const Oid types[] = {TEXTOID, NUMERICOID, TIMESTAMPOID, BYTEAOID, UUIDOID, INT8OID, FLOAT8OID, BOOLOID, VARCHAROID};
	TupleDesc	desc = CreateTemplateTupleDesc(1);
	Datum		value;
	bool		isnull = false;
	int			attribute = 0;
	Oid			function;
	Oid			param;
	Oid			type;
	BcmigHash	hashes[2];
	BcmigHash	read;

	if (input->text == NULL || input->size == 0)
		return;
	(void) bcmig_hash_read(input->text, &read);
	type = types[input->data[0] % lengthof(types)];
	getTypeInputInfo(type, &function, &param);
	value = OidInputFunctionCall(function, input->text + 1, param, -1);
	for (int image = BCMIG_IMAGE_RECORD; image <= BCMIG_IMAGE_FIELDS; image++)
	{
		TupleDescInitEntry(desc, 1, "v", type, type == NUMERICOID ? (((38 << 16) | 20) + VARHDRSZ) : -1, 0);

		/* the same twice: a buffer is kept */
		for (int i = 0; i < 2; i++)
			bcmig_hash_row(bcmig_hasher_create(image, desc), &value, &isnull, 1, &attribute, 0, &hashes[i]);
		FUZZ_MUST(memcmp(&hashes[0], &hashes[1], sizeof(BcmigHash)) == 0);
	}
}
