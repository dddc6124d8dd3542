"""Starts one role of the Autobahn test suite. Python 2.7, in the suite's own environment.

    suite.py list           prints the ids of all cases as JSON
    suite.py client SPEC    the fuzzing client, until it is through with the server of SPEC
    suite.py server SPEC    the fuzzing server, until SIGTERM; prints `listening on ws://127.0.0.1:PORT`

Stands in for the suite's `wstest` because of two of its habits: its server listens on all
interfaces, and a run that is cut short leaves no report. Here the server is bound to the loopback
interface on a port that the kernel picks, and what has been recorded is written on SIGTERM too.
"""
from __future__ import print_function

import json
import sys

from autobahntestsuite import choosereactor  # noqa: F401 (before all else of Twisted)
from autobahntestsuite import fuzzing
from autobahntestsuite.case import CaseBasename, Cases
from twisted.internet import reactor
from twisted.python import log


class Recorded(object):
    """Knows whether there are results that no report holds yet."""

    unwritten = False

    def logCase(self, result):
        self.unwritten = True
        self.base.logCase(self, result)

    def createReports(self, *args, **kwargs):
        self.base.createReports(self, *args, **kwargs)
        self.unwritten = False

    def write_rest(self):
        if self.unwritten:
            print("Writing what was recorded before the end.")
            self.createReports()


class Client(Recorded, fuzzing.FuzzingClientFactory):
    base = fuzzing.FuzzingClientFactory


class Server(Recorded, fuzzing.FuzzingServerFactory):
    base = fuzzing.FuzzingServerFactory


def show_errors(event):
    if event.get("isError"):
        sys.stderr.write("%s\n" % log.textFromEventDict(event))


def main(argv):
    if argv == ["list"]:
        print(json.dumps([c.__name__[len(CaseBasename):].replace("_", ".") for c in Cases]))
        return 0
    if len(argv) != 2 or argv[0] not in ("client", "server"):
        sys.stderr.write(__doc__)
        return 2
    with open(argv[1]) as f:
        spec = json.load(f)
    # Twisted wants byte strings for addresses.
    log.addObserver(show_errors)
    if argv[0] == "client":
        for server in spec["servers"]:
            server["url"] = str(server["url"])
        factory = Client(spec)
    else:
        spec["url"] = "ws://127.0.0.1:1"  # the port is known only after listening
        factory = Server(spec)
        port = reactor.listenTCP(0, factory, interface="127.0.0.1").getHost().port
        factory.setSessionParameters(url="ws://127.0.0.1:%d" % port, server=factory.server)
        print("listening on ws://127.0.0.1:%d" % port)
    reactor.addSystemEventTrigger("before", "shutdown", factory.write_rest)
    reactor.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
