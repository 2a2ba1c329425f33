#!/usr/bin/python3
"""An application that writes where bcmig_route() sends it.

	app.py GREEN BLUE SYNC FIRST_ID LOG [WRITES_A_SECOND]

Both are connection strings.  Writes rows of table entry (id, amount, note) from
FIRST_ID on: inserts, updates, deletes.  What was acknowledged goes to LOG, a
line each: side, id, and the row's note or '-' when it was deleted.  A write that
is refused by a fence, or answered by "pause", is tried again where
bcmig_route() says then.  Ends when its standard input is closed.
"""
import random
import select
import sys
import time

import psycopg2

green_dsn, blue_dsn, sync, first, log_name = sys.argv[1:6]
interval = 1 / float(sys.argv[6]) if len(sys.argv) > 6 else 0
FENCED = "BM021"	# on either side


def connect(dsn):
	connection = psycopg2.connect(dsn)
	connection.autocommit = True
	return connection.cursor()


def main():
	sides = {"green": connect(green_dsn), "blue": connect(blue_dsn)}
	router = connect(green_dsn)
	log = open(log_name, "w", buffering=1)
	ids = []
	next_id = int(first)
	number = 0
	due = time.monotonic()
	pick = random.Random(next_id)

	while not select.select([sys.stdin], [], [], max(0, due - time.monotonic()))[0]:
		due = max(due + interval, time.monotonic())
		number += 1
		note = "%s/%d" % (first, number)
		what = pick.choice("iiuud") if ids else "i"
		row = next_id if what == "i" else pick.choice(ids)
		while True:
			router.execute("SELECT bcmig_route(%s, %s, true)", (sync, str(row)))
			side = router.fetchone()[0]
			if side == "pause":
				time.sleep(0.01)
				if select.select([sys.stdin], [], [], 0)[0]:
					return
				continue
			try:
				if what == "i":
					sides[side].execute("INSERT INTO entry (id, amount, note) VALUES (%s, %s, %s)", (row, number / 7, note))
				elif what == "u":
					sides[side].execute("UPDATE entry SET amount = amount + 1, note = %s WHERE id = %s", (note, row))
				else:
					sides[side].execute("DELETE FROM entry WHERE id = %s", (row,))
				if sides[side].rowcount == 1:
					break
				time.sleep(0.002)	# a row whose key has moved to green may not be there yet
			except psycopg2.Error as error:
				if error.pgcode != FENCED:
					log.write("error %s %s\n" % (error.pgcode, str(error).replace("\n", " ")))
					return
				log.write("# refused by %s\n" % side)
				time.sleep(0.002)
				if select.select([sys.stdin], [], [], 0)[0]:
					return
		if what == "i":
			ids.append(row)
			next_id += 1
		elif what == "d":
			ids.remove(row)
		log.write("%s %d %s\n" % (side, row, "-" if what == "d" else note))


main()
