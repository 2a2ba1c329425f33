"""The verdict of a T-SQL grammar made elsewhere: sqlfluff's."""
import hashlib
import os
import re

from translate import TOKEN

# sqlfluff 1.4 does not know these forms of the language; what stands for them
# has the same place in the grammar
UNKNOWN = [
    (re.compile(r'0[xX][0-9A-Fa-f]*'), '1'),
    (re.compile(r"\b(EXECUTE\s+AS\s+USER\s*=\s*N?'(?:[^']|'')*'|REVERT)\s*(;|$)", re.I), ''),
    (re.compile(r'\bSET\s+(LOCK_TIMEOUT\s+\d+|TEXTSIZE\s+\d+|DEADLOCK_PRIORITY\s+\w+)\s*(;|$)', re.I), ''),
]
# names and values are no part of what is parsed, nor how many there are of columns, joined companions, rows of VALUES
ALIASES = re.compile(r'\bp\d+\b')
REPEATED = [
    re.compile(r'(, \w+\.\[x\]|, NULL|, COALESCE\(t\.\[x\], c\.\[x\]\))\1+'),
    re.compile(r'(\w+\.\[x\] = \w+\.\[x\])(?: AND \1)+'),
    re.compile(r'( LEFT JOIN \[x\]\.\[x\] AS p ON p\.\[x\] = t\.\[x\])\1+'),
    re.compile(r'((?: \+ [^+]+){1,2}?)\1+'),
    re.compile(r'(\([^()]*(?:\([^()]*\)[^()]*)*\))(?:, \1)+'),
]
# what a row is hashed from: terms, each of a column
TERMS = re.compile(r'(?<=CONVERT\(varbinary\(max\), 0\)) \+ ')
TERM_PART = re.compile(r'\(|\)|\bCASE\b|\bEND\b| \+ ')
EXEC = re.compile(r"^\s*(?:/\*.*?\*/)?\s*EXEC\s*\(\s*N?'((?:[^']|'')*)'\s*\)\s*;?\s*$", re.S | re.I)


def statements(sql):
    """the statements of a batch, split at semicolons outside BEGIN ... END"""
    start, depth, at = 0, 0, 0
    for m in TOKEN.finditer(sql):
        word = m.group().upper()
        if m.lastgroup == 'word' and word in ('BEGIN', 'CASE'):
            depth += 1
        elif m.lastgroup == 'word' and word == 'END':
            depth -= 1
        elif word in ('(', ')') and m.lastgroup == 'op':
            depth += 1 if word == '(' else -1
        elif word == ';' and depth == 0:
            yield sql[start:m.end()]
            start = m.end()
        at = m.end()
    if sql[start:].strip():
        yield sql[start:]
    if at < len(sql):
        raise ValueError(sql[at:at + 20])


def without_terms(text):
    """text without the terms of its hashes, and these, each once"""
    out, terms, at = [], set(), 0
    for m in TERMS.finditer(text):
        if m.start() < at:
            continue
        depth, start, end = 0, m.end(), len(text)
        for part in TERM_PART.finditer(text, m.end()):
            word = part.group()
            if word in ('(', 'CASE'):
                depth += 1
            elif depth > 0 and word in (')', 'END'):
                depth -= 1
            elif word == ')':
                end = part.start()
                break
            elif depth == 0:
                terms.add(text[start:part.start()])
                start = part.end()
        terms.add(text[start:end])
        out.append(text[at:m.start()])
        at = end
    return ''.join(out) + text[at:], terms


def shapes(statement):
    """what there is to parse of a statement: it, and each term of its hashes on its own"""
    out = []
    for m in TOKEN.finditer(statement):
        replacement = {'string': "N''", 'name': '[x]', 'number': '0', 'space': ' '}.get(m.lastgroup)
        out.append(replacement or re.sub(r'^feed_\w+', 'feed_x', m.group()))
    text, terms = without_terms(ALIASES.sub('p', ''.join(out).strip()))
    for pattern in REPEATED:
        text = pattern.sub(r'\1', text)
    # the same question about many tables
    branches = []
    for branch in text.split(' UNION ALL '):
        if branches[-2:] != [branch, branch]:
            branches.append(branch)
    return [' UNION ALL '.join(branches)] + ['SELECT (CONVERT(varbinary(max), 0) + %s)' % term for term in sorted(terms)]


class Grammar:
    def __init__(self, cache):
        self.cache = cache
        self.linter = None
        os.makedirs(cache, exist_ok=True)

    def load(self):
        """slow; done once, before the server forks"""
        if self.linter is None:
            from sqlfluff.core import FluffConfig, Linter
            self.linter = Linter(config=FluffConfig(overrides={'dialect': 'tsql'}))
            self.linter.parse_string('SELECT 1')

    def accepts(self, sql):
        """None, or what the grammar has against a batch"""
        inner = EXEC.match(sql)
        if inner:
            return self.accepts(inner.group(1).replace("''", "'"))
        for pattern, text in UNKNOWN:
            sql = pattern.sub(text, sql)
        try:
            parts = list(statements(sql))
        except ValueError as e:
            return str(e)
        for part in parts:
            for text in shapes(part.strip()):
                verdict = self._verdict(text)
                if verdict:
                    return verdict
        return None

    def _verdict(self, text):
        path = os.path.join(self.cache, hashlib.sha256(text.encode()).hexdigest())
        try:
            with open(path) as f:
                return f.read() or None
        except FileNotFoundError:
            pass
        verdict = self._parse(text)
        with open(path + '.%d' % os.getpid(), 'w') as f:
            f.write(verdict or '')
        os.rename(path + '.%d' % os.getpid(), path)
        return verdict

    def _parse(self, sql):
        self.load()
        parsed = self.linter.parse_string(sql)
        if parsed.violations:
            return parsed.violations[0].desc()[:300]
        if parsed.tree is None:
            return 'nothing to parse'
        for part in parsed.tree.recursive_crawl('unparsable'):
            return part.raw[:300]
        return None
