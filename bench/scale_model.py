#!/usr/bin/env python3
"""scale_model.py: what a migration of terabytes would take, by simulation

	scale_model.py [FILE...]			lines "BENCH name value unit" and details
	scale_model.py --markdown [FILE...]	the tables of docs/scale.md
	scale_model.py --check ROWS LOB_ROWS SMALL WORKERS CORES [FILE...]
										seconds of the copy bench/scale.sh measures

What a row costs comes from lines "BENCH scale_..." and others of FILE
(bench/RESULTS.md when none is given; later files win).  What no bench can tell
is in WORLD and DATABASE below, each with where it comes from.

The model: workers take tables in order of size; the workers of a table share
its rows.  A worker goes as fast as one worker was measured to go, unless a
processor, the network or a disk is used up: then those who want it get equal
parts.  A key is built by one process.  Between two events everything runs at
constant speed, so there is nothing random in it.
"""
import math
import re
import sys
from pathlib import Path

# What is not measured here: machines, and what a working day does to blue.
WORLD = {
    "blue_cores": 16,            # assumed
    "green_cores": 16,           # assumed; of each Citus worker too
    "citus_workers": 4,          # the question
    "blue_read_mb": 1000,        # assumed: NVMe behind a busy server
    "green_write_mb": 1000,      # assumed: heap and WAL together
    "net_efficiency": 0.9,       # of a link, after headers
    "changes_per_s": 300,        # assumed: 50 postings a second of 6 rows, day and night
    "version_bytes": 300,        # of a row version blue keeps for readers
}

# A database like those in the sources of bc-source-facts.md, section 9: 3.7 TB,
# 4,000 tables of which one in seven has rows, 11 companies, 54 million G/L
# entries in the largest.  rows: for one G/L entry of the same company.  The
# ratio of the change log is that of a real database (3.1 to 0.85 million), the
# others are guesses from how documents post.
DATABASE = {
    "bytes": 3.7e12,
    "tables": 4000,
    "with_rows": 567 / 3914,
    "companies": 11,
    "entries": 54e6,
    "small_rows": 5000,          # assumed, on average
    "not_rows": 0.5,             # assumed: part of blue's bytes that are indexes, SIFT views, free space
    "lob_bytes": 200e3,          # assumed: a picture or a document
    "secondary_indexes": 6,      # assumed, of a ledger; built after the first catch-up
    "ledgers": [                 # name, rows for a G/L entry, width against a G/L entry
        ("G/L Entry", 1.0, 1.0), ("Change Log Entry", 3.68, 1.1), ("Value Entry", 1.5, 1.6),
        ("Item Ledger Entry", 0.7, 1.4), ("Dimension Set Entry", 0.3, 0.4), ("VAT Entry", 0.4, 1.2),
        ("Detailed Cust. Ledg. Entry", 0.25, 1.0), ("Cust. Ledger Entry", 0.12, 1.4),
        ("Vendor Ledger Entry", 0.06, 1.4), ("Sales Invoice Line", 0.5, 2.5), ("Sales Shipment Line", 0.5, 2.2),
        ("Purch. Inv. Line", 0.15, 2.4), ("Item Application Entry", 0.8, 0.6), ("G/L - Item Ledger Relation", 1.4, 0.3),
        ("Post Value Entry to G/L", 1.0, 0.3), ("Warehouse Entry", 0.5, 1.2), ("tables of extensions", 2.0, 1.0)],
}

NEEDED = [
    "scale_copy_us_per_row", "scale_blue_cpu_us_per_row", "scale_green_cpu_us_per_row", "scale_key_us_per_row",
    "scale_heap_bytes_per_row", "scale_index_bytes_per_row", "scale_wal_bytes_per_row", "scale_wire_bytes_per_row",
    "scale_partitioned_ratio", "scale_elsewhere_us_per_row", "scale_elsewhere_cpu_us_per_row", "scale_empty_table_ms",
    "scale_lob_mb_per_s", "scale_lob_blue_cpu_ms_per_mb", "scale_lob_green_cpu_ms_per_mb",
    "scale_measured_rows", "apply_rows_per_s", "validate_rows_per_s", "idle_statements_per_s", "idle_cpu_percent",
]


def read_figures(files):
    figures = {}
    for name in files:
        for line in Path(name).read_text(encoding="utf-8").splitlines():
            found = re.match(r"\s*BENCH (\S+) (-?[0-9.]+)", line)
            if found:
                figures[found.group(1)] = float(found.group(2))
    # measured at several sizes: the dearest
    for name in ("idle_statements_per_s", "idle_cpu_percent"):
        sizes = [v for n, v in figures.items() if n.startswith(name + "_")]
        if sizes:
            figures[name] = max(sizes)
    missing = [n for n in NEEDED if n not in figures]
    if missing:
        sys.exit("not in " + ", ".join(map(str, files)) + ": " + ", ".join(missing) + "; make bench BENCH=scale measures what begins with scale_")
    return figures


class Task:
    """so many units of work; each needs time of a worker and parts of resources"""

    def __init__(self, name, units, seconds, needs, most_workers, then=None):
        self.name, self.left, self.seconds, self.needs = name, units, seconds, needs
        self.most_workers, self.then, self.workers = most_workers, then, 0


def rates(running, capacity):
    """speed of each worker of each task: full, or an equal part of what is used up"""
    left = dict(capacity)
    open_tasks = {t: 0.0 for t in running}     # utilisation of one of its workers, grows to 1
    done = {}
    while open_tasks:
        use = {}
        for t in open_tasks:
            for r, n in t.needs.items():
                use[r] = use.get(r, 0.0) + t.workers * n / t.seconds
        step, tight = 1 - min(open_tasks.values()), None
        for r, u in use.items():
            if u > 0 and left[r] / u < step:
                step, tight = left[r] / u, r
        for r, u in use.items():
            left[r] -= u * step
        for t in list(open_tasks):
            open_tasks[t] += step
            if tight is None or tight in t.needs:
                done[t] = open_tasks.pop(t)
    return done, [r for r in capacity if left[r] <= capacity[r] * 1e-6]


def simulate(tasks, workers, capacity):
    """seconds, what was used up or missing for how long, use of each resource"""
    queue = list(tasks)
    now, limits, used = 0.0, {}, {r: 0.0 for r in capacity}
    running = []
    while queue or running:
        # one worker for each, then what is left for those that can share
        running = [t for t in running if t.left > 0]
        for t in running:
            t.workers = 0
        free = workers
        for t in running:
            if free:
                t.workers, free = 1, free - 1
        while free and queue:
            t = queue.pop(0)
            t.workers, free = 1, free - 1
            running.append(t)
        while free:
            hungry = [t for t in running if t.workers < t.most_workers]
            if not hungry:
                break
            t = min(hungry, key=lambda t: t.workers)
            t.workers, free = t.workers + 1, free - 1
        at_work = [t for t in running if t.workers]
        if not at_work:
            break
        speed, tight = rates(at_work, capacity)
        step = min(t.left * t.seconds / (t.workers * speed[t]) for t in at_work)
        now += step
        why = tight[0] if tight else "one table" if free else "workers"
        limits[why] = limits.get(why, 0.0) + step
        for t in at_work:
            amount = step * t.workers * speed[t] / t.seconds
            for r, n in t.needs.items():
                used[r] += n * amount
            t.left -= amount
            if t.left <= 1e-6 * max(amount, 1):
                t.left = 0
                if t.then:
                    queue.insert(0, t.then)
    return now, limits, used


def key_seconds(f, rows, width_index=1.0):
    """a sort: n log n"""
    if rows < 2:
        return 0.0
    return f["scale_key_us_per_row"] * 1e-6 * rows * math.log2(rows) / math.log2(f["scale_measured_rows"]) * width_index


def machine(net_gbit, citus=False, one_machine=None):
    if one_machine:
        return {"cores": one_machine}
    c = {"blue CPU": WORLD["blue_cores"], "green CPU": WORLD["green_cores"], "network": net_gbit * 125e6 * WORLD["net_efficiency"],
         "blue disk": WORLD["blue_read_mb"] * 1e6, "green disk": WORLD["green_write_mb"] * 1e6}
    if citus:
        c["shards' CPU"] = WORLD["green_cores"] * WORLD["citus_workers"]
        c["green disk"] *= WORLD["citus_workers"]
    return c


def copy_of(f, name, rows, width, kind, workers, one_machine=False):
    """the task of copying a table of rows, and its key after it"""
    seconds = f["scale_copy_us_per_row"] * 1e-6 * width
    blue, green = f["scale_blue_cpu_us_per_row"] * 1e-6 * width, f["scale_green_cpu_us_per_row"] * 1e-6 * width
    disk = (f["scale_heap_bytes_per_row"] + f["scale_wal_bytes_per_row"]) * width
    share, key = workers, key_seconds(f, rows)
    if kind == "partitioned":
        # its key is there before the rows
        seconds, green, key = seconds * f["scale_partitioned_ratio"], green * f["scale_partitioned_ratio"], 0.0
        disk += 2 * f["scale_index_bytes_per_row"]
    elif kind == "citus":
        seconds, share, key = f["scale_elsewhere_us_per_row"] * 1e-6 * width, 1, 0.0
        shards = f["scale_elsewhere_cpu_us_per_row"] * 1e-6 * width / 2
        green = shards
        disk += 2 * f["scale_index_bytes_per_row"]
    if one_machine:
        needs = {"cores": blue + green}
    else:
        needs = {"blue CPU": blue, "green CPU": green, "network": f["scale_wire_bytes_per_row"] * width,
                 "blue disk": f["scale_heap_bytes_per_row"] * width, "green disk": disk}
        if kind == "citus":
            needs["shards' CPU"] = shards
    then = None
    if key > 0:
        then = Task(name + " key", 1, key, {"cores": key} if one_machine else {"green CPU": key, "green disk": rows * 2 * f["scale_index_bytes_per_row"]}, 1)
    return Task(name, rows, seconds, needs, share, then)


def lob_copy(f, name, megabytes, workers, kind, one_machine=False):
    blue, green = f["scale_lob_blue_cpu_ms_per_mb"] / 1000, f["scale_lob_green_cpu_ms_per_mb"] / 1000
    needs = {"cores": blue + green} if one_machine else \
        {"blue CPU": blue, "green CPU": green, "network": 2e6, "blue disk": 1e6, "green disk": 2e6}
    return Task(name, megabytes, 1 / f["scale_lob_mb_per_s"], needs, 1 if kind == "citus" else workers)


def empties(f, n, workers, one_machine=False):
    return Task("tables without many rows", n, f["scale_empty_table_ms"] / 1000,
                {"cores" if one_machine else "green CPU": f["scale_empty_table_ms"] / 2000}, workers)


def database(f):
    """(name, rows, width) of every ledger of every company; bytes of LOBs; number of small tables"""
    tables = []
    for company in range(1, DATABASE["companies"] + 1):
        for name, share, width in DATABASE["ledgers"]:
            tables.append((f"{name} {company}", DATABASE["entries"] * share / company, width))
    with_rows = int(DATABASE["tables"] * DATABASE["with_rows"])
    small = with_rows - len(tables)
    data = DATABASE["bytes"] * (1 - DATABASE["not_rows"])
    ledger_bytes = sum(r * w for _, r, w in tables) * f["scale_heap_bytes_per_row"]
    return tables, data - ledger_bytes, small


def scenario(f, kind, workers, net):
    tables, lob_bytes, small = database(f)
    tasks = [copy_of(f, n, r, w, kind, workers) for n, r, w in tables]
    for i, part in enumerate((0.5, 0.3, 0.2)):
        tasks.append(lob_copy(f, ("Tenant Media", "Document Attachment", "Incoming Document")[i], lob_bytes / 1e6 * part, workers, kind))
    tasks.sort(key=lambda t: -t.left * t.seconds)
    tasks.append(copy_of(f, "small tables", small * DATABASE["small_rows"], 1, "plain", workers))
    tasks.append(empties(f, DATABASE["tables"], workers))
    capacity = machine(net, kind == "citus")
    seconds, limits, used = simulate(tasks, workers, capacity)

    # secondary indexes after the first catch-up, those of a table one after another
    index_tasks = [Task(n, 1, key_seconds(f, r) * DATABASE["secondary_indexes"], {"green CPU": key_seconds(f, r) * DATABASE["secondary_indexes"]}, 1)
                   for n, r, _ in tables]
    index_tasks.sort(key=lambda t: -t.seconds)
    index_seconds = simulate(index_tasks, workers, {"green CPU": WORLD["green_cores"] * (WORLD["citus_workers"] if kind == "citus" else 1)})[0]
    rows = sum(r for _, r, _ in tables)
    rate = f["apply_rows_per_s"] if kind != "citus" else 1e6 / f["scale_elsewhere_us_per_row"]
    backlog = WORLD["changes_per_s"] * seconds
    width_bytes = sum(r * w for _, r, w in tables)
    return {
        "hours": seconds / 3600, "limits": sorted(((v / seconds, k) for k, v in limits.items()), reverse=True),
        "blue_cores": used["blue CPU"] / seconds, "blue_read_mb": used["blue disk"] / seconds / 1e6,
        "net_mb": used["network"] / seconds / 1e6, "green_cores": used["green CPU"] / seconds,
        "index_hours": index_seconds / 3600, "backlog": backlog,
        # one hot table has a fifth of all changes and one worker; new changes arrive meanwhile
        "catch_up_minutes": max(backlog / (rate * workers - WORLD["changes_per_s"]) if rate * workers > WORLD["changes_per_s"] else math.inf,
                                backlog / 5 / max(rate - WORLD["changes_per_s"] / 5, 1e-9)) / 60,
        "wal_tb": (width_bytes * f["scale_wal_bytes_per_row"] + lob_bytes + rows * f["scale_index_bytes_per_row"] * (1 + DATABASE["secondary_indexes"])) / 1e12,
        "disk_tb": (width_bytes * f["scale_heap_bytes_per_row"] + lob_bytes + rows * f["scale_index_bytes_per_row"] * (1 + DATABASE["secondary_indexes"])) / 1e12,
        "rows": rows, "lob_tb": lob_bytes / 1e12,
        "largest_key_minutes": key_seconds(f, max(r for _, r, _ in tables)) / 60,
        "validate_hours": rows / f["validate_rows_per_s"] / 3600,
        "scan_hours": max(r * w for _, r, w in tables) * f["scale_copy_us_per_row"] * 1e-6 / 3600,
    }


def limit_text(s):
    return ", ".join(f"{k} {p * 100:.0f} %" for p, k in s["limits"][:3] if p >= 0.05)


def bench_lines(f):
    for kind in ("plain", "partitioned", "citus"):
        for net in (1, 10):
            for workers in (1, 2, 4, 8, 16, 32):
                s = scenario(f, kind, workers, net)
                print(f"BENCH scale_first_copy_hours_{kind}_{net}gbit_{workers}_workers {s['hours']:.1f} h")
                print(f"#     limited by {limit_text(s)}; blue {s['blue_cores']:.1f} cores, {s['blue_read_mb']:.0f} MB/s read; network {s['net_mb']:.0f} MB/s; "
                      f"green {s['green_cores']:.1f} cores; backlog {s['backlog'] / 1e6:.1f} million rows, caught up in {s['catch_up_minutes']:.0f} min")
    s = scenario(f, "plain", 8, 10)
    print(f"BENCH scale_green_disk_tb {s['disk_tb']:.2f} TB")
    print(f"BENCH scale_green_wal_tb {s['wal_tb']:.2f} TB")
    print(f"BENCH scale_secondary_index_hours {s['index_hours']:.1f} h")
    print(f"BENCH scale_largest_key_minutes {s['largest_key_minutes']:.0f} min")
    print(f"BENCH scale_validate_full_hours {s['validate_hours']:.1f} h")
    print(f"#     plain, 8 workers, 10 Gbit; {s['rows'] / 1e6:.0f} million rows of ledgers, {s['lob_tb']:.2f} TB of LOBs; idle: "
          f"{f['idle_statements_per_s']:g} statements/s, {f['idle_cpu_percent']:g} percent of a core")


def markdown(f):
    print("| what goes in | |\n|---|---|")
    for name in NEEDED:
        print(f"| `{name}` | {f[name]:g} |")
    print()
    for kind, title in (("plain", "Plain tables"), ("partitioned", "Partitioned tables that were there before, key and all"),
                        ("citus", f"Citus with {WORLD['citus_workers']} workers")):
        print(f"### {title}\n")
        print("| workers | 1 Gbit: hours | what limits it | 10 Gbit: hours | what limits it | blue: cores, MB/s read | backlog, million rows | caught up in, min |")
        print("|---|---|---|---|---|---|---|---|")
        for workers in (1, 2, 4, 8, 16, 32):
            a, b = scenario(f, kind, workers, 1), scenario(f, kind, workers, 10)
            print(f"| {workers} | {a['hours']:.1f} | {limit_text(a)} | {b['hours']:.1f} | {limit_text(b)} | {b['blue_cores']:.1f}, {b['blue_read_mb']:.0f} | "
                  f"{b['backlog'] / 1e6:.0f} | {b['catch_up_minutes']:.0f} |")
        print()
    s = scenario(f, "plain", 8, 10)
    scan = s["scan_hours"] * 3600
    print("| for plain tables, 8 workers, 10 Gbit | |\n|---|---|")
    print(f"| rows of ledgers | {s['rows'] / 1e6:.0f} million |")
    print(f"| LOBs | {s['lob_tb']:.2f} TB |")
    print(f"| disk on green, with {DATABASE['secondary_indexes']} secondary indexes a ledger | {s['disk_tb']:.2f} TB |")
    print(f"| WAL until streaming | {s['wal_tb']:.2f} TB |")
    print(f"| building the key of the largest table, one process | {s['largest_key_minutes']:.0f} min |")
    print(f"| secondary indexes after the first catch-up | {s['index_hours']:.1f} h |")
    print(f"| a full validation | {s['validate_hours']:.1f} h |")
    print(f"| one pass over the largest table, where it cannot be cut into ranges | {s['scan_hours']:.1f} h |")
    print(f"| row versions blue keeps for such a pass | {scan * WORLD['changes_per_s'] * WORLD['version_bytes'] / 1e9:.1f} GB |")


def check(f, rows, lob_rows, small, workers, cores):
    """bench/scale.sh: tables of rows, rows / 2 and rows / 4 G/L entries, one of LOBs, small ones, both sides on one machine"""
    tasks = [copy_of(f, f"gl{i}", rows / 2 ** i, 1, "plain", workers, True) for i in range(3)]
    tasks.append(lob_copy(f, "lob", lob_rows * DATABASE["lob_bytes"] / 1e6, workers, "plain", True))
    tasks.append(empties(f, small, workers, True))
    print(f"{simulate(tasks, workers, machine(0, one_machine=cores))[0]:.2f}")


def main(args):
    mode, numbers = None, []
    if args and args[0] in ("--markdown", "--check"):
        mode = args.pop(0)
    if mode == "--check":
        numbers = [float(a) for a in args[:5]]
        args = args[5:]
    f = read_figures(args or [Path(__file__).with_name("RESULTS.md")])
    if mode == "--check":
        check(f, numbers[0], numbers[1], int(numbers[2]), int(numbers[3]), numbers[4])
    elif mode == "--markdown":
        markdown(f)
    else:
        bench_lines(f)


if __name__ == "__main__":
    main(sys.argv[1:])
