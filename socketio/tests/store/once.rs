//! Once keys and transactions (specification 15).

use std::time::Duration;

use adjourn_socketio::store::{
    AckValue, Batch, OnceFinish, OnceState, Parts, RunError, StoreError, TransactError, Transacted, Tx,
    TxEffect,
};
use bytes::Bytes;

use crate::disk::{ack, ask, at, context, event, fill, key, save, session};
use crate::on_every_store;

const LEASE: Duration = Duration::from_millis(100);

fn begin(parts: &mut Parts, name: &str, now: u64) -> OnceState {
    parts.writer.once_begin(&key(name), LEASE, now).expect("answers")
}

fn finish(parts: &mut Parts, name: &str, value: Option<AckValue>, now: u64) {
    let once = vec![OnceFinish { key: key(name), ack: value }];
    parts.writer.commit(&Batch { once, ..Batch::default() }, now).expect("commits");
}

/// Runs code under a key for a socket without a session.
fn run(
    parts: &mut Parts,
    name: &str,
    now: u64,
    code: impl FnOnce(&mut Tx<'_>) -> Result<AckValue, RunError> + Send,
) -> Result<Transacted, TransactError> {
    parts.writer.transact(Some(&key(name)), &context(None), Box::new(code), now)
}

on_every_store! {
    fn a_key_runs_once_and_keeps_its_ack_byte_for_byte(disk) {
        let mut parts = disk.open(0);
        assert_eq!(begin(&mut parts, "k", 0), OnceState::First);
        assert_eq!(begin(&mut parts, "k", 99), OnceState::Running { until: 100 });
        let value = AckValue { json: "[ 1.50,\"\\ud800\" ]".into(), attachments: [Bytes::from_static(b"\0x")].into() };
        finish(&mut parts, "k", Some(value.clone()), 50);
        assert_eq!(begin(&mut parts, "k", 60), OnceState::Done(value.clone()));
        assert_eq!(begin(&mut parts, "other", 60), OnceState::First);
        drop(parts);
        let mut parts = disk.open(70);
        assert_eq!(begin(&mut parts, "k", 70), OnceState::Done(value));
        assert_eq!(begin(&mut parts, "other", 70), OnceState::First, "a restart releases what was running");
    }

    fn a_key_is_released_by_an_error_and_by_the_end_of_its_lease(disk) {
        let mut parts = disk.open(0);
        assert_eq!(begin(&mut parts, "k", 0), OnceState::First);
        finish(&mut parts, "k", None, 1);
        assert_eq!(begin(&mut parts, "k", 2), OnceState::First);
        assert_eq!(begin(&mut parts, "k", 102), OnceState::First);
        assert_eq!(begin(&mut parts, "k", 103), OnceState::Running { until: 202 });
    }

    fn finished_keys_are_forgotten_after_their_window(disk) {
        let mut parts = disk.open(0);
        run(&mut parts, "k", 0, |_| Ok(ack("[1]"))).expect("runs");
        assert!(run(&mut parts, "k", 59_999, |_| panic!("it ran again")).expect("repeats").repeat);
        parts.writer.expire(60_000, 9).expect("expires");
        assert!(!run(&mut parts, "k", 60_000, |_| Ok(ack("[2]"))).expect("runs").repeat);
    }

    fn too_many_keys_drop_the_oldest_finished_one(disk) {
        let mut parts = disk.open(0);
        for (i, name) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
            run(&mut parts, name, i as u64, |_| Ok(ack("[]"))).expect("runs");
        }
        assert!(run(&mut parts, "b", 9, |_| panic!("b was dropped")).expect("repeats").repeat);
        assert!(!run(&mut parts, "a", 9, |_| Ok(ack("[]"))).expect("runs").repeat);
    }

    fn keys_that_run_are_never_dropped(disk) {
        let mut parts = disk.open(0);
        for name in ["a", "b", "c", "d"] {
            assert_eq!(begin(&mut parts, name, 0), OnceState::First);
        }
        assert!(matches!(parts.writer.once_begin(&key("e"), LEASE, 0), Err(StoreError::Full(_))));
        assert!(matches!(
            run(&mut parts, "e", 0, |_| Ok(ack("[]"))),
            Err(TransactError::Store(StoreError::Full(_)))
        ));
        assert_eq!(begin(&mut parts, "e", 100), OnceState::First, "leases have run out");
    }

    fn a_transaction_commits_key_entries_and_joins_together(disk) {
        let mut parts = disk.open(0);
        fill(&mut parts, "/", 2, 0);
        assert!(save(&mut parts, session("p"), 0));
        let code = |tx: &mut Tx<'_>| {
            assert_eq!((&**tx.namespace(), &**tx.sid()), ("/", "sid"));
            tx.append(event("/", "a"));
            tx.join("room");
            tx.append(event("/other", "x"));
            tx.append(event("/", "b"));
            Ok(ack("[7]"))
        };
        let done = parts.writer.transact(Some(&key("k")), &context(Some(("p", 1))), Box::new(code), 5).expect("runs");
        assert!(done.session_current && !done.repeat);
        assert_eq!(done.effects, [
            (TxEffect::Emit(event("/", "a")), at(3)),
            (TxEffect::Join("room".into()), at(3)),
            (TxEffect::Emit(event("/other", "x")), at(1)),
            (TxEffect::Emit(event("/", "b")), at(4)),
        ]);
        let page = parts.reader.page("/", at(2)..at(9), 1000).expect("a page");
        assert_eq!(page.entries.iter().map(|e| &*e.new.packet).collect::<Vec<_>>(), ["a", "b"]);
        let attached = parts.writer.attach(&ask("p", None), 5).expect("attaches");
        let member = &attached.session.memberships[0];
        assert_eq!((&*member.room, member.from, member.to), ("room", at(3), None));
        let again = run(&mut parts, "k", 6, |_| panic!("it ran again")).expect("repeats");
        assert_eq!((again.repeat, again.ack, again.effects.len()), (true, ack("[7]"), 0));
    }

    fn a_join_of_an_older_generation_is_not_saved(disk) {
        let mut parts = disk.open(0);
        assert!(save(&mut parts, session("p"), 0));
        parts.writer.attach(&ask("p", None), 0).expect("attaches");
        let code = |tx: &mut Tx<'_>| {
            tx.join("room");
            Ok(ack("[]"))
        };
        let done = parts.writer.transact(None, &context(Some(("p", 1))), Box::new(code), 0).expect("runs");
        assert!(!done.session_current);
        assert!(parts.writer.attach(&ask("p", None), 0).expect("attaches").session.memberships.is_empty());
    }

    fn errors_and_panics_roll_everything_back(disk) {
        let mut parts = disk.open(0);
        fill(&mut parts, "/", 2, 0);
        let failed = run(&mut parts, "k", 0, |tx| {
            tx.append(event("/", "lost"));
            Err("no".into())
        });
        assert!(matches!(failed, Err(TransactError::Run(error)) if error.to_string() == "no"));
        let panicked = run(&mut parts, "k", 0, |tx| {
            tx.append(event("/", "lost"));
            panic!("in the application's code")
        });
        assert!(matches!(panicked, Err(TransactError::Panicked)));
        let too_big = run(&mut parts, "k", 0, |tx| {
            tx.append(event("/", "lost"));
            Ok(ack(&format!("[\"{}\"]", "x".repeat(100))))
        });
        assert!(matches!(too_big, Err(TransactError::Store(StoreError::Full("max_ack")))));
        let done = run(&mut parts, "k", 0, |tx| {
            tx.append(event("/", "kept"));
            Ok(ack("[]"))
        });
        assert_eq!(done.expect("the key was released").effects[0].1, at(3), "a gap");
    }

    fn a_key_that_runs_elsewhere_is_not_run(disk) {
        let mut parts = disk.open(0);
        assert_eq!(begin(&mut parts, "k", 0), OnceState::First);
        let refused = run(&mut parts, "k", 50, |_| panic!("it ran"));
        assert!(matches!(refused, Err(TransactError::Running { until: 100 })));
    }
}
