//! Sessions: saving by generation, attaching, the start of the replay, epochs, expiry (specification 13, 14).

use adjourn_socketio::packet::Query;
use adjourn_socketio::store::{
    Attach, AttachError, LogLimits, Membership, MemoryStore, NodeId, Parts, ResumeRefusal, SessionChange,
    SessionRecord, Store as _, StoreSettings,
};

use crate::disk::{ask, at, change, context, fill, limits, save, session, settings};
use crate::on_every_store;

/// The refusal, and what the client has received.
fn refusal(parts: &mut Parts, pid: &str, offset: Option<&str>, now: u64) -> (ResumeRefusal, u64) {
    match parts.writer.attach(&ask(pid, offset), now) {
        Err(AttachError::Refused { why, received }) => (why, received.number),
        other => panic!("not refused: {other:?}"),
    }
}

fn start(parts: &mut Parts, pid: &str, offset: Option<&str>) -> u64 {
    parts.writer.attach(&ask(pid, offset), 0).expect("attaches").start.number
}

fn member(room: &str, from: u64, to: Option<u64>) -> Membership {
    Membership { room: room.into(), from: at(from), to: to.map(at) }
}

on_every_store! {
    fn a_session_is_attached_as_it_was_saved(disk) {
        let mut parts = disk.open(0);
        fill(&mut parts, "/", 9, 0);
        let record = SessionRecord {
            principal: "".into(),
            first: at(2),
            checkpoint: at(5),
            last: at(4),
            earlier: vec![(at(4), at(3)), (at(2), at(2))],
            data: Some("{\"ü\":1}".into()),
            answered: vec![7, (1 << 52) - 1],
            memberships: vec![member("a", 2, Some(4)), member("a", 5, None), member("ü", 3, None)],
            away: Some(40),
            ..session("p")
        };
        assert!(save(&mut parts, record.clone(), 40));
        let attached = parts.writer.attach(&ask("p", Some("1-6")), 50).expect("attaches");
        assert_eq!((attached.away, attached.start, attached.tail), (Some(40), at(6), at(9)));
        let mut expected = SessionRecord { generation: 2, away: None, ..record };
        let mut found = attached.session;
        for record in [&mut expected, &mut found] {
            record.memberships.sort_by(|a, b| (&a.room, a.from).cmp(&(&b.room, b.from)));
        }
        assert_eq!(found, expected);
    }

    fn a_save_replaces_data_and_memberships(disk) {
        let mut parts = disk.open(0);
        fill(&mut parts, "/", 9, 0);
        for memberships in [
            vec![member("a", 0, None), member("b", 0, None)],
            vec![member("a", 0, Some(3)), member("b", 0, None), member("a", 3, None)],
            vec![member("b", 0, None)],
            vec![member("c", 9, Some(9)), member("c", 9, None)],
            vec![],
        ] {
            let mut parts_of = parts.writer.attach(&ask("p", None), 0).ok().map(|attached| attached.session);
            let mut record = parts_of.take().unwrap_or_else(|| session("p"));
            record.memberships.clone_from(&memberships);
            assert!(save(&mut parts, record, 0));
            let found = parts.writer.attach(&ask("p", None), 0).expect("attaches").session.memberships;
            // Of two intervals that begin at one position the later one counts: the first is empty.
            for membership in memberships.iter().rev().take(1).chain(memberships.iter().filter(|m| m.from != at(9))) {
                assert!(found.contains(membership), "{membership:?} in {found:?}");
            }
            assert!(found.len() <= memberships.len());
        }
    }

    fn generations_only_grow_and_fence_older_holders(disk) {
        let mut parts = disk.open(0);
        assert!(save(&mut parts, session("p"), 0));
        let second = parts.writer.attach(&ask("p", None), 0).expect("attaches").session;
        assert_eq!(second.generation, 2);
        assert!(!save(&mut parts, SessionRecord { away: Some(1), ..session("p") }, 1), "saved by generation 1");
        assert!(!change(&mut parts, SessionChange::Remove { namespace: "/".into(), pid: "p".into(), generation: 1 }, 1));
        assert!(save(&mut parts, SessionRecord { data: Some("{}".into()), ..second }, 1));
        assert_eq!(parts.writer.attach(&ask("p", None), 0).expect("attaches").session.generation, 3);
        assert!(change(&mut parts, SessionChange::Remove { namespace: "/".into(), pid: "p".into(), generation: 3 }, 1));
        assert_eq!(refusal(&mut parts, "p", None, 1).0, ResumeRefusal::UnknownSession);
        assert!(!save(&mut parts, SessionRecord { generation: 3, ..session("p") }, 1), "a removed session came back");
    }

    fn a_refusal_says_why_and_changes_nothing(disk) {
        let mut parts = disk.open(0);
        fill(&mut parts, "/", 9, 0);
        parts.writer.trim("/", &LogLimits { entries: 6, ..limits() }, 0).expect("trims");
        let away = SessionRecord { checkpoint: at(4), last: at(2), away: Some(100), ..session("p") };
        assert!(save(&mut parts, away, 100));
        assert!(save(&mut parts, SessionRecord { principal: "ada".into(), ..session("ada") }, 100));
        assert!(save(&mut parts, SessionRecord { namespace: "/b".into(), ..session("b") }, 100));
        for (pid, offset, now, why, received) in [
            ("unknown", Some("1-6"), 100, ResumeRefusal::UnknownSession, 6),
            ("b", None, 100, ResumeRefusal::UnknownSession, 0),
            ("ada", None, 100, ResumeRefusal::PrincipalMismatch, 0),
            ("p", Some("1-6"), 10_100, ResumeRefusal::Expired, 6),
            ("p", Some("1-10"), 100, ResumeRefusal::OffsetInvalid, 9),
            ("p", Some("1-1"), 100, ResumeRefusal::OffsetTrimmed { floor: at(3) }, 1),
        ] {
            assert_eq!(refusal(&mut parts, pid, offset, now), (why, received), "{pid} {offset:?} at {now}");
        }
        let attached = parts.writer.attach(&ask("p", Some("1-5")), 10_099).expect("attaches");
        assert_eq!((attached.session.generation, attached.away, attached.start), (2, Some(100), at(5)));
    }

    fn a_principal_is_checked_if_it_is_known(disk) {
        let mut parts = disk.open(0);
        assert!(save(&mut parts, SessionRecord { principal: "ada".into(), ..session("p") }, 0));
        for (principal, resumes) in [(Some("bob"), false), (Some(""), false), (Some("ada"), true), (None, true)] {
            let ask = Attach { principal: principal.map(Into::into), ..ask("p", None) };
            assert_eq!(parts.writer.attach(&ask, 0).is_ok(), resumes, "{principal:?}");
        }
    }

    fn the_replay_begins_at_the_offset_or_at_the_checkpoint(disk) {
        let mut parts = disk.open(0);
        fill(&mut parts, "/", 20, 0);
        let record = SessionRecord { first: at(3), checkpoint: at(12), last: at(8), ..session("p") };
        assert!(save(&mut parts, record, 0));
        for (offset, expected) in [
            (None, 3),                 // nothing received yet
            (Some("1-1"), 3),          // of an earlier session
            (Some("1-5"), 5),
            (Some("1-7"), 7),
            (Some("1-8"), 12),         // everything up to the checkpoint
            (Some("1-11"), 12),
            (Some("1-15"), 15),
            (Some("1-20"), 20),
            (Some("0-5"), 3),          // of an unknown epoch
            (Some("9-5"), 3),
            (Some("1-5-5"), 3),        // above the tail as a position, see below
        ] {
            if offset == Some("1-5-5") {
                assert_eq!(refusal(&mut parts, "p", offset, 0).0, ResumeRefusal::OffsetInvalid);
            } else {
                assert_eq!(start(&mut parts, "p", offset), expected, "{offset:?}");
            }
        }
    }

    fn an_event_that_was_lost_ends_no_quiet_session(disk) {
        let mut parts = disk.open(0);
        fill(&mut parts, "/", 30, 0);
        let earlier = vec![(at(20), at(5)), (at(15), at(5)), (at(10), at(4))];
        let record = SessionRecord { checkpoint: at(30), last: at(28), earlier, ..session("p") };
        assert!(save(&mut parts, record, 0));
        for (offset, expected) in [("1-4", 10), ("1-5", 20), ("1-21", 21), ("1-27", 27), ("1-28", 30)] {
            assert_eq!(start(&mut parts, "p", Some(offset)), expected, "{offset}");
        }
    }

    fn a_quiet_session_outlives_the_log_of_a_busy_namespace(disk) {
        let mut parts = disk.open(0);
        fill(&mut parts, "/", 20, 0);
        assert!(save(&mut parts, SessionRecord { checkpoint: at(18), last: at(2), ..session("p") }, 0));
        parts.writer.trim("/", &LogLimits { entries: 2, ..limits() }, 0).expect("trims");
        assert_eq!(start(&mut parts, "p", Some("1-2")), 18);
    }

    fn offsets_of_an_earlier_epoch_are_clamped_to_its_end(disk) {
        let mut parts = disk.open(0);
        fill(&mut parts, "/", 5, 0);
        assert!(save(&mut parts, session("p"), 0));
        drop(parts);
        let mut parts = disk.open(0);
        fill(&mut parts, "/", 5, 0);
        // The client was shown 8 by a process that died before it had logged it: 6 to 8 are others now.
        assert_eq!(start(&mut parts, "p", Some("1-8")), 5);
        assert_eq!(start(&mut parts, "p", Some("1-4")), 4);
        assert_eq!(start(&mut parts, "p", Some("2-8")), 8);
        drop(parts);
        let mut parts = disk.open(0);
        assert_eq!(start(&mut parts, "p", Some("1-8")), 5);
        assert_eq!(start(&mut parts, "p", Some("2-18")), 10);
        assert_eq!(refusal(&mut parts, "p", Some("3-11"), 0).0, ResumeRefusal::OffsetInvalid);
    }

    fn sessions_found_connected_are_away_since_the_start(disk) {
        let mut parts = disk.open(0);
        assert!(save(&mut parts, session("p"), 0));
        assert!(save(&mut parts, SessionRecord { away: Some(1_000), ..session("q") }, 1_000));
        drop(parts);
        let mut parts = disk.open(5_000);
        assert_eq!(parts.writer.attach(&ask("p", None), 14_999).expect("attaches").away, Some(5_000));
        assert_eq!(refusal(&mut parts, "q", None, 11_000).0, ResumeRefusal::Expired);
    }

    fn sessions_expire_once_and_oldest_first(disk) {
        let mut parts = disk.open(0);
        for (pid, away) in [("a", Some(300)), ("b", Some(100)), ("c", None), ("d", Some(200))] {
            assert!(save(&mut parts, SessionRecord { away, data: Some("{}".into()), ..session(pid) }, 0));
        }
        let mut gone = |now, max| {
            let gone = parts.writer.expire(now, max).expect("expires");
            gone.into_iter().map(|gone| (gone.sid.to_string(), gone.evicted)).collect::<Vec<_>>()
        };
        assert_eq!(gone(10_099, 9), []);
        assert_eq!(gone(10_300, 2), [("sid-of-b".into(), false), ("sid-of-d".into(), false)]);
        assert_eq!(gone(10_300, 2), [("sid-of-a".into(), false)]);
        assert_eq!(gone(99_999_999, 2), []);
    }

    fn too_many_sessions_drop_those_longest_away(disk) {
        let settings = StoreSettings { max_sessions: 2, ..settings() };
        let mut parts = disk.open_with(&settings, 0);
        for (pid, away) in [("a", Some(2)), ("b", None), ("c", Some(1)), ("d", Some(3))] {
            assert!(save(&mut parts, SessionRecord { away, ..session(pid) }, 0));
        }
        let gone = parts.writer.expire(10, 9).expect("expires");
        assert!(gone.iter().all(|gone| gone.evicted));
        assert_eq!(gone.iter().map(|gone| &*gone.sid).collect::<Vec<_>>(), ["sid-of-c", "sid-of-a"]);
    }

    fn a_replay_above_the_limit_is_refused(disk) {
        let settings = StoreSettings { max_replay: 100, ..settings() };
        let mut parts = disk.open_with(&settings, 0);
        fill(&mut parts, "/", 30, 0);
        assert!(save(&mut parts, session("p"), 0));
        assert_eq!(refusal(&mut parts, "p", Some("1-2"), 0).0, ResumeRefusal::ReplayTooLarge);
        assert_eq!(start(&mut parts, "p", Some("1-28")), 28);
    }

    fn a_log_is_kept_while_a_session_may_need_it(disk) {
        let mut parts = disk.open(0);
        fill(&mut parts, "/", 2, 0);
        assert!(save(&mut parts, SessionRecord { away: Some(0), ..session("p") }, 0));
        assert!(!parts.writer.drop_log("/").expect("answers"));
        assert_eq!(start(&mut parts, "p", Some("1-1")), 1);
    }

    fn memberships_that_ended_below_the_floor_are_forgotten(disk) {
        let mut parts = disk.open(0);
        fill(&mut parts, "/", 9, 0);
        let memberships = vec![member("a", 0, Some(3)), member("b", 0, Some(6)), member("c", 0, None)];
        assert!(save(&mut parts, SessionRecord { memberships, checkpoint: at(9), ..session("p") }, 0));
        parts.writer.trim("/", &LogLimits { entries: 4, ..limits() }, 0).expect("trims");
        let mut found = parts.writer.attach(&ask("p", None), 0).expect("attaches").session.memberships;
        found.sort_by(|a, b| a.room.cmp(&b.room));
        assert_eq!(found, [member("b", 0, Some(6)), member("c", 0, None)]);
    }
}

#[test]
fn credentials_are_in_no_debug_text() {
    let pid = "0123456789abcdefghij";
    let store = MemoryStore::new();
    let mut parts = Box::new(store.clone()).open(NodeId("a".into()), &settings(), 0).expect("opens");
    let record = SessionRecord { sid: "socket".into(), ..session(pid) };
    assert!(save(&mut parts, record.clone(), 0));
    let remove = SessionChange::Remove { namespace: "/".into(), pid: pid.into(), generation: 1 };
    for text in [
        format!("{store:?}"),
        format!("{record:?}"),
        format!("{:?} {remove:?}", SessionChange::Save(record)),
        format!("{:?}", ask(pid, None)),
        format!("{:?}", context(Some((pid, 1)))),
        format!("{:?}", parts.writer.attach(&ask(pid, None), 0).expect("attaches")),
        format!("{:?}", Query::parse(&format!("EIO=4&sid={pid}"))),
    ] {
        assert!(!text.contains("0123456"), "{text}");
    }
}
