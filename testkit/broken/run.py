#!/usr/bin/env python3
"""Breaks rules of the crate on purpose, one at a time in a copy, and looks for the check of the simulation that notices.

    testkit/broken/run.py               break each of them, and print a table
    testkit/broken/run.py drain         those whose description or check has this word; `loops` is the word of worlds of several loops
    testkit/broken/run.py --list        only see whether each can still be broken: its text occurs once

A rule is a text of one file and what takes its place. It is noticed if the check that it names is the first one to fail in
one of WORLDS worlds from seed 0 upwards; another check, or none, is an error.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
COPY = ROOT / "target" / "broken"
WORLDS = "3000"
# Optimised a little: it is built for each rule. Assertions of the crate's own would notice some of them first.
PROFILE = {"CARGO_PROFILE_DEV_OPT_LEVEL": "1", "CARGO_PROFILE_DEV_DEBUG_ASSERTIONS": "false"}

# What is broken, the check that fails first, the file, its text, what takes its place.
RULES = [
    ("nobody is probed before it is judged", "probed_before_judged", "src/hub/schedule.rs",
     "let probe = entry.begin_probe(entry.conn.probe(self.now, &self.config), self.turn.number);",
     "let probe = Probe::default();"),
    ("a connection writes as much as the kernel takes", "writes_are_shared", "src/hub/slot.rs",
     "config.event_loop.write_bytes_per_turn.saturating_sub(usize::from(self.written) << 10)",
     "config.event_loop.write_bytes_per_turn.saturating_mul(1000)"),
    ("`Drain` comes as often in a turn as everything is written", "one_drain_per_turn", "src/hub/schedule.rs",
     "!over && !share.drained && pending.take(Pending::DRAIN)", "!over && pending.take(Pending::DRAIN)"),
    ("a `Drain` that is owed does not come", "an_owed_drain_comes", "src/conn/transport.rs",
     "if self.drain_owed.get() && self.queued() == 0 {", "if self.drain_owed.get() && self.queued() > 0 {"),
    ("a turn has no budget", "a_turn_is_bounded", "src/hub/schedule.rs",
     "self.turn.bytes == 0 || self.turn.callbacks == 0", "self.turn.number == 0 && self.turn.callbacks == 0"),
    ("a connection is read until it is drained", "reads_are_shared", "src/hub/slot.rs",
     "u32::from(self.reads) < config.event_loop.reads_per_turn",
     "u32::from(self.reads) < 200 + config.event_loop.reads_per_turn"),
    ("a panic loses the rest of what was read", "all_that_was_sent_is_delivered", "src/hub/driver.rs",
     "self.hub.recover(slot, bytes.unwrap_or_default());",
     "self.hub.recover(slot, bytes.and_then(|bytes| bytes.get(..0)).unwrap_or_default());"),
    ("a short write does not wait for room", "what_fits_is_written", "src/hub/driver.rs",
     "transport.await_writable(slot, hub.is_closing(slot))", "Ok(())"),
    ("the flush budget is over and nothing is dropped", "dropped_is_dropped", "src/conn/apply.rs",
     "Effect::DropUnbegun => self.drop_unbegun(cx),", "Effect::DropUnbegun => {}"),
    ("an abort does not count what it drops", "conservation", "src/conn/apply.rs",
     "            closing.count(dropped.unwrap_or_default());\n        }\n    }\n\n    /// How the abort",
     "        }\n    }\n\n    /// How the abort"),
    ("a timer begins before its callback returns", "no_timer_is_early", "src/hub/timers.rs",
     "self.put(timer, at.after(by));", "self.put(timer, at.after(by / 2));"),
    ("timers outlive their connection", "data_until_close", "src/hub/table.rs",
     "self.timers.clear_all(id);", "let _ = id;"),
    ("a stall begins and the loop does not wake up for it", "woken_for_every_deadline", "src/conn/transport.rs",
     "                if !waited {\n                    self.pending.add(Pending::DEADLINE);\n                }\n", ""),
    ("whatever is offered ends a stall", "what_is_due_is_done", "src/conn/outbox.rs",
     "waited.filter(|_| !progressed).or(Some(now))", "waited.filter(|_| false).or(Some(now))"),
    ("a stall goes on although the kernel takes a part", "abort_has_a_reason", "src/conn/outbox.rs",
     "waited.filter(|_| !progressed).or(Some(now))", "waited.or(Some(now))"),
    ("a stall goes on although the kernel takes all", "abort_has_a_reason", "src/conn/outbox.rs",
     "let waited = queue.refused.take();", "let waited = queue.refused;"),
    ("lingering takes no time", "lingers_until_its_end", "src/conn/timers.rs",
     "                Some(since.after(self.settings(config).linger_timeout))\n", "                Some(*since)\n"),
    ("whoever sends too much while it lingers is closed by a FIN", "too_much_is_reset", "src/conn/state.rs",
     "to(Closed, [E::Release(*exceeded)])", "to(Closed, [E::Release(*exceeded && false)])"),
    ("a 503 does not say when to come again", "the_answer_says_why", "src/hub/upgrade.rs",
     "Response::unavailable(self.config.handshake.retry_after)", "Response::unavailable(std::time::Duration::ZERO)"),
    ("a listener that was handed over stays open", "listeners_are_as_planned", "src/hub/sweep/shutdown.rs",
     "LameDuckPolicy::Close | LameDuckPolicy::HandOver => false,", "LameDuckPolicy::Close | LameDuckPolicy::HandOver => true,"),
    ("a shutdown that was asked for is not said", "not_ready_from_the_call_on", "src/hub/sweeping.rs",
     "self.shutdown_asked.store(true, Ordering::Release);", "self.shutdown_asked.store(false, Ordering::Release);"),
    ("an abort hides whole messages by a FIN", "no_fin_before_what_waits", "src/conn/apply.rs",
     "Abort::Auto if closing.end.queued > 0 => Abort::Reset,", "Abort::Auto if closing.end.queued > 1 << 40 => Abort::Reset,"),
    ("an abort without a backlog is a reset", "no_reset_without_a_backlog", "src/conn/apply.rs",
     "Abort::Auto if closing.end.queued > 0 => Abort::Reset,", "Abort::Auto if closing.end.queued < 1 << 40 => Abort::Reset,"),
    ("every sweep is at once", "a_sweep_keeps_its_pace", "src/hub/sweep.rs",
     "Chosen::new(id, doing, pace, now)", "Chosen::new(id, doing, std::hint::black_box((pace, Pace::AtOnce)).1, now)"),
    ("a connection that lingers is counted as closing", "every_state_is_counted", "src/hub/table.rs",
     "State::Lingering => &mut self.stats.lingering,", "State::Lingering => &mut self.stats.closing,"),
    ("the duration ends with the first Close", "close_duration", "src/conn/closing.rs",
     "duration: now.since(self.times.opened),", "duration: now.since(self.times.opened) / 2,"),
    ("a soft sweep leaves deferred upgrades waiting", "soft_sweep_misses_nobody", "src/hub/sweeping.rs",
     "if conn.deferred().is_some() {", "if conn.deferred().is_some_and(|_| false) {"),
    ("a soft sweep has no pace", "a_soft_sweep_keeps_its_rate", "src/hub/sweep/shutdown.rs",
     "let immediate = self.schedule.is_immediate();", "let immediate = self.schedule.is_immediate() || self.late < usize::MAX;"),
    ("a sweep looks at everybody in one turn", "sweeps_have_slices", "src/hub/sweeping.rs",
     "            *left -= 1;\n            let Some(id) = self.matching", "            let Some(id) = self.matching"),
    ("a hard sweep ends everybody in one turn", "a_hard_sweep_has_slices", "src/hub/sweep/shutdown.rs",
     "        self.left_in_turn -= 1;\n", ""),
    ("a sweep takes those that open later", "sweeps_know_no_later_ones", "src/hub/sweep/chosen.rs",
     "opened < self.began || opened == self.began && !self.later.contains(&id)",
     "opened < self.began || !self.later.contains(&id)"),
    ("an escalation is not reported", "report_escalation", "src/hub/sweep/shutdown.rs",
     "ShutdownPhase::HardSweep | ShutdownPhase::Done => return,\n        }\n        self.report.escalated_by.get_or_insert(by);",
     "ShutdownPhase::HardSweep | ShutdownPhase::Done => return,\n        }\n        let _ = by;"),
    ("a short write is not counted", "what_happened_was_counted", "src/conn/transport.rs",
     "common.totals.short_writes += 1;", ""),
    ("every message makes a `Drain` owed", "a_drain_has_a_reason", "src/conn/transport.rs",
     "if queued >= DRAIN_FROM {", "if queued >= DRAIN_FROM / (16 << 10) {"),
    ("there is one connection more than there may be", "connections_are_limited", "src/hub/admission.rs",
     "            limits: Limits {\n                connections: settings.max_connections,",
     "            limits: Limits {\n                connections: settings.max_connections + 1,"),
    ("a pause that was forgotten has no end", "woken_for_every_deadline", "src/conn/timers.rs",
     "paused.closes = Some(closes);", "paused.closes = Some(closes).filter(|_| false);"),
    ("a message has what its buffer had before, after a short read", "nothing_but_what_was_sent",
     "src/conn/arriving.rs", "self.len = self.bytes.len().min(self.len + n);", "self.len = self.bytes.len();"),
    ("a message has what its buffer had before, at its end", "message_is_what_was_sent",
     "src/conn/arriving.rs", "self.bytes.truncate(self.len);\n        self.bytes\n", "self.bytes\n"),
    ("a part of a large message is sent on as the whole", "conservation_of_bytes", "src/conn/output.rs",
     "std::ptr::eq(message.as_slice(), payload)", "std::ptr::eq(message.as_ptr(), payload.as_ptr())"),
    ("a large message that is sent on counts for no backlog", "backlogs_are_counted", "src/conn/backlog.rs",
     "        self.chunks.push_back(Chunk::Payload(payload));\n        self.grow(len, backlogs);\n",
     "        self.chunks.push_back(Chunk::Payload(payload));\n        self.len += len;\n"),
    ("a compressor that is given back takes the inflater with it", "close_has_a_reason", "src/conn/deflate.rs",
     "self.deflater = None;", "(self.deflater, self.inflater) = (None, None);"),
    ("a compressed message refers to earlier ones, which was not agreed on", "whole_frames_on_the_wire",
     "src/conn/deflate.rs", "sends_keeping: !agreed.server_no_context_takeover,", "sends_keeping: true,"),
    ("a compressed message is inflated without those before it", "close_has_a_reason",
     "src/conn/deflate.rs", "receives_keeping: !agreed.client_no_context_takeover,", "receives_keeping: false,"),
    ("what is encrypted may be dropped", "what_is_encrypted_stays", "src/conn/backlog.rs",
     "self.ahead = bytes.min(self.len);", "self.ahead = bytes.min(0);"),
    ("who was refused for what others hold gets no `Drain`", "who_waits_for_room_gets_it", "src/conn/commands.rs",
     "cx.common.waiting.add(cx.id, fresh);", ""),
    ("all backlogs together may hold any amount", "send_answers", "src/conn/commands.rs",
     "if fresh > 0 && !output.fits(fresh) {", "if fresh > usize::MAX - 1 && !output.fits(fresh) {"),
    ("a layer that has more is not asked again", "input_is_not_forgotten", "src/hub/layer_events.rs",
     "        noticed.more\n", "        false\n"),
    ("a stream that was cut looks like one that has ended", "truncation_is_reported", "src/conn/closing.rs",
     "self.fin.is_some_and(|fin| fin.truncated)", "self.fin.is_some_and(|_| false)"),
]

# The same for the worlds of several loops.
LOOPS = [
    ("each loop closes at the whole rate", "a_rate_is_shared", "src/hub/sweep/pace.rs",
     "rate * own / (own + as_f64(elsewhere))", "rate * own / (own + 0.0 * as_f64(elsewhere))"),
    ("each loop has an equal part of the rate", "shutdown_ends_by_its_bound", "src/hub/sweep/pace.rs",
     "rate * own / (own + as_f64(elsewhere))", "(rate + 0.0 * own + 0.0 * as_f64(elsewhere)) / 4.0"),
    ("what a loop is asked is its own", "shutdown_reaches_every_loop", "src/hub/sweep.rs",
     "self.requests.push(request);", "let _ = request;"),
    ("loops number their connections alike", "ids_do_not_collide", "src/id.rs",
     "Self((worker as u64) << 56", "Self((worker as u64 & 0) << 56"),
    ("the id of another loop is as good", "ids_of_others_name_nobody", "src/hub/slot.rs",
     "&& loop_number == id.loop_number() ", "&& (loop_number == id.loop_number() || loop_number != id.loop_number()) "),
    ("a connect that fails at once is reported in its turn", "failed_connects_are_reported_in_the_next_turn", "src/hub/dialling.rs",
     "            self.failed_connects.push(FailedConnect { id, address: target.address(), kind: error.kind() });",
     "            let address = target.address();\n"
     "            self.hub.handle_connect_failed_at_once(&FailedConnect { id, address, kind: error.kind() });"),
    ("a connection's end takes the loop's timers with it", "timers_fire", "src/hub/timers.rs",
     "self.due.range((Some(id), 0)..=(Some(id), u64::MAX))", "self.due.range((None, 0)..=(Some(id), u64::MAX))"),
    ("what was read before an adoption is lost", "messages_in_order", "src/hub/adopting.rs",
     "Conn::adopted(newcomer, role, &received, ", "Conn::adopted(newcomer, role, &received[received.len()..], "),
    ("those who come by a proxy are not counted", "limits_count_the_header", "src/hub/upgrade.rs",
     "self.admission.take_share(address);", ""),
    ("anybody may speak for others", "the_header_decides", "src/newcomer.rs",
     "(false, false) => HeaderRule::Forbidden,", "(false, false) => HeaderRule::Optional,"),
]


def source(path):
    return (ROOT / path).read_text()


def copy():
    """The tracked files, each only if it has changed: cargo looks at their times."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    names = set(names.decode().split("\0"))
    for old in (COPY / "source").rglob("*"):
        if old.is_file() and str(old.relative_to(COPY / "source")) not in names:
            old.unlink()
    for name in names:
        old, new = ROOT / name, COPY / "source" / name
        if name and old.is_file() and not (new.is_file() and new.read_bytes() == old.read_bytes()):
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(old, new)


def run(kind):
    """The first check that fails, and in which world of this kind."""
    env = {**os.environ, **PROFILE, "CARGO_TARGET_DIR": str(COPY / "target")}
    command = ["cargo", "run", "--quiet", "--locked", "-p", "adjourn-testkit", "--example", "simulate", "--"]
    command += ["--worlds", WORLDS, "--connections", "24", "--seed", "0", *kind]
    done = subprocess.run(command, cwd=COPY / "source", env=env, capture_output=True, text=True)
    failed = re.search(r"^check (\w+) failed in world (\d+)", done.stdout, re.MULTILINE)
    if failed is None and done.returncode != 0:
        sys.exit(done.stderr)
    return failed.groups() if failed else ("none", "-")


def main():
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    rules = [(*rule, []) for rule in RULES] + [(*rule, ["--loops"]) for rule in LOOPS]
    rules = [rule for rule in rules if all(word in f"{rule[0]} {rule[1]} {rule[5]}" for word in words)]
    gone = [rule[0] for rule in RULES + LOOPS if source(rule[2]).count(rule[3]) != 1]
    if gone or "--list" in sys.argv:
        sys.exit("".join(f"its text does not occur once: {what}\n" for what in gone) or 0)
    copy()
    wrong = 0
    print("| Broken | Check | Seed |\n|---|---|---|", flush=True)
    for what, check, path, old, new, kind in rules:
        (COPY / "source" / path).write_text(source(path).replace(old, new))
        found, seed = run(kind)
        (COPY / "source" / path).write_text(source(path))
        wrong += found != check
        expected = "" if found == check else f" instead of `{check}`"
        print(f"| {what} | `{found}`{expected} | {seed} |", flush=True)
    sys.exit(wrong)


main()
