#!/usr/bin/python3
"""Milliseconds from the call of bcmig_rollback() to no new request for green.

	readers.py GREEN SOCKET SYNC SERVER

GREEN is a connection string, SOCKET the admin socket of HAProxy, SERVER a server
of its backend "bc".  HAProxy is asked again and again, by a process of its own,
whether it would send a request there: not with weight 0, nor in maintenance.
"""
import csv
import multiprocessing
import socket
import sys
import time

import psycopg2

green, admin, sync, server = sys.argv[1:5]


def takes_requests():
	with socket.socket(socket.AF_UNIX) as s:
		s.connect(admin)
		s.sendall(b"show stat bc 4 -1\n")
		answer = b"".join(iter(lambda: s.recv(65536), b"")).decode()
	for row in csv.DictReader(answer.lstrip("# ").splitlines()):
		if row["svname"] == server:
			return int(row["weight"]) > 0 and not row["status"].startswith("MAINT")
	raise SystemExit("no server " + server)


def watch(ready, at):
	if not takes_requests():
		raise SystemExit(server + " takes no requests before")
	ready.set()
	while takes_requests():
		time.sleep(0.001)
	at.value = time.monotonic()


def main():
	ready = multiprocessing.Event()
	at = multiprocessing.Value("d", 0)
	watcher = multiprocessing.Process(target=watch, args=(ready, at))
	watcher.start()
	connection = psycopg2.connect(green)
	connection.autocommit = True
	cursor = connection.cursor()
	ready.wait(10)
	called = time.monotonic()
	cursor.execute("SELECT count(*) FROM bcmig_rollback(%s, 'benchmark')", (sync,))
	watcher.join(60)
	if at.value == 0:
		watcher.kill()
		raise SystemExit("green still takes requests after a minute")
	print("%.1f" % ((at.value - called) * 1000))


main()
