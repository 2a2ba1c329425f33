#!/usr/bin/env python3
"""Test vectors for row images: values and the hash their row must have.

Written from docs/consistency.md with nothing but Python's standard library,
so that it shares no line and no mistake with bcmig.

    python3 test/row_image/vectors.py > test/row_image/vectors.txt

One vector a line, separated by tabs:

    flavour     tsql (image "fields") or postgres (image "record")
    class       type of each column, with commas
    row         the columns as SQL of PostgreSQL: SELECT ROW(<row>)
    sha256      hash of the row's image, in hex
"""
import hashlib
import struct
import uuid
from datetime import datetime
from decimal import Decimal, getcontext

getcontext().prec = 60          # decimal(38,20) must not be rounded here

NULL = object()

# ---- flavour tsql: fields with a tag ----------------------------------------

TICKS = {0: 0, 3: 1, 7: 2}      # the last digit of milliseconds, in 1/300 s


def big_endian(number, size):
    return number.to_bytes(size, 'big', signed=True)


def tsql_integer(value):
    return b'\x01' + big_endian(value, 8)


def tsql_decimal(scale):
    def encode(value):
        digits = format(Decimal(value), '.%df' % scale).encode('ascii')
        return b'\x02' + big_endian(len(digits), 4) + digits
    return encode


def tsql_text(value):
    units = value.encode('utf-16-le')
    return b'\x03' + big_endian(len(units), 4) + units


def tsql_datetime(value):
    moment = datetime.fromisoformat(value)
    days = moment.toordinal() - datetime(1900, 1, 1).toordinal()
    milliseconds, rest = divmod(moment.microsecond, 1000)
    assert rest == 0
    ticks = ((moment.hour * 60 + moment.minute) * 60 + moment.second) * 300
    ticks += milliseconds // 10 * 3 + TICKS[milliseconds % 10]
    return b'\x04' + big_endian(days, 4) + big_endian(ticks, 4)


def tsql_guid(value):
    return b'\x05' + uuid.UUID(value).bytes_le


def tsql_binary(value):
    return b'\x06' + big_endian(len(value), 4) + value


def tsql_image(encoders, values):
    return b''.join(b'\x00' if v is NULL else e(v) for e, v in zip(encoders, values))


# ---- flavour postgres: what record_send() writes -----------------------------

def pg_integer(size):
    def encode(value):
        return big_endian(value, size)
    return encode


def pg_numeric(scale):
    def encode(value):
        text = format(Decimal(value), '.%df' % scale)
        sign = 0x4000 if text.startswith('-') else 0
        whole, _, fraction = text.lstrip('-').partition('.')
        whole = whole.zfill(-(-len(whole) // 4) * 4)
        fraction = fraction.ljust(-(-len(fraction) // 4) * 4, '0')
        weight = len(whole) // 4 - 1
        both = whole + fraction
        groups = [int(both[i:i + 4]) for i in range(0, len(both), 4)]
        while groups and groups[0] == 0:
            groups.pop(0)
            weight -= 1
        while groups and groups[-1] == 0:
            groups.pop()
        if not groups:
            weight = sign = 0
        return struct.pack('>HhHH%dH' % len(groups), len(groups), weight, sign, scale, *groups)
    return encode


def pg_text(value):
    return value.encode('utf-8')


def pg_timestamp(value):
    since = datetime.fromisoformat(value) - datetime(2000, 1, 1)
    return big_endian((since.days * 86400 + since.seconds) * 1000000 + since.microseconds, 8)


def pg_uuid(value):
    return uuid.UUID(value).bytes


def pg_bytea(value):
    return value


def pg_image(columns, values):
    image = big_endian(len(values), 4)
    for (oid, encode), value in zip(columns, values):
        image += big_endian(oid, 4)
        if value is NULL:
            image += big_endian(-1, 4)
        else:
            body = encode(value)
            image += big_endian(len(body), 4) + body
    return image


# ---- how PostgreSQL's SQL spells a value --------------------------------------

def sql_number(value):
    return '(%s)' % value


def sql_plain(value):
    return "'%s'" % value


def sql_string(value):
    """ASCII only, without tabs and line ends, whatever is in it"""
    out = ''
    for c in value:
        if c in "'\\":
            out += c + c
        elif ' ' <= c <= '~':
            out += c
        elif ord(c) < 0x10000:
            out += '\\u%04X' % ord(c)
        else:
            out += '\\U%08X' % ord(c)
    return "E'%s'" % out


def sql_bytes(value):
    if len(value) > 64:         # only one byte over and over
        assert value == value[:1] * len(value)
        return "decode(repeat('%02X', %d), 'hex')" % (value[0], len(value))
    return "'\\x%s'" % value.hex()


# class: type on green, how its SQL is spelt, image
TSQL = {
    'tinyint': ('smallint', sql_number, tsql_integer),
    'smallint': ('smallint', sql_number, tsql_integer),
    'int': ('integer', sql_number, tsql_integer),
    'bigint': ('bigint', sql_number, tsql_integer),
    'decimal(38,20)': ('numeric(38,20)', sql_number, tsql_decimal(20)),
    'nvarchar': ('text', sql_string, tsql_text),
    'datetime': ('timestamp(3)', sql_plain, tsql_datetime),
    'uniqueidentifier': ('uuid', sql_plain, tsql_guid),
    'varbinary': ('bytea', sql_bytes, tsql_binary),
}
POSTGRES = {
    'smallint': ('smallint', sql_number, (21, pg_integer(2))),
    'integer': ('integer', sql_number, (23, pg_integer(4))),
    'bigint': ('bigint', sql_number, (20, pg_integer(8))),
    'numeric(38,20)': ('numeric(38,20)', sql_number, (1700, pg_numeric(20))),
    'text': ('text', sql_string, (25, pg_text)),
    'varchar': ('varchar', sql_string, (1043, pg_text)),
    'timestamp': ('timestamp', sql_plain, (1114, pg_timestamp)),
    'uuid': ('uuid', sql_plain, (2950, pg_uuid)),
    'bytea': ('bytea', sql_bytes, (17, pg_bytea)),
}
IMAGES = {'tsql': (TSQL, tsql_image), 'postgres': (POSTGRES, pg_image)}

INTEGERS = [
    ('tinyint', 'smallint', [0, 255]),
    ('smallint', 'smallint', [-32768, 32767]),
    ('int', 'integer', [-2147483648, -1, 0, 2147483647]),
    ('bigint', 'bigint', [-9223372036854775808, -1, 0, 9223372036854775807]),
]
DECIMALS = ['0', '-0.5', '1.1', '12345678901234567.12345678901234567890', '-12345678901234567.12345678901234567890',
            '0.00000000000000000001', '10000', '0.0001']
TEXTS = ['', 'abc', 'abc ', ' ', '\u00e4\u4e2d\ufffd', 'a\U0001F600b', '\U0010FFFF', '\x01\t\n\x1f\x7f', "it's \\"]
DATETIMES = ['1753-01-01 00:00:00', '1754-01-01 08:00:00', '1899-12-31 23:59:59.997', '1900-01-01 00:00:00',
             '1999-12-31 12:00:00.500', '2026-12-31 23:59:59', '2026-12-31 23:59:59.003', '2026-12-31 23:59:59.007',
             '2026-12-31 23:59:59.010', '2026-12-31 23:59:59.997', '9999-12-31 23:59:59.997']
GUIDS = ['00112233-4455-6677-8899-aabbccddeeff', '00000000-0000-0000-0000-000000000000']
BINARIES = [b'', b'\x00\xff\x5c', b'\xab' * 8001]
ROWS = [        # more than one column: where one value ends and the next begins
    ('nvarchar,nvarchar', 'text,text', ['12', '3']),
    ('nvarchar,nvarchar', 'text,text', ['1', '23']),
    ('nvarchar,nvarchar', 'text,text', ['', NULL]),
    ('nvarchar,nvarchar', 'text,text', [NULL, '']),
    ('int,nvarchar,datetime', 'integer,text,timestamp', [7, 'x', '1753-01-01 00:00:00']),
]


def vectors():
    """pairs of class and values: of SQL Server, of PostgreSQL"""
    for tsql, pg, values in INTEGERS:
        for value in values:
            yield tsql, pg, [value]
    for value in DECIMALS:
        yield 'decimal(38,20)', 'numeric(38,20)', [value]
    for value in TEXTS:
        yield 'nvarchar', 'text', [value]
    yield 'nvarchar', 'varchar', ['abc']
    for value in DATETIMES:
        yield 'datetime', 'timestamp', [value]
    for value in GUIDS:
        yield 'uniqueidentifier', 'uuid', [value]
    for value in BINARIES:
        yield 'varbinary', 'bytea', [value]
    for tsql, pg in [('int', 'integer'), ('nvarchar', 'text'), ('varbinary', 'bytea'), ('uniqueidentifier', 'uuid'),
                     ('decimal(38,20)', 'numeric(38,20)')]:
        yield tsql, pg, [NULL]
    for row in ROWS:
        yield row


def split(classes):
    """at commas outside parentheses"""
    parts, depth = [''], 0
    for c in classes:
        depth += {'(': 1, ')': -1}.get(c, 0)
        if c == ',' and depth == 0:
            parts.append('')
        else:
            parts[-1] += c
    return parts


def main():
    seen = set()
    for flavour, (types, image) in IMAGES.items():
        for tsql, pg, values in vectors():
            classes = tsql if flavour == 'tsql' else pg
            columns = [types[c] for c in split(classes)]
            row = ', '.join('%s::%s' % ('NULL' if v is NULL else spell(v), green)
                            for (green, spell, _), v in zip(columns, values))
            digest = hashlib.sha256(image([c[2] for c in columns], values)).hexdigest()
            if (flavour, classes, row) not in seen:
                seen.add((flavour, classes, row))
                print(flavour, classes, row, digest, sep='\t')


main()
