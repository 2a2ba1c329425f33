"""TDS 7.4 as far as FreeTDS speaks it to a SQL Server: packets, login, tokens
and the values of a result."""
import datetime
import struct

PRELOGIN, LOGIN7, BATCH, ATTENTION, REPLY = 0x12, 0x10, 0x01, 0x06, 0x04
DONE, DONEPROC, DONEINPROC = 0xFD, 0xFE, 0xFF
MORE, ERROR_BIT, COUNT_BIT, ATTN_BIT = 0x01, 0x02, 0x10, 0x20

# collation Latin1_General_100_CS_AS as COLMETADATA carries it
COLLATION = struct.pack('<IB', 0x00D00409 | 2 << 28, 0)
EPOCH = datetime.datetime(1900, 1, 1)


class Closed(Exception):
    """the client went away"""


# What nvarchar may hold and PostgreSQL's text may not: the backing database has two characters of private use for it,
# U+10FFFD for the first half of a surrogate pair alone (CopyStr in AL cuts so), U+10FFFC for U+0000.
ODD = {chr(0x10FFFD).encode('utf-16-le'): b'\x3d\xd8', chr(0x10FFFC).encode('utf-16-le'): b'\0\0'}


def utf16(text):
    data = text.encode('utf-16-le')
    if b'\xff\xdb' in data:
        for stands, wanted in ODD.items():
            data = data.replace(stands, wanted)
    return data


def b_varchar(text):
    return bytes([len(text)]) + utf16(text)


def us_varchar(text):
    return struct.pack('<H', len(utf16(text)) // 2) + utf16(text)


class Connection:
    def __init__(self, sock):
        self.sock = sock
        self.size = 4096
        self.out = bytearray()
        self.packet_id = 0

    # -- packets --
    def _recv(self, n):
        data = bytearray()
        while len(data) < n:
            part = self.sock.recv(n - len(data))
            if not part:
                raise Closed()
            data += part
        return bytes(data)

    def read_message(self):
        kind, data = None, bytearray()
        while True:
            kind, status, length = struct.unpack('>BBH', self._recv(8)[:4])
            data += self._recv(length - 8)
            if status & 1:
                return kind, bytes(data)

    def write(self, data):
        self.out += data
        room = self.size - 8
        while len(self.out) > room:
            self._packet(bytes(self.out[:room]), False)
            del self.out[:room]

    def flush(self):
        self._packet(bytes(self.out), True)
        self.out.clear()
        self.packet_id = 0

    def _packet(self, data, last):
        self.packet_id = (self.packet_id + 1) % 256
        self.sock.sendall(struct.pack('>BBHHBB', REPLY, 1 if last else 0, len(data) + 8, 0, self.packet_id, 0) + data)

    # -- login --
    def prelogin(self):
        kind, _ = self.read_message()
        if kind != PRELOGIN:
            raise Closed()
        options = [(0, struct.pack('>BBHH', 15, 0, 4000, 0)), (1, b'\x02'), (2, b'\x00'), (3, b''), (4, b'\x00')]
        offset = 5 * len(options) + 1
        head, body = b'', b''
        for token, value in options:
            head += struct.pack('>BHH', token, offset + len(body), len(value))
            body += value
        self.write(head + b'\xff' + body)
        self.flush()

    def login(self):
        """-> user, password, database"""
        kind, data = self.read_message()
        if kind != LOGIN7:
            raise Closed()
        size = struct.unpack_from('<I', data, 8)[0]

        def field(at):
            offset, length = struct.unpack_from('<HH', data, at)
            return data[offset:offset + 2 * length]
        password = bytes(((b ^ 0xA5) >> 4 | (b ^ 0xA5) << 4) & 0xFF for b in field(44))
        self.wanted_size = size if 512 <= size <= 32767 else 4096
        return field(40).decode('utf-16-le'), password.decode('utf-16-le'), field(68).decode('utf-16-le')

    def accept_login(self, database):
        self.envchange(1, database, 'master')
        self.info(5701, 2, 0, "Changed database context to '%s'." % database)
        name = 'Microsoft SQL Server'
        body = struct.pack('>BI', 1, 0x74000004) + b_varchar(name) + bytes([15, 0, 0x0F, 0xA0])
        self.write(b'\xad' + struct.pack('<H', len(body)) + body)
        self.envchange(4, str(self.wanted_size), '4096')
        self.done()
        self.flush()
        self.size = self.wanted_size

    # -- tokens --
    def envchange(self, kind, new, old):
        body = bytes([kind]) + b_varchar(new) + b_varchar(old)
        self.write(b'\xe3' + struct.pack('<H', len(body)) + body)

    def _message(self, token, number, state, severity, text):
        body = struct.pack('<IBB', number, state, severity) + us_varchar(text[:2000]) + b_varchar('bcmig-stand-in') + b_varchar('')
        body += struct.pack('<I', 1)
        self.write(bytes([token]) + struct.pack('<H', len(body)) + body)

    def error(self, number, severity, text, state=1):
        self._message(0xAA, number, state, severity, text)

    def info(self, number, state, severity, text):
        self._message(0xAB, number, state, severity, text)

    def done(self, token=DONE, status=0, rows=None):
        if rows is not None:
            status |= COUNT_BIT
        self.write(struct.pack('<BHHQ', token, status, 0xC1 if rows is not None else 0, rows or 0))

    def columns(self, columns):
        self.write(b'\x81' + struct.pack('<H', len(columns)))
        for name, kind in columns:
            self.write(struct.pack('<IH', 0, 0x0009) + kind.info + b_varchar(name[:127]))


# -- types: info for COLMETADATA, encode for a value as PostgreSQL's text --
class Type:
    def __init__(self, info, encode):
        self.info = info
        self.encode = encode


def _int(size):
    fmt = {1: '<BB', 2: '<Bh', 4: '<Bi', 8: '<Bq'}[size]
    pack = struct.Struct(fmt).pack
    return Type(bytes([0x26, size]), lambda v: b'\x00' if v is None else pack(size, int(v)))


def _float(size):
    pack = struct.Struct('<Bf' if size == 4 else '<Bd').pack
    return Type(bytes([0x6D, size]), lambda v: b'\x00' if v is None else pack(size, float(v)))


def _bit(v):
    return b'\x00' if v is None else bytes([1, 1 if v in ('t', 'true', '1') else 0])


def decimal(precision, scale):
    def encode(v):
        if v is None:
            return b'\x00'
        sign = 0 if v.startswith('-') else 1
        whole, _, part = v.lstrip('-').partition('.')
        n = int(whole + part[:scale].ljust(scale, '0'))
        return bytes([17, sign]) + n.to_bytes(16, 'little')
    return Type(bytes([0x6A, 17, precision, scale]), encode)


def _plp(data):
    if not data:
        return struct.pack('<QI', 0, 0)
    return struct.pack('<Q', len(data)) + b''.join(
        struct.pack('<I', len(data[i:i + 32000])) + data[i:i + 32000] for i in range(0, len(data), 32000)) + struct.pack('<I', 0)


PLP_NULL = b'\xff' * 8


def nvarchar(n):
    if n is None or n > 4000:
        return Type(struct.pack('<BH', 0xE7, 0xFFFF) + COLLATION, lambda v: PLP_NULL if v is None else _plp(utf16(v)))
    pack = struct.Struct('<H').pack

    def encode(v):
        if v is None:
            return b'\xff\xff'
        data = utf16(v)
        return pack(len(data)) + data
    return Type(struct.pack('<BH', 0xE7, n * 2) + COLLATION, encode)


def _bytes(v):
    return bytes.fromhex(v[2:])


def varbinary(n=None):
    if n is None:
        return Type(struct.pack('<BH', 0xA5, 0xFFFF), lambda v: PLP_NULL if v is None else _plp(_bytes(v)))
    return Type(struct.pack('<BH', 0xA5, n), lambda v: b'\xff\xff' if v is None else struct.pack('<H', (len(v) - 2) // 2) + _bytes(v))


def _image():
    ptr = bytes([16]) + b'\x01' * 16 + b'\x00' * 8

    def encode(v):
        if v is None:
            return b'\x00'
        data = _bytes(v)
        return ptr + struct.pack('<I', len(data)) + data
    # a table name follows the type: one part, empty
    return Type(struct.pack('<BIBH', 0x22, 0x7FFFFFFF, 1, 1) + utf16('t'), encode)


def _datetime(v):
    if v is None:
        return b'\x00'
    date, _, time = v.partition(' ')
    y, m, d = date.split('-')
    days = datetime.date(int(y), int(m), int(d)).toordinal() - EPOCH.date().toordinal()
    hh, mm, ss = (time or '0:0:0').split(':')
    ticks = (int(hh) * 3600 + int(mm) * 60) * 300 + round(float(ss) * 300)
    return struct.pack('<BiI', 8, days, ticks)


def _guid(v):
    if v is None:
        return b'\x00'
    h = bytes.fromhex(v.replace('-', ''))
    return b'\x10' + h[3::-1] + h[5:3:-1] + h[7:5:-1] + h[8:]


INT8, INT4, INT2, TINYINT = _int(8), _int(4), _int(2), _int(1)
BIT = Type(b'\x68\x01', _bit)
FLOAT8, FLOAT4 = _float(8), _float(4)
DATETIME = Type(b'\x6f\x08', _datetime)
GUID = Type(b'\x24\x10', _guid)
IMAGE = _image()


def type_of(oid, modifier):
    """of a PostgreSQL column; modifier as in pg_attribute.atttypmod"""
    if oid == 20:
        return INT8
    if oid == 23:
        return INT4
    if oid == 21:
        return INT2
    if oid == 16:
        return BIT
    if oid == 701:
        return FLOAT8
    if oid == 700:
        return FLOAT4
    if oid == 1700:
        return decimal(38, modifier - 4 if 4 <= modifier <= 42 else 20)
    if oid in (1114, 1184):
        return DATETIME
    if oid == 2950:
        return GUID
    if oid == 17:
        return varbinary()
    return nvarchar(modifier - 4 if oid == 1043 and modifier > 4 else None)
