"""the closing specification section 9: sweeps by predicate."""

import time

from lab import BACKLOG, MANY, SLACK_MS, check, equal, on_time, record


def s9_close_where(start):
    """Section 9: close_where by prefix: the matched get the frame, the others do not notice; one SweepDone."""
    lab = start(close_timeout=3000)
    banned = [lab.peer(f"/ban/{i}") for i in range(5)]
    free = [lab.peer(f"/free/{i}") for i in range(5)]
    lab.command("close-where /ban 4010 banned you are")
    for peer in banned:
        peer.expect_close(4010, "banned you are")
    check(not lab.all("sweep_done"), "SweepDone before the last of its own has ended")
    for peer in banned:
        peer.close(4010)
    event = lab.wait("sweep_done")
    equal(
        (event["matched"], event["clean"], event["timed_out"], event["lost_messages"]),
        (5, 5, 0, 0),
        "SweepDone",
    )
    for peer in banned:
        record(peer.closed(), 4010, 4010, True, "Local")
    for peer in free:
        peer.expect_alive()
    equal(len(lab.all("sweep_done")), 1, "the number of SweepDone")


def s9_close_where_timed_out(start):
    """Section 9: SweepDone counts clean and timed out, and comes when the last of its own has ended."""
    lab = start(close_timeout=500)
    peers = [lab.peer("/x") for _ in range(4)]
    began = time.monotonic()
    lab.command("close-where /x 4000 go")
    for peer in peers[:2]:
        peer.expect_close(4000, "go")
        peer.close(4000)
    event = lab.wait("sweep_done")
    on_time(event["at"] - began, 500, "SweepDone", late_ms=50)
    equal((event["matched"], event["clean"], event["timed_out"]), (4, 2, 2), "SweepDone")
    causes = {p.closed()["cause"] for p in peers[2:]}
    equal(causes, {"CloseTimeout"}, "the causes")


def s9_close_where_counts_the_lost(start):
    """Section 9: SweepDone counts the messages lost."""
    lab = start(close_timeout=600, max_backlog=BACKLOG, stall_timeout="off")
    peer = lab.peer("/x")
    peer.text(f"flood {MANY}")
    lab.wait("flood", id=peer.id)
    lab.command("close-where /x 4000 go")
    event = lab.wait("sweep_done")
    lost = peer.closed()["lost"]
    check(lost["messages"] <= event["lost_messages"] <= lost["messages"] + lost["partial"], f"{event} of {lost}")
    check(event["lost_messages"] > 0, "nothing lost")


def s9_close_where_matches_nobody(start):
    """Section 9: each sweep gives one SweepDone, an empty one too."""
    lab = start()
    peer = lab.peer("/there")
    lab.command("close-where /nowhere 4000 x")
    event = lab.wait("sweep_done")
    equal((event["matched"], event["clean"], event["timed_out"]), (0, 0, 0), "SweepDone")
    peer.expect_alive()


def s9_close_where_excludes_later_ones(start):
    """Section 9: connections opened later are not included."""
    lab = start(close_timeout=1500)
    early = lab.peer("/x")
    lab.command("close-where /x 4000 go")
    early.expect_close(4000, "go")
    late = lab.peer("/x")
    late.expect_alive()
    equal(lab.wait("sweep_done")["matched"], 1, "matched")
    late.expect_alive()


def s9_close_where_matches_open_ones_only(start):
    """Section 9: close_where matches Open connections: one already closing keeps its frame."""
    lab = start(close_timeout=1500)
    closing, opened = lab.peer("/x"), lab.peer("/x")
    closing.text("close 4001 first")
    closing.expect_close(4001, "first")
    lab.command("close-where /x 4000 sweep")
    opened.expect_close(4000, "sweep")
    opened.close(4000)
    equal(lab.wait("sweep_done")["matched"], 1, "matched")
    closing.expect_silence(0.1)
    closing.close(4001)
    record(closing.closed(), 4001, 4001, True, "Local", "LocalClose")


def s9_close_where_includes_the_asker(start):
    """Section 9: the predicate sees every connection, that of the callback too."""
    lab = start(close_timeout=1500)
    peer = lab.peer("/self")
    peer.text("close-where /self 4000 me too")
    peer.expect_close(4000, "me too")
    peer.close(4000)
    equal(lab.wait("sweep_done")["matched"], 1, "matched")


def s9_terminate_where(start):
    """Section 9: terminate_where matches all that are not Lingering; Terminated, at once."""
    lab = start(close_timeout=5000)
    opened, closing, other = lab.peer("/x/open"), lab.peer("/x/closing"), lab.peer("/y")
    closing.text("close 4000 x")
    closing.expect_close(4000, "x")
    lingering = lab.peer("/x/lingering")
    lingering.close(1000)
    lingering.expect_close(1000)
    lingering.closed()
    began = time.monotonic()
    lab.command("terminate-where /x")
    event = lab.wait("sweep_done")
    check(event["at"] - began < 0.3, "SweepDone came late")
    equal((event["matched"], event["clean"]), (2, 0), "SweepDone")
    record(opened.closed(), 1006, 1006, False, "Local", "Terminated")
    record(closing.closed(), 1006, 4000, False, "Local", "Terminated")
    equal(opened.recv_end(), "reset", "the end")
    lingering.expect_end("fin")
    other.expect_alive()


def s9_two_sweeps_at_once(start):
    """Section 9: each sweep gives one SweepDone, counting its own only."""
    lab = start(close_timeout=600)
    first, second = [lab.peer("/a") for _ in range(3)], [lab.peer("/b") for _ in range(2)]
    lab.command("close-where /a 4001 a")
    lab.command("close-where /b 4002 b")
    for peer in second:
        peer.expect_close(4002, "b")
        peer.close(4002)
    equal(lab.wait("sweep_done")["matched"], 2, "matched by the first to end")
    late = lab.wait("sweep_done", count=2)
    equal((late["matched"], late["timed_out"]), (3, 3), "the other SweepDone")
    for peer in first:
        equal(peer.closed()["effective_code"], 4001, "effective code")


def s9_sweep_of_many(start):
    """Section 9: a sweep in bounded slices reaches all, and the others are served meanwhile."""
    lab = start(close_timeout=3000)
    peers = [lab.peer("/many") for _ in range(500)]
    other = lab.peer("/other")
    lab.command("close-where /many 4000 all")
    began = time.monotonic()
    other.expect_alive()
    check(time.monotonic() - began < 0.2 + SLACK_MS / 1000, "nobody else was served")
    for peer in peers:
        peer.expect_close(4000, "all")
        peer.close(4000)
    event = lab.wait("sweep_done")
    equal((event["matched"], event["clean"]), (500, 500), "SweepDone")
