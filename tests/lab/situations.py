"""Connections brought into a state, for the tests of its rows."""

import time

from lab import BACKLOG, CUT, equal

COUNT, SIZE = map(int, CUT.split())


def closing(start, **options):
    """A connection in LocalClosing whose Close (4000) its peer has seen."""
    lab = start(**{"close_timeout": 3000, "log_messages": True, **options})
    peer = lab.peer("/closing")
    peer.text("close 4000 ours")
    peer.expect_close(4000, "ours")
    return lab, peer


def blocked(start, **options):
    """A connection with a backlog that its peer does not read: its first message is cut on the wire."""
    lab = start(
        **{
            "max_backlog": BACKLOG,
            "stall_timeout": "off",
            "close_timeout": 4000,
            "log_messages": True,
            **options,
        }
    )
    peer = lab.peer("/blocked")
    peer.text(f"flood {CUT}")
    flood = lab.wait("flood", id=peer.id)
    equal(flood["accepted"], COUNT, "accepted")
    time.sleep(0.1)
    return lab, peer, flood


def failing(start, **options):
    """A connection that is failing and cannot flush: its peer reads nothing."""
    lab = start(max_backlog=BACKLOG, stall_timeout="off", **{"close_timeout": 2000, **options})
    peer = lab.peer("/failing")
    peer.text(f"flood {CUT}")
    flood = lab.wait("flood", id=peer.id)
    time.sleep(0.1)
    peer.send(3, b"reserved opcode")
    lab.wait("closing", id=peer.id)
    return lab, peer, flood
