#!/usr/bin/python3
"""An application that posts where bcmig_route() sends it: the demo's workload.

	writers.py GREEN BLUE SYNC RATE SESSIONS LOG [NAME=VALUE...] SCRIPT@WEIGHT...

GREEN and BLUE are connection strings.  The scripts are those pgbench runs on
blue otherwise, as far as they use its language: \\set of a constant, a variable
or random(), \\if, \\gset, \\aset.  RATE scripts a second are begun by all sessions
together.  One that a fence refuses, or that has met a deadlock, is begun again
where bcmig_route() says then; "pause" is waited for.  LOG has a line for each
that was acknowledged: side, script, seconds from its first attempt to the
acknowledgement, and the document it has posted, or "-".  SIGTERM lets every
session end its script; any other error ends all, with exit code 1.
"""
import os
import random
import re
import signal
import sys
import threading
import time

import psycopg2
import psycopg2.extensions

AGAIN = ("BM021", "40001", "40P01")		# fenced, on either side; pgbench's two
DOCUMENT = {"post_sale": "SI{doc:0>8}", "post_purchase": "PI{doc:0>8}", "pay": "LP{cle}"}
NAME = re.compile(r"(?<!:):([A-Za-z_]\w*)")

ended = threading.Event()
log_lock = threading.Lock()

# numbers as the server writes them
psycopg2.extensions.register_type(psycopg2.extensions.new_type((20, 23, 1700), "TEXT", lambda value, cursor: value))


def parse(text):
	"""(command, argument) pairs; of SQL also whether its row is kept"""
	commands, sql = [], ""
	for line in text.splitlines():
		if line.startswith("--") or not line.strip():
			continue
		if line.startswith("\\"):
			word, _, rest = line[1:].partition(" ")
			commands.append((word, rest))
			continue
		sql += line + "\n"
		stripped = line.rstrip()
		for end, command in ((";", "sql"), ("\\gset", "gset"), ("\\aset", "aset")):
			if stripped.endswith(end):
				commands.append((command, sql.rstrip()[:-len(end)]))
				sql = ""
	if sql:
		raise ValueError("unfinished statement: " + sql)
	return commands


def run(commands, variables, cursor):
	taken = []		# for each \if: None until a branch was taken, then whether this one is it
	for command, argument in commands:
		text = NAME.sub(lambda m: variables.get(m.group(1), m.group(0)), argument)
		if command == "if":
			taken.append(holds(text) or None)
		elif command == "elif":
			taken[-1] = False if taken[-1] is not None else holds(text) or None
		elif command == "else":
			taken[-1] = taken[-1] is None
		elif command == "endif":
			taken.pop()
		elif not all(taken):
			continue
		elif command == "set":
			name, _, value = text.partition(" ")
			bounds = re.fullmatch(r"random\((\d+), (\d+)\)", value)
			variables[name] = str(random.randint(int(bounds[1]), int(bounds[2]))) if bounds else str(int(value))
		else:
			cursor.execute(text)
			row = cursor.fetchone() if command != "sql" else None
			if command == "gset" and row is None:
				raise ValueError("no row: " + text)
			if row is not None:
				variables.update((column.name, "" if value is None else str(value)) for column, value in zip(cursor.description, row))


def holds(condition):
	left, right = condition.split(" = ")
	return int(left) == int(right)


class Session:
	def __init__(self, dsn, sync, given, scripts, interval, log):
		self.side = {}
		for side in dsn:
			connection = psycopg2.connect(dsn[side])
			connection.autocommit = True		# the scripts say BEGIN and COMMIT
			self.side[side] = connection.cursor()
		self.sync, self.given, self.scripts, self.interval, self.log = sync, given, scripts, interval, log

	def route(self):
		self.side["green"].execute("SELECT bcmig_route(%s, '', true)", (self.sync,))
		return self.side["green"].fetchone()[0]

	def script(self, name, commands):
		began = time.monotonic()
		while True:
			side = self.route()
			if side == "pause":
				time.sleep(0.005)
				continue
			variables = dict(self.given)
			cursor = self.side[side]
			try:
				run(commands, variables, cursor)
				break
			except psycopg2.Error as error:
				if error.pgcode not in AGAIN:
					raise
				cursor.execute("ROLLBACK")
				time.sleep(0.005)
		posted = name in DOCUMENT and variables.get("inv") != "0"
		with log_lock:
			self.log.write("%s %s %.3f %s\n" % (side, name, time.monotonic() - began, DOCUMENT[name].format(**variables) if posted else "-"))

	def work(self):
		names, weights = [s[0] for s in self.scripts], [s[2] for s in self.scripts]
		by_name = {name: commands for name, commands, _ in self.scripts}
		due = time.monotonic() + random.random() * self.interval
		try:
			while not ended.wait(max(0, due - time.monotonic())):
				due = max(due + self.interval, time.monotonic())
				name = random.choices(names, weights)[0]
				self.script(name, by_name[name])
		except Exception as error:
			with log_lock:
				print("writers.py: %s: %s" % (getattr(error, "pgcode", ""), error), file=sys.stderr, flush=True)
				os._exit(1)


def main():
	green, blue, sync, rate, sessions, log_name = sys.argv[1:7]
	given, scripts = {}, []
	for argument in sys.argv[7:]:
		if "@" in argument:
			file, weight = argument.rsplit("@", 1)
			with open(file, encoding="utf-8") as text:
				scripts.append((os.path.basename(file)[:-4], parse(text.read()), int(weight)))
		else:
			name, value = argument.split("=")
			given[name] = value
	signal.signal(signal.SIGTERM, lambda number, frame: ended.set())
	with open(log_name, "w", buffering=1, encoding="utf-8") as log:
		dsn = {"green": green, "blue": blue}
		all_sessions = [Session(dsn, sync, given, scripts, int(sessions) / float(rate), log) for _ in range(int(sessions))]
		threads = [threading.Thread(target=session.work) for session in all_sessions]
		for thread in threads:
			thread.start()
		for thread in threads:
			thread.join()


main()
