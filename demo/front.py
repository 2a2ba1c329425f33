#!/usr/bin/python3
"""Web servers behind the demo's HAProxy, and one who reads through it.

	front.py serve FILE NAME...			a server each, that answers its name; FILE: "NAME PORT" a line
	front.py read PORT RATE FILE		one request after the other, RATE a second, until SIGTERM

The reader writes to FILE how many requests there were, how many failed, how many
each server has answered, and what went wrong with each that failed.
"""
import collections
import http.client
import http.server
import os
import signal
import sys
import threading
import time

ended = threading.Event()


def serve(file, names):
	servers = []
	for name in names:
		class Answer(http.server.BaseHTTPRequestHandler):
			protocol_version = "HTTP/1.1"
			body = name.encode()

			def do_GET(self):
				self.send_response(200)
				self.send_header("Content-Length", str(len(self.body)))
				self.end_headers()
				self.wfile.write(self.body)

			def log_message(self, *arguments):
				pass

		servers.append((name, http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)))
	with open(file + ".new", "w", encoding="utf-8") as ports:
		for name, server in servers:
			ports.write("%s %d\n" % (name, server.server_port))
	for _, server in servers:
		threading.Thread(target=server.serve_forever).start()
	os.rename(file + ".new", file)


def read(port, rate, file):
	answered, failures, requests = collections.Counter(), [], 0
	due = time.monotonic()
	while not ended.wait(max(0, due - time.monotonic())):
		due = max(due + 1 / rate, time.monotonic())
		requests += 1
		connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
		try:
			connection.request("GET", "/")
			answer = connection.getresponse()
			body = answer.read().decode()
			if answer.status == 200:
				answered[body] += 1
			else:
				failures.append("request %d: %d %s" % (requests, answer.status, body[:100]))
		except (OSError, http.client.HTTPException) as error:
			failures.append("request %d: %r" % (requests, error))
		finally:
			connection.close()
	with open(file, "w", encoding="utf-8") as out:
		out.write("requests %d\nfailed %d\n" % (requests, len(failures)))
		for name in sorted(answered):
			out.write("%s %d\n" % (name, answered[name]))
		out.writelines(line + "\n" for line in failures)


if sys.argv[1] == "serve":
	serve(sys.argv[2], sys.argv[3:])
else:
	signal.signal(signal.SIGTERM, lambda number, frame: ended.set())
	read(int(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
