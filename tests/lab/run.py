#!/usr/bin/env python3
"""Black-box tests of how connections end: they know the closing specification, the lab's interface and RFC 6455, and drive `close_lab`.

    python3 tests/lab/run.py PATH/OF/close_lab [-k PATTERN] [-j N] [--slack MS] [--tls] [--list] [-v]

The name of a test says which section of the closing specification it is about (s3_..., s8_...), `lab_` is the lab's interface, `hostile_` is a
peer that means harm. Each test has server processes of its own. PATTERN is a regular expression searched in the names;
several -k are alternatives. With --tls everything is over TLS, with a certificate made here; a few tests are left out then, see LEFT_OUT. The last line is `N passed, M failed`; the exit status is 1 when something failed.
"""

import argparse
import concurrent.futures
import faulthandler
import importlib
import os
import pathlib
import re
import signal
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True
TEST_LIMIT_S = 60
# Not over TLS: what is about bytes on the wire and in the kernels, which are ciphertext then.
LEFT_OUT = r"(?!)"


def load():
    """{name: (function, row)} of all modules whose name begins with test_."""
    import lab

    found = {}
    for path in sorted(HERE.glob("test_*.py")):
        for name, body, row in lab.tests_of(importlib.import_module(path.stem)):
            if name in found:
                raise SystemExit(f"two tests are called {name}")
            found[name] = (body, row)
    return found


def too_long(_signal, _frame):
    raise TimeoutError(f"the test took longer than {TEST_LIMIT_S} s")


def run_one(name, binary):
    """None when the test passed, else (reason, traceback). Runs in a process of its own."""
    import lab

    body, row = load()[name]
    labs = []

    def start(**options):
        labs.append(lab.Lab(binary, options))
        return labs[-1]

    start.binary = binary
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(TEST_LIMIT_S)
    started = time.monotonic()
    outcome = None
    try:
        body(start, *(row[1:] if row else ()))
        for one in labs:
            one.finish()
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}" if not isinstance(error, lab.Failure) else str(error)
        outcome = (reason, traceback.format_exc())
    finally:
        signal.alarm(0)
        for one in labs:
            one.kill()
    return name, time.monotonic() - started, outcome


def main():
    faulthandler.enable()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?", help="the close_lab to test")
    parser.add_argument("-k", action="append", metavar="PATTERN", help="only tests whose name matches")
    parser.add_argument("-j", type=int, default=4, metavar="N", help="tests at a time (default 4)")
    parser.add_argument("--slack", type=int, metavar="MS", help="tolerance for a noisy machine (default 150)")
    parser.add_argument("--tls", action="store_true", help="over TLS (a close_lab with the feature `tls`)")
    parser.add_argument("--list", action="store_true", help="names and rules, nothing is run")
    parser.add_argument("-v", action="store_true", help="a traceback for each failure")
    arguments = parser.parse_args()
    if arguments.slack is not None:
        os.environ["LAB_SLACK_MS"] = str(arguments.slack)
    tests = load()
    if arguments.tls:
        tests = {n: test for n, test in tests.items() if not re.match(LEFT_OUT, n)}
    names = [n for n in tests if not arguments.k or any(re.search(k, n) for k in arguments.k)]
    if arguments.list:
        for name in names:
            print(f"{name}: {' '.join(tests[name][0].__doc__.split())}")
        return 0
    if not arguments.binary or not os.access(arguments.binary, os.X_OK):
        parser.error(f"no close_lab at {arguments.binary}")
    if not names:
        parser.error("no test matches")
    binary = str(pathlib.Path(arguments.binary).resolve())

    scratch = tempfile.TemporaryDirectory()
    if arguments.tls:
        import tls

        os.environ["LAB_TLS"] = ":".join(tls.make_certificate(scratch.name))
    passed = failed = 0
    with concurrent.futures.ProcessPoolExecutor(max_workers=arguments.j) as pool:
        for future in concurrent.futures.as_completed([pool.submit(run_one, name, binary) for name in names]):
            name, took, outcome = future.result()
            if outcome is None:
                passed += 1
                print(f"ok    {name} ({took:.1f} s)", flush=True)
            else:
                failed += 1
                print(f"FAIL  {name}: {outcome[0]}", flush=True)
                if arguments.v:
                    print(outcome[1], flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
