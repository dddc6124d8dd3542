"""Drives the Autobahn test suite against a server and a client, and judges its reports.

Called by run.sh, see there. Python 3, standard library only.

The suite is not trusted to have run what it was told to: it hangs on an empty selection, writes its
report only at the end, and leaves out the cases that it did not reach, silently. So the ids are
made here from the table below, handed to the suite one by one, and looked for in its report one by
one. A missing case is a failed case.
"""
import argparse
import fnmatch
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))

# Group: what it is about, how many cases it has, and how many in each of its sections.
GROUPS = {
    1: ("Framing", 16, {"1.1": 8, "1.2": 8}),
    2: ("Pings and Pongs", 11, {"2": 11}),
    3: ("Reserved bits", 7, {"3": 7}),
    4: ("Opcodes", 10, {"4.1": 5, "4.2": 5}),
    5: ("Fragmentation", 20, {"5": 20}),
    6: ("UTF-8", 145, {
        "6.1": 3, "6.2": 4, "6.3": 2, "6.4": 4, "6.5": 5, "6.6": 11, "6.7": 4, "6.8": 2, "6.9": 4,
        "6.10": 3, "6.11": 5, "6.12": 8, "6.13": 5, "6.14": 10, "6.15": 1, "6.16": 3, "6.17": 5,
        "6.18": 5, "6.19": 5, "6.20": 7, "6.21": 8, "6.22": 34, "6.23": 7}),
    7: ("Closing", 37, {"7.1": 6, "7.3": 6, "7.5": 1, "7.7": 13, "7.9": 9, "7.13": 2}),
    9: ("Limits and performance", 54, {
        "9.1": 6, "9.2": 6, "9.3": 9, "9.4": 9, "9.5": 6, "9.6": 6, "9.7": 6, "9.8": 6}),
    10: ("Auto-fragmentation", 1, {"10.1": 1}),
    12: ("permessage-deflate: payloads", 90, {
        "12.1": 18, "12.2": 18, "12.3": 18, "12.4": 18, "12.5": 18}),
    13: ("permessage-deflate: parameters", 126, {
        "13.1": 18, "13.2": 18, "13.3": 18, "13.4": 18, "13.5": 18, "13.6": 18, "13.7": 18}),
}
TOTAL = 517
ALL = [f"{section}.{n}" for _, _, sections in GROUPS.values()
       for section, count in sections.items() for n in range(1, count + 1)]
assert len(ALL) == len(set(ALL)) == TOTAL == sum(count for _, count, _ in GROUPS.values())
assert all(count == sum(sections.values()) for _, count, sections in GROUPS.values())

# The cases for which the suite has no verdict but this one.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}

START_SECONDS = 15  # to say `listening on`
STOP_SECONDS = 30  # from SIGTERM to SIGKILL; the suite writes its reports in that time
AFTER_DEATH_SECONDS = 20  # what the suite gets to notice that its server is gone


class Incident(Exception):
    """Something went wrong that is no case's verdict."""


def group_of(case):
    return int(case.split(".")[0])


def select(patterns, full):
    if not patterns:
        return [c for c in ALL if full or group_of(c) <= 10]
    for pattern in patterns:
        if not any(chosen(c, pattern) for c in ALL):
            raise ValueError(f"no case is called {pattern!r}")
    return [c for c in ALL if any(chosen(c, p) for p in patterns)]


def chosen(case, pattern):
    return fnmatch.fnmatchcase(case, pattern) or case.startswith(pattern + ".")


def die_with_parent():
    """In the child, where the system has it (Linux): no orphans if this process is killed."""
    try:
        import ctypes
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    except (OSError, AttributeError):
        pass


class Process:
    """A child with a process group of its own, its output in a file."""

    running = []

    def __init__(self, what, command, log):
        self.what, self.log = what, log
        with open(log, "wb") as output:
            try:
                self.child = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                    start_new_session=True, preexec_fn=die_with_parent)
            except OSError as error:
                raise Incident(f"{what} does not start: {error.strerror}") from error
        Process.running.append(self)

    def poll(self):
        return self.child.poll()

    def listening(self):
        """Waits for `listening on ws://127.0.0.1:PORT` and returns the URL."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            ended = self.poll() is not None
            with open(self.log, errors="replace") as log:
                found = re.search(r"^listening on (ws://127\.0\.0\.1:\d+)/?\s*$", log.read(), re.M)
            if found and not ended:
                return found[1]
            if ended:
                raise Incident(f"{self.what} ended at its start, {self.ending()}{self.tail()}")
            if time.monotonic() > deadline:
                raise Incident(f"{self.what} did not say `listening on` in {START_SECONDS} s{self.tail()}")
            time.sleep(0.05)

    def ending(self):
        code = self.child.returncode
        return f"by signal {-code}" if code < 0 else f"with exit code {code}"

    def tail(self):
        with open(self.log, errors="replace") as log:
            lines = [line.strip() for line in log.read()[-4000:].splitlines()]
        lines = [line for line in lines if line and not line.startswith("listening on ")]
        return "; its last output: " + " / ".join(lines[-3:])[-400:] if lines else ""

    def stop(self):
        """SIGTERM, then SIGKILL. Returns False if it had to be the latter."""
        obeyed = True
        if self.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                obeyed = False
        self.signal(signal.SIGKILL)  # the group's rest, if it left any
        self.child.wait()
        if self in Process.running:
            Process.running.remove(self)
        return obeyed

    def signal(self, number):
        try:
            os.killpg(self.child.pid, number)
        except ProcessLookupError:
            pass


class Role:
    """One run of the suite: its verdicts by case, and incidents."""

    def __init__(self, name, binary, options):
        self.name, self.binary, self.options = name, binary, options
        self.dir = os.path.join(options.out, name)
        self.cases = options.selection
        self.incidents = []
        self.verdicts = {}
        self.seconds = 0.0

    def run(self):
        shutil.rmtree(self.dir, ignore_errors=True)  # no verdict of an earlier run counts
        os.makedirs(self.dir)
        start = time.monotonic()
        deadline = start + self.options.timeout
        try:
            (self.run_server if self.name == "server" else self.run_client)(deadline)
        except Incident as incident:
            self.incidents.append(str(incident))
        finally:
            for process in list(reversed(Process.running)):
                process.stop()
        self.seconds = time.monotonic() - start
        self.read_reports()

    def suite(self, role, spec):
        spec = dict(spec, cases=self.cases, outdir=os.path.join(self.dir, "report"))
        spec["exclude-cases"], spec["exclude-agent-cases"] = [], {}
        path = os.path.join(self.dir, "spec.json")
        with open(path, "w") as f:
            json.dump(spec, f, indent=1)
        return Process(f"the fuzzing {role}", [
            self.options.python2, "-u", os.path.join(HERE, "suite.py"), role, path],
            os.path.join(self.dir, "suite.log"))

    def peer(self, argument):
        command = [self.binary, argument]
        if self.options.tls:
            relay = os.path.join(os.path.dirname(os.path.abspath(__file__)), "over_tls.py")
            command = [sys.executable, relay, self.name, *command]
        return Process(f"the {self.name} under test", command,
                       os.path.join(self.dir, "peer.log"))

    def run_server(self, deadline):
        server = self.peer(f"127.0.0.1:{free_port()}")
        spec = {"servers": [{"agent": "adjourn", "url": server.listening()}]}
        suite = self.suite("client", spec)
        while suite.poll() is None:
            if server.poll() is not None and time.monotonic() < deadline:
                deadline = min(deadline, time.monotonic() + AFTER_DEATH_SECONDS)
            if time.monotonic() > deadline:
                suite.stop()
                if server.poll() is None:
                    raise Incident(self.cut_off())
                break
            time.sleep(0.05)
        if server.poll() is not None:
            raise Incident(f"the server under test ended during the run, {server.ending()}{server.tail()}")
        if suite.poll() != 0:
            raise Incident(f"the fuzzing client ended {suite.ending()}{suite.tail()}")
        if not server.stop():
            raise Incident(f"the server under test did not end in {STOP_SECONDS} s after SIGTERM")

    def run_client(self, deadline):
        suite = self.suite("server", {})
        client = self.peer(suite.listening())
        while client.poll() is None:
            if suite.poll() is not None:
                raise Incident(f"the fuzzing server ended during the run, {suite.ending()}{suite.tail()}")
            if time.monotonic() > deadline:
                raise Incident(self.cut_off())
            time.sleep(0.05)
        if client.poll() != 0:
            raise Incident(f"the client under test ended {client.ending()}{client.tail()}")
        if suite.poll() is not None or not suite.stop() or suite.poll() != 0:
            raise Incident(f"the fuzzing server ended {suite.ending()}{suite.tail()}")

    def cut_off(self):
        with open(os.path.join(self.dir, "suite.log"), errors="replace") as log:
            begun = re.findall(r"^Running test case ID (\S+)", log.read(), re.M)
        return f"cut off after {self.options.timeout:g} s, in or after case {begun[-1] if begun else 'none'}"

    def read_reports(self):
        report = os.path.join(self.dir, "report")
        try:
            with open(os.path.join(report, "index.json")) as f:
                agents = json.load(f)
        except FileNotFoundError:
            self.incidents = self.incidents or ["the suite wrote no report"]
            return
        except ValueError as error:
            self.incidents.append(f"the suite's report cannot be read: {error}")
            return
        if len(agents) != 1:
            self.incidents.append(f"the report has {len(agents)} agents instead of one")
            return
        [verdicts] = agents.values()
        for case, verdict in verdicts.items():
            if case in self.cases:
                self.verdicts[case] = verdict
            else:
                self.incidents.append(f"the report holds case {case}, which was not to be run")
        for case in self.bad():
            try:
                with open(os.path.join(report, self.verdicts[case]["reportfile"])) as f:
                    self.verdicts[case]["detail"] = json.load(f)
            except (OSError, ValueError, KeyError):
                self.verdicts[case]["detail"] = {}

    def judge(self, case):
        """`ok`, `informational`, `bad` or `missing`."""
        verdict = self.verdicts.get(case)
        if verdict is None:
            return "missing"
        behaviors = verdict.get("behavior"), verdict.get("behaviorClose")
        if behaviors == ("OK", "OK"):
            return "ok"
        if case in INFORMATIONAL and set(behaviors) <= {"OK", "INFORMATIONAL"}:
            return "informational"
        return "bad"

    def bad(self):
        return [c for c in self.cases if self.judge(c) == "bad"]

    def missing(self):
        return [c for c in self.cases if self.judge(c) == "missing"]

    def passed(self):
        return len(self.cases) - len(self.bad()) - len(self.missing())

    def failed(self):
        return len(self.bad()) + len(self.missing()) + len(self.incidents)

    def rows(self):
        groups = sorted({group_of(c) for c in self.cases})
        for group in groups:
            cases = [c for c in self.cases if group_of(c) == group]
            yield self.row(f"{group} {GROUPS[group][0]}", cases)
        if len(groups) > 1:
            yield self.row("all", self.cases)

    def row(self, title, cases):
        judged = [self.judge(c) for c in cases]
        run = len(cases) - judged.count("missing")
        durations = [self.verdicts[c].get("duration", 0) for c in cases if c in self.verdicts]
        # A case whose connection never opened lasts "since 1970".
        seconds = sum(ms for ms in durations if ms < 1e9) / 1000
        cells = [self.name, title, len(cases), run, judged.count("ok"), judged.count("informational"),
                 judged.count("bad"), judged.count("missing"), f"{seconds:.1f}"]
        return [str(cell) for cell in cells]

    def complaints(self):
        for incident in self.incidents:
            yield f"{self.name}: {incident}"
        for case in self.bad():
            yield f"{self.name} {case}: {describe(self.verdicts[case])}"
        if self.missing():
            yield f"{self.name}: no verdict on {len(self.missing())} cases: {ranges(self.missing())}"


def describe(verdict):
    detail = verdict["detail"]
    parts = [f"{verdict.get('behavior')}, close {verdict.get('behaviorClose')}"]
    if verdict.get("behavior") != "OK":
        wanted = detail.get("expected", {}).get("OK")
        parts.append(f"received {short(detail.get('received'))}"
                     + (f" instead of {short(wanted)}" if wanted is not None else "")
                     + f": {detail.get('result')}")
    if verdict.get("behaviorClose") != "OK":
        parts.append(str(detail.get("resultClose")))
    parts.append(f"close code received {verdict.get('remoteCloseCode')}")
    if detail.get("remoteCloseReason"):
        parts.append(f"reason {short(detail['remoteCloseReason'])}")
    if detail.get("wasNotCleanReason"):
        parts.append(str(detail["wasNotCleanReason"]))
    return "; ".join(" ".join(part.split()) for part in parts)


def short(value, limit=120):
    text = json.dumps(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def ranges(cases):
    """1.1.1, 1.1.2, 1.1.3, 2.5 becomes 1.1.1 to 1.1.3, 2.5."""
    runs = []
    for case in cases:
        if runs and ALL.index(runs[-1][1]) + 1 == ALL.index(case):
            runs[-1][1] = case
        else:
            runs.append([case, case])
    return ", ".join(first if first == last else f"{first} to {last}" for first, last in runs)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def check_suite(python2):
    """The table above is the suite's own list."""
    listed = subprocess.run([python2, os.path.join(HERE, "suite.py"), "list"], timeout=60,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
    suite = json.loads(listed.stdout)
    if sorted(suite) != sorted(ALL):
        raise Incident(f"the suite's list of cases differs: {sorted(set(suite) ^ set(ALL))}")


def suite_version():
    with open(os.path.join(HERE, "requirements.txt")) as f:
        return re.search(r"^autobahntestsuite==(\S+)$", f.read(), re.M)[1]


def summary(roles):
    head = ["Role", "Group", "Cases", "Run", "OK", "Informational", "Failed", "Missing", "Seconds"]
    rows = [head] + [row for role in roles for row in role.rows()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    rule = ["-" * w if i < 2 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    lines = [f"Autobahn test suite {suite_version()}, "
             + ", ".join(f"{role.name} in {role.seconds:.0f} s" for role in roles) + ".", ""]
    for row in [head, rule] + rows[1:]:
        cells = (c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths)))
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", f"Informational is a pass for {', '.join(sorted(INFORMATIONAL))} alone: "
              "the suite has no other verdict there."]
    complaints = [c for role in roles for c in role.complaints()]
    if complaints:
        lines += ["", "Failures:", ""] + [f"- {c}" for c in complaints]
    return "\n".join(lines) + "\n"


TABLE_BEGINS, TABLE_ENDS = "<!-- written by tests/autobahn/run.sh -->\n", "<!-- until here -->\n"


def verdict_of(role, case):
    """OK, or the first verdict that is something else: on the case itself, then on the close."""
    verdict = role.verdicts.get(case, {"behavior": "MISSING"})
    behaviors = (str(verdict.get(key)) for key in ("behavior", "behaviorClose"))
    return next((behavior for behavior in behaviors if behavior != "OK"), "OK")


def table(roles):
    """All cases of all roles in Markdown. Nothing in it changes with the hour or the machine."""
    head = ["Group", "Cases"] + [f"{role.name.capitalize()}: {column}" for role in roles
                                 for column in ("OK", "INFORMATIONAL", "other")]
    groups = [(f"{group} {title}", [c for c in ALL if group_of(c) == group])
              for group, (title, _, _) in GROUPS.items()]
    lines = [f"autobahntestsuite {suite_version()}, {TOTAL} cases in each role:", "",
             "| " + " | ".join(head) + " |",
             "| --- |" + " ---: |" * (len(head) - 1)]
    for title, cases in groups + [("all", ALL)]:
        cells = [title, len(cases)]
        for role in roles:
            verdicts = [verdict_of(role, c) for c in cases]
            ok, informational = verdicts.count("OK"), verdicts.count("INFORMATIONAL")
            cells += [ok, informational, len(cases) - ok - informational]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    lines.append("")
    for role in roles:
        others = [f"{case} {verdict_of(role, case)}" for case in ALL if verdict_of(role, case) != "OK"]
        lines += [f"Not OK as {role.name}: {', '.join(others) or 'none'}.", ""]
        lines += [f"Incident: {incident}.\n" for incident in role.incidents]
    return "\n".join(lines) + "\n"


def write_table(path, roles):
    """Replaces what stands between the two marks of a page."""
    with open(path) as f:
        before, _, rest = f.read().partition(TABLE_BEGINS)
    _, _, after = rest.partition(TABLE_ENDS)
    with open(path, "w") as f:
        f.write(f"{before}{TABLE_BEGINS}\n{table(roles)}{TABLE_ENDS}{after}")


def has_marks(path):
    try:
        with open(path) as f:
            _, begins, rest = f.read().partition(TABLE_BEGINS)
    except OSError:
        return False
    return bool(begins) and TABLE_ENDS in rest


def leave(number, _frame):
    raise SystemExit(128 + number)


def main():
    parser = argparse.ArgumentParser(
        prog="autobahn", usage="see run.sh --help", add_help=False, allow_abbrev=False)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--cases", action="append", default=[])
    parser.add_argument("--timeout", type=float)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--server")
    parser.add_argument("--client")
    parser.add_argument("--python2")
    parser.add_argument("--out")
    parser.add_argument("--table")
    parser.add_argument("--tls", action="store_true")
    options = parser.parse_args()
    try:
        options.selection = select(options.cases, options.full)
        if options.table and options.selection != ALL:
            raise ValueError("--table is about all cases: it needs --full")
        if options.table and not has_marks(options.table):
            raise ValueError(f"{options.table} has no place for a table: {TABLE_BEGINS.strip()} ... {TABLE_ENDS.strip()}")
    except ValueError as error:
        parser.error(str(error))
    if options.timeout is None:
        options.timeout = 1800 if any(group_of(c) > 10 for c in options.selection) else 300
    if options.check:
        return 0

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGHUP, leave)
    options.out = os.path.abspath(options.out)
    # A name without a slash is a file here, as in the shell's `ls`, not one to look up in PATH.
    roles = [Role(name, os.path.abspath(binary), options)
             for name, binary in [("server", options.server), ("client", options.client)] if binary]
    try:
        check_suite(options.python2)
    except (Incident, OSError, ValueError, subprocess.SubprocessError) as error:
        print(f"autobahn: {error}", file=sys.stderr)
        return 2
    os.makedirs(options.out, exist_ok=True)
    summary_path = os.path.join(options.out, "summary.md")
    if os.path.exists(summary_path):
        os.remove(summary_path)  # never an older run's
    for role in roles:
        print(f"{role.name} role: {len(role.cases)} cases ...", flush=True)
        role.run()
    text = summary(roles)
    with open(summary_path, "w") as f:
        f.write(text)
    print()
    print(text)
    if options.table:
        write_table(options.table, roles)
    passed, failed = sum(r.passed() for r in roles), sum(r.failed() for r in roles)
    print(f"{passed} passed, {failed} failed")
    return 0 if failed == 0 and passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
