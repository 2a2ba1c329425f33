"""T-SQL, as far as a reader of Business Central needs it, into statements for
PostgreSQL.  What is not known here is refused (error 102), never guessed."""
import re


class SqlError(Exception):
    def __init__(self, number, text, severity=16):
        super().__init__(text)
        self.number, self.text, self.severity = number, text, severity


TOKEN = re.compile(r"""
    (?P<space>\s+|--[^\n]*|/\*.*?\*/)
  | (?P<string>[Nn]?'(?:[^']|'')*')
  | (?P<name>\[(?:[^\]]|\]\])*\])
  | (?P<hex>0[xX][0-9A-Fa-f]*)
  | (?P<number>\d+(?:\.\d+)?)
  | (?P<variable>@@?[A-Za-z_]\w*)
  | (?P<word>[A-Za-z_#$][\w$#]*)
  | (?P<op><>|>=|<=|!=|[-+*/%<>=(),.;^&|])
""", re.X | re.S)


class Token:
    __slots__ = ('kind', 'text', 'upper')

    def __init__(self, kind, text):
        self.kind, self.text = kind, text
        self.upper = text.upper() if kind in ('word', 'op', 'variable') else None


def tokenize(sql):
    at, tokens = 0, []
    while at < len(sql):
        m = TOKEN.match(sql, at)
        if not m:
            raise SqlError(102, "Incorrect syntax near '%s'." % sql[at:at + 10])
        at = m.end()
        if m.lastgroup != 'space':
            tokens.append(Token(m.lastgroup, m.group()))
    return tokens


def string_of(token):
    return token.text[token.text.index("'") + 1:-1].replace("''", "'")


def literal(text):
    return "'" + text.replace("'", "''") + "'"


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def name_of(token):
    if token.kind == 'name':
        return token.text[1:-1].replace(']]', ']')
    return token.text


# words that stay as they are
WORDS = set("""SELECT DISTINCT FROM WHERE GROUP BY HAVING ORDER ASC DESC UNION ALL AS ON JOIN LEFT RIGHT INNER OUTER CROSS FULL AND OR NOT IN IS
NULL EXISTS BETWEEN LIKE CASE WHEN THEN ELSE END VALUES OVER PARTITION COUNT SUM MIN MAX COALESCE NULLIF ROW_NUMBER REPLACE LOWER UPPER LTRIM
RTRIM CONCAT SUBSTRING""".split())
FUNCTIONS = {
    'ISNULL': 'mssql.isnull', 'OBJECT_ID': 'mssql.object_id', 'QUOTENAME': 'mssql.quotename', 'SCHEMA_NAME': 'mssql.schema_name', 'DB_ID': 'mssql.db_id',
    'DB_NAME': 'mssql.db_name', 'USER_NAME': 'mssql.user_name', 'SYSUTCDATETIME': 'mssql.sysutcdatetime', 'DATALENGTH': 'mssql.datalength',
    'CHANGE_TRACKING_CURRENT_VERSION': 'mssql.change_tracking_current_version', 'MIN_ACTIVE_ROWVERSION': 'mssql.min_active_rowversion',
    'HASHBYTES': 'mssql.hashbytes', 'HAS_PERMS_BY_NAME': 'mssql.has_perms_by_name', 'SERVERPROPERTY': 'mssql.serverproperty', 'PARSENAME': 'mssql.parsename',
    'DATABASEPROPERTYEX': 'mssql.databasepropertyex', 'LEN': 'mssql.len', 'SUSER_SNAME': 'mssql.suser_sname', 'IS_SRVROLEMEMBER': 'mssql.is_srvrolemember',
    'COUNT_BIG': 'count', 'COLUMNPROPERTY': 'mssql.columnproperty',
}
SETTINGS = {'NOCOUNT', 'ANSI_NULLS', 'ANSI_PADDING', 'ANSI_WARNINGS', 'ARITHABORT', 'CONCAT_NULL_YIELDS_NULL', 'QUOTED_IDENTIFIER',
            'NUMERIC_ROUNDABORT', 'LOCK_TIMEOUT', 'DEADLOCK_PRIORITY', 'TEXTSIZE', 'XACT_ABORT', 'TRANSACTION', 'ANSI_NULL_DFLT_ON', 'CURSOR_CLOSE_ON_COMMIT'}
STARTERS = {'SELECT', 'SET', 'DECLARE', 'IF', 'WHILE', 'BEGIN', 'EXEC', 'EXECUTE', 'INSERT', 'WAITFOR', 'END', 'ELSE', 'USE'}
# of the views of INFORMATION_SCHEMA, whose own names count with their case where the database's do; those of their columns do not
COLUMNS = set("""TABLE_CATALOG TABLE_SCHEMA TABLE_NAME TABLE_TYPE COLUMN_NAME ORDINAL_POSITION COLUMN_DEFAULT IS_NULLABLE DATA_TYPE
CHARACTER_MAXIMUM_LENGTH NUMERIC_PRECISION NUMERIC_PRECISION_RADIX NUMERIC_SCALE DATETIME_PRECISION CHARACTER_SET_NAME COLLATION_NAME
CONSTRAINT_CATALOG CONSTRAINT_SCHEMA CONSTRAINT_NAME UNIQUE_CONSTRAINT_CATALOG UNIQUE_CONSTRAINT_SCHEMA UNIQUE_CONSTRAINT_NAME UPDATE_RULE
DELETE_RULE""".split())


class Batch:
    """Runs a batch; "session" has query(), tables and the faults."""

    def __init__(self, session, sql, inner):
        self.session, self.inner = session, inner
        self.tokens = tokenize(sql)
        self.information_schema = any(t.text == 'INFORMATION_SCHEMA' for t in self.tokens)
        self.at = 0
        self.variables = session.variables if inner is None else inner

    def peek(self, ahead=0):
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else Token('end', '')

    def next(self):
        token = self.peek()
        self.at += 1
        return token

    def is_word(self, *words):
        return self.peek().kind == 'word' and self.peek().upper in words

    def accept(self, text):
        if self.peek().upper == text:
            self.at += 1
            return True
        return False

    def expect(self, text):
        if not self.accept(text):
            raise SqlError(102, "Incorrect syntax near '%s'." % self.peek().text)

    # -- statements --
    def run(self):
        while self.at < len(self.tokens):
            if not self.accept(';'):
                self.statement(True)

    def statement(self, live):
        """live: run it; else only pass over it"""
        token = self.peek()
        if token.kind != 'word' or token.upper not in STARTERS:
            raise SqlError(102, "Incorrect syntax near '%s'." % token.text)
        word = token.upper
        if word == 'SELECT':
            self.select(live)
        elif word == 'SET':
            self.set(live)
        elif word == 'DECLARE':
            self.declare(live)
        elif word in ('EXEC', 'EXECUTE'):
            self.next()
            self.expect('(')
            text = string_of(self.next())
            self.expect(')')
            if live:
                self.session.batch(text, {})
        elif word == 'IF':
            self.next()
            condition = self.expression({'SELECT', 'SET', 'BEGIN', 'EXEC', 'INSERT', 'WAITFOR'})
            yes = live and self.session.value('SELECT (%s)' % condition)
            self.statement(bool(yes))
            self.accept(';')
            if self.is_word('ELSE'):
                self.next()
                self.statement(live and not yes)
        elif word == 'WHILE':
            self.next()
            start = self.at
            while True:
                self.at = start
                condition = self.expression({'BEGIN', 'SET', 'WAITFOR'})
                go = live and self.session.value('SELECT (%s)' % condition)
                self.statement(bool(go))
                if not go:
                    break
        elif word == 'BEGIN':
            self.next()
            while not self.is_word('END'):
                if not self.accept(';'):
                    self.statement(live)
            self.next()
        elif word == 'WAITFOR':
            self.next()
            if self.next().upper != 'DELAY':
                raise SqlError(102, "Incorrect syntax near 'WAITFOR'.")
            hours, minutes, seconds = string_of(self.next()).split(':')
            if live:
                self.session.sleep(int(hours) * 3600 + int(minutes) * 60 + float(seconds))
        elif word == 'USE':
            self.next()
            database = name_of(self.next())
            if live:
                self.session.use(database)
        elif word == 'INSERT':
            self.next()
            self.expect('INTO')
            table = self.next()
            columns = ''
            if self.accept('('):
                names = []
                while not self.accept(')'):
                    names.append(quoted(name_of(self.next())))
                    self.accept(',')
                columns = '(%s)' % ', '.join(names)
            query = self.expression(set(), statement=True)
            if live:
                self.session.execute('INSERT INTO %s %s %s' % (self.table_variable(table.text), columns, query))
        else:
            raise SqlError(102, "Incorrect syntax near '%s'." % token.text)

    def set(self, live):
        self.next()
        token = self.next()
        if token.kind == 'variable':
            self.expect('=')
            value = self.expression(set(), statement=True)
            if live:
                self.variables[token.upper] = self.session.typed('SELECT %s' % value)
            return
        if token.upper not in SETTINGS:
            raise SqlError(195, "'%s' is not a recognized SET option." % token.text)
        words = []
        while self.peek().kind in ('word', 'number', 'op') and self.peek().text not in (';',):
            if self.peek().kind == 'word' and self.peek().upper in STARTERS:
                break
            words.append(self.next().text.upper())
        if 'UNCOMMITTED' in words:
            raise SqlError(50000, 'bcmig must never read uncommitted rows.')

    def declare(self, live):
        self.next()
        variable = self.next()
        if self.is_word('TABLE'):
            self.next()
            self.expect('(')
            columns = []
            while not self.accept(')'):
                name = quoted(name_of(self.next()))
                columns.append('%s %s' % (name, self.type()))
                self.accept(',')
            if live:
                name = self.table_variable(variable.text)
                self.session.execute('DROP TABLE IF EXISTS %s; CREATE TEMP TABLE %s (%s)' % (name, name, ', '.join(columns)))
            return
        kind = self.type()
        value = 'NULL'
        if self.accept('='):
            value = self.expression(set(), statement=True)
        if live:
            self.variables[variable.upper] = self.session.typed('SELECT (%s)::%s' % (value, kind))

    def table_variable(self, name):
        return 'pg_temp.%s' % quoted(name)

    def select(self, live):
        query = self.expression(set(), statement=True)
        if live:
            self.session.result(query)

    def type(self):
        name = name_of(self.next()).lower()
        self.type_name, size = name, ''
        if self.accept('('):
            parts = []
            while not self.accept(')'):
                parts.append(self.next().text.lower())
            size = '(%s)' % ''.join(parts)
        self.type_size = size[1:-1]
        return {'nvarchar': 'text', 'varchar': 'text', 'nchar': 'text', 'char': 'text', 'sysname': 'text', 'int': 'int', 'bigint': 'bigint', 'bit': 'boolean',
                'smallint': 'smallint', 'tinyint': 'smallint', 'datetime': 'timestamp(3)', 'datetime2': 'timestamp', 'uniqueidentifier': 'uuid',
                'decimal': 'numeric' + size, 'numeric': 'numeric' + size, 'binary': 'bytea', 'varbinary': 'bytea', 'float': 'float8', 'real': 'float4'}.get(name) or self._no_type(name)

    @staticmethod
    def _no_type(name):
        raise SqlError(243, 'Type %s is not a defined system type.' % name)

    # -- expressions and queries: tokens in, PostgreSQL's text out --
    def expression(self, stop, statement=False):
        """Up to the end of the statement, a closing parenthesis, or (outside
        parentheses) a word of "stop"."""
        out = []
        limits = []
        cases = 0
        while self.at < len(self.tokens):
            token = self.peek()
            if token.text in (')', ';') and token.kind == 'op':
                break
            if token.kind == 'word':
                word = token.upper
                if word in stop and not cases:
                    break
                if statement and not cases and word in STARTERS and out and word not in ('SELECT', 'END', 'ELSE'):
                    break
                if statement and not cases and word in ('END', 'ELSE'):
                    break
                if statement and word == 'SELECT' and out and self.tokens[self.at - 1].upper not in ('ALL', 'UNION', '(') :
                    break
                if word == 'CASE':
                    cases += 1
                elif word == 'END':
                    cases -= 1
                if word == 'TOP':
                    self.next()
                    self.expect('(')
                    limits.append(self.expression(set()))
                    self.expect(')')
                    continue
                if word == 'OPTION' and self.peek(1).text == '(':
                    self.next()
                    self.group()
                    continue
                if word == 'WITH' and self.peek(1).text == '(':
                    self.next()
                    hint = self.group()
                    if 'NOLOCK' in hint.upper() or 'UNCOMMITTED' in hint.upper():
                        raise SqlError(50000, 'bcmig must never read uncommitted rows.')
                    continue
                if word == 'UNION' and limits:
                    raise SqlError(102, "Incorrect syntax near 'UNION'.")
            out.append(self.item(token))
        if limits:
            out.append('LIMIT %s' % limits[0])
        return ' '.join(out)

    def group(self):
        """(...) as it stands, for what is left out"""
        depth, out = 0, []
        while True:
            token = self.next()
            if token.kind == 'end':
                raise SqlError(102, "Incorrect syntax near ')'.")
            depth += (token.text == '(') - (token.text == ')')
            out.append(token.text)
            if depth == 0:
                return ' '.join(out)

    def arguments(self, opened=False):
        if not opened:
            self.expect('(')
        args, inside = [], []
        while True:
            if self.accept(')'):
                if inside or args:
                    args.append(' '.join(inside))
                return args
            if self.accept(','):
                args.append(' '.join(inside))
                inside = []
                continue
            if self.peek().kind == 'end':
                raise SqlError(102, "Incorrect syntax near ')'.")
            inside.append(self.item(self.peek()))

    def item(self, token):
        self.next()
        kind = token.kind
        if kind == 'string':
            if self.at >= 2 and self.tokens[self.at - 2].upper == 'AS':
                return quoted(string_of(token))
            return literal(string_of(token)) + '::text'
        if kind == 'hex':
            return "'\\x%s'::bytea" % (token.text[2:] if len(token.text) % 2 == 0 else '0' + token.text[2:])
        if kind == 'number':
            return token.text
        if kind == 'op':
            if token.text == '(':
                inside = self.expression(set(), statement=False)
                self.expect(')')
                return '(%s)' % inside
            return token.text
        if kind == 'variable':
            if token.upper == '@@DBTS':
                return 'mssql.dbts()'
            if token.upper in self.variables:
                return self.variables[token.upper]
            if token.upper.startswith('@@'):
                raise SqlError(137, 'Must declare the scalar variable "%s".' % token.text)
            return self.table_variable(token.text)
        word = token.upper
        if kind == 'word' and word == 'COLLATE':
            collation = self.next().text
            if not collation.upper().endswith('_BIN2'):
                raise SqlError(448, "Invalid collation '%s'." % collation)
            return 'COLLATE "C"'
        call = self.peek().text == '('
        if kind == 'word' and call:
            if word == 'CONVERT':
                return self.convert()
            if word in ('DATEDIFF', 'DATEPART', 'DATEDIFF_BIG'):
                self.expect('(')
                part = literal(self.next().text)
                self.expect(',')
                return 'mssql.%s(%s)' % (word.lower().replace('_big', ''), ', '.join([part] + self.arguments(opened=True)))
            if word == 'CHANGETABLE':
                return self.changetable()
            if word in FUNCTIONS:
                return '%s(%s)' % (FUNCTIONS[word], ', '.join(self.arguments()))
        # names
        parts = [token]
        while self.peek().text == '.' and self.peek(1).kind in ('name', 'word'):
            self.next()
            parts.append(self.next())
        if self.peek().text == '.' and self.peek(1).text == '*':
            self.next()
            self.next()
            return quoted(name_of(parts[0])) + '.*'
        if len(parts) == 1 and kind == 'word' and word in WORDS:
            return token.text
        names = [name_of(p) for p in parts]
        if len(names) == 2 and names[0].lower() == 'sys':
            if self.peek().text == '(':
                return 'sys.%s(%s)' % (names[1].lower(), ', '.join(self.arguments()))
            return 'sys.%s' % names[1].lower()
        if len(names) == 2 and (names[0].lower() == 'dbo' or parts[0].kind == 'name'):
            table = self.session.table(names[0], names[1])
            if table:
                return table[0] + self.own_alias(names[1])
            if names[0].lower() == 'dbo':
                raise SqlError(208, "Invalid object name '%s.%s'." % tuple(names))
        if len(names) == 2 and names[0].upper() == 'INFORMATION_SCHEMA' and (names[0].islower() or not names[1].isupper()):
            raise SqlError(208, "Invalid object name '%s.%s'." % tuple(names))
        if len(names) == 2 and self.information_schema and names[1].upper() in COLUMNS:
            names[1] = names[1].upper()
        if len(names) == 1 and kind == 'word' and self.peek().text == '(' and self.at >= 2 and self.tokens[self.at - 2].upper != 'AS':
            raise SqlError(195, "'%s' is not a recognized built-in function name." % token.text)
        return '.'.join(quoted(n) for n in names)

    def own_alias(self, name):
        """a table without an alias is known by its name; here it is a subquery"""
        follows = self.peek()
        if follows.kind == 'name' or follows.kind == 'word' and follows.upper not in (WORDS - {'AS'} | STARTERS | {'WITH', 'OPTION'}):
            return ''
        return ' AS ' + quoted(name)

    def convert(self):
        self.expect('(')
        kind = self.type()
        name, size = self.type_name, self.type_size
        self.expect(',')
        value, style = [], '0'
        while not self.accept(')'):
            if self.accept(','):
                style = self.next().text
                continue
            value.append(self.item(self.peek()))
        value = ' '.join(value)
        if value.upper() == 'NULL':
            return 'NULL::%s' % kind
        if name in ('varchar', 'char') and style == '0':
            return 'mssql.to_varchar(%s)' % value
        if kind == 'text':
            return 'mssql.to_text(%s, %s)' % (value, style)
        if kind == 'bigint':
            return 'mssql.to_bigint(%s)' % value
        if kind == 'bytea':
            return 'mssql.to_binary(%s, %s)' % (value, size) if name == 'binary' else 'mssql.to_varbinary(%s)' % value
        return '(%s)::%s' % (value, kind)

    def changetable(self):
        self.expect('(')
        self.expect('CHANGES')
        schema = name_of(self.next())
        self.expect('.')
        name = name_of(self.next())
        self.expect(',')
        version = self.expression(set())
        self.expect(')')
        table = self.session.table(schema, name)
        if not table:
            raise SqlError(208, "Invalid object name '%s.%s'." % (schema, name))
        if not table[2]:
            raise SqlError(22105, "Change tracking is not enabled on table '%s'." % name)
        keys = ', '.join("(k.key ->> %s)::%s AS %s" % (literal(c), t, quoted(c)) for c, t in table[3])
        # one row a key: the last change, net of what happened since the version
        return ('(SELECT %s, k.v AS "SYS_CHANGE_VERSION", CASE WHEN k.op = \'D\' THEN \'D\' WHEN k.first = \'I\' THEN \'I\' ELSE \'U\' END::text AS "SYS_CHANGE_OPERATION"'
                ' FROM (SELECT key, max(version) AS v, (array_agg(op ORDER BY id DESC))[1] AS op, (array_agg(op ORDER BY id))[1] AS first'
                ' FROM mssql.change WHERE object_id = %d AND version > coalesce(%s, -1) GROUP BY key) k)' % (keys, table[1], version))
