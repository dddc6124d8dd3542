//! Entries, pages, trimming, epochs (specification 12, 14).

use std::time::Duration;

use adjourn_socketio::offset::Position;
use adjourn_socketio::store::{
    Batch, Entry, EntryKind, LogLimits, LogState, NewEntry, OnceFinish, StoreError,
};
use bytes::Bytes;

use crate::disk::{ack, at, event, fill, key, limits};
use crate::on_every_store;

fn packets(entries: &[Entry]) -> Vec<(u64, &str)> {
    entries.iter().map(|entry| (entry.position.number, &*entry.new.packet)).collect()
}

on_every_store! {
    fn positions_count_from_1_in_each_namespace(disk) {
        let mut parts = disk.open(0);
        let entries = vec![event("/", "a"), event("/b", "x"), event("/", "b")];
        let committed = parts.writer.commit(&Batch { entries, ..Batch::default() }, 5).expect("commits");
        assert_eq!(committed.positions, [at(1), at(1), at(2)]);
        let page = parts.reader.page("/", Position::START..at(9), 1000).expect("a page");
        assert_eq!(packets(&page.entries), [(1, "a"), (2, "b")]);
        assert_eq!((page.trimmed, page.complete, page.entries[1].at), (None, true, 5));
    }

    fn a_failed_batch_leaves_no_gap(disk) {
        let mut parts = disk.open(0);
        fill(&mut parts, "/", 2, 0);
        let too_big = OnceFinish { key: key("k"), ack: Some(ack(&format!("[\"{}\"]", "x".repeat(100)))) };
        let batch = Batch { entries: vec![event("/", "lost")], once: vec![too_big], ..Batch::default() };
        assert!(matches!(parts.writer.commit(&batch, 0), Err(StoreError::Full(_))));
        let batch = Batch { entries: vec![event("/", "kept")], ..Batch::default() };
        assert_eq!(parts.writer.commit(&batch, 0).expect("commits").positions, [at(3)]);
    }

    fn an_entry_is_read_as_it_was_written(disk) {
        let mut parts = disk.open(0);
        let new = NewEntry {
            namespace: "/ü?,".into(),
            kind: EntryKind::Ask,
            rooms: ["a".into(), "\u{0}\"b".into()].into(),
            except: ["c".into()].into(),
            packet: "[\"ü\",{\"_placeholder\":true,\"num\":0}]".into(),
            attachments: [Bytes::from_static(&[0, 255]), Bytes::new()].into(),
            ack: Some((1 << 52) - 1),
            until: Some(77),
        };
        let batch = Batch { entries: vec![new.clone()], ..Batch::default() };
        parts.writer.commit(&batch, 33).expect("commits");
        let page = parts.reader.page("/ü?,", Position::START..at(1), 1).expect("a page");
        assert_eq!(page.entries, [Entry { position: at(1), at: 33, new }]);
    }

    fn a_page_is_a_half_open_range_and_holds_at_least_one_entry(disk) {
        let mut parts = disk.open(0);
        let entries = (1..=5).map(|i| event("/", &format!("{i}234567890"))).collect();
        parts.writer.commit(&Batch { entries, ..Batch::default() }, 0).expect("commits");
        for (start, end, bytes, positions, complete) in [
            (0, 5, 1000, vec![1, 2, 3, 4, 5], true),
            (2, 4, 1000, vec![3, 4], true),
            (2, 4, 20, vec![3, 4], true),
            (0, 5, 29, vec![1, 2], false),
            (0, 5, 0, vec![1], false),
            (4, 9, 0, vec![5], true),
            (5, 5, 10, vec![], true),
            (7, 9, 10, vec![], true),
            (4, 2, 10, vec![], true),
        ] {
            let page = parts.reader.page("/", at(start)..at(end), bytes).expect("a page");
            let found: Vec<u64> = page.entries.iter().map(|entry| entry.position.number).collect();
            assert_eq!((found, page.complete), (positions, complete), "{start}..{end}, {bytes} B");
        }
        let page = parts.reader.page("/unknown", at(0)..at(9), 10).expect("a page");
        assert!(page.complete && page.entries.is_empty());
    }

    fn asks_are_found_until_their_deadline(disk) {
        let mut parts = disk.open(0);
        let ask = |until| NewEntry { kind: EntryKind::Ask, ack: Some(1), until: Some(until), ..event("/", "q") };
        let entries = vec![event("/", "e"), ask(10), ask(20), event("/", "e"), ask(30)];
        parts.writer.commit(&Batch { entries, ..Batch::default() }, 0).expect("commits");
        for (range, now, expected) in
            [(0..5, 0, vec![2, 3, 5]), (0..5, 10, vec![3, 5]), (2..4, 0, vec![3]), (0..5, 30, vec![])]
        {
            let asks = parts.reader.asks("/", at(range.start)..at(range.end), now).expect("asks");
            let found: Vec<u64> = asks.iter().map(|entry| entry.position.number).collect();
            assert_eq!(found, expected, "{range:?} at {now}");
        }
    }

    fn a_log_is_trimmed_by_entries_bytes_and_age(disk) {
        let mut parts = disk.open(0);
        for i in 0..10 {
            let entries = vec![event("/", "1234567890")];
            parts.writer.commit(&Batch { entries, ..Batch::default() }, i).expect("commits");
        }
        for (limits, now, floor) in [
            (limits(), 9, 0),
            (LogLimits { entries: 9, ..limits() }, 9, 1),
            (LogLimits { bytes: 79, ..limits() }, 9, 3),
            (LogLimits { age: Duration::from_millis(10), ..limits() }, 14, 5),
            (LogLimits { age: Duration::from_millis(10), ..limits() }, 13, 5),
        ] {
            let trimmed = parts.writer.trim("/", &limits, now).expect("trims");
            assert_eq!((trimmed.floor, trimmed.entries), (at(floor), 10 - floor), "{limits:?}");
            assert_eq!((trimmed.bytes, trimmed.more), ((10 - floor) * 10, false), "{limits:?}");
        }
        let page = parts.reader.page("/", at(4)..at(10), 10).expect("a page");
        assert_eq!((page.trimmed, page.entries[0].position), (Some(at(5)), at(6)));
        let page = parts.reader.page("/", at(5)..at(10), 10).expect("a page");
        assert_eq!(page.trimmed, None);
    }

    fn positions_go_on_when_everything_was_trimmed(disk) {
        let mut parts = disk.open(0);
        fill(&mut parts, "/", 3, 0);
        let trimmed = parts.writer.trim("/", &LogLimits { entries: 0, ..limits() }, 0).expect("trims");
        assert_eq!((trimmed.floor, trimmed.removed, trimmed.bytes), (at(3), 3, 0));
        drop(parts);
        let mut parts = disk.open(0);
        assert_eq!(parts.logs, [LogState { namespace: "/".into(), tail: at(3), floor: at(3) }]);
        let batch = Batch { entries: vec![event("/", "4")], ..Batch::default() };
        assert_eq!(parts.writer.commit(&batch, 0).expect("commits").positions, [at(4)]);
    }

    fn one_call_trims_a_bounded_number(disk) {
        let mut parts = disk.open(0);
        fill(&mut parts, "/", 10_000, 0);
        let none = LogLimits { entries: 0, ..limits() };
        let mut calls = 0;
        loop {
            let trimmed = parts.writer.trim("/", &none, 0).expect("trims");
            calls += 1;
            assert!(trimmed.removed < 10_000 && calls < 100);
            if !trimmed.more {
                assert_eq!((trimmed.floor, trimmed.entries), (at(10_000), 0));
                break;
            }
        }
        assert_eq!(parts.writer.trim("/unknown", &none, 0).expect("nothing").removed, 0);
    }

    fn a_restart_begins_an_epoch_and_keeps_the_log(disk) {
        let mut parts = disk.open(0);
        let epoch = parts.epoch;
        fill(&mut parts, "/", 3, 0);
        drop(parts);
        let mut parts = disk.open(0);
        assert_eq!(parts.epoch, epoch + 1);
        assert_eq!(parts.logs, [LogState { namespace: "/".into(), tail: at(3), floor: at(0) }]);
        assert_eq!(parts.reader.page("/", at(0)..at(3), 1000).expect("a page").entries.len(), 3);
    }

    fn a_dropped_log_does_not_use_its_positions_again(disk) {
        let mut parts = disk.open(0);
        fill(&mut parts, "/dyn-1", 7, 0);
        fill(&mut parts, "/", 1, 0);
        assert!(parts.writer.drop_log("/dyn-1").expect("drops"));
        drop(parts);
        let mut parts = disk.open(0);
        assert_eq!(parts.logs.len(), 1);
        let entries = vec![event("/dyn-1", "new"), event("/", "old")];
        let committed = parts.writer.commit(&Batch { entries, ..Batch::default() }, 0).expect("commits");
        assert_eq!(committed.positions, [at(8), at(2)]);
        let page = parts.reader.page("/dyn-1", at(6)..at(8), 100).expect("a page");
        assert_eq!((packets(&page.entries), page.trimmed), (vec![(8, "new")], Some(at(7))));
    }
}
