//! What a loop counts as `OpenMetrics` text. tests/metrics/ reads it with the parser of Prometheus' own client.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc, time::Duration};

use adjourn::{
    Config, accept_all, metrics,
    stats::LoopStats,
    testing::{Clock, Session, frame},
};

/// Of a connection that has got one message, whose callback took 20 ms.
fn stats() -> LoopStats {
    let clock = Rc::<RefCell<Option<Clock>>>::default();
    let clock_there = Rc::clone(&clock);
    let mut session = Session::open(
        Config::default(),
        accept_all::<()>(move |_, _| {
            if let Some(clock) = &*clock_there.borrow() {
                clock.pass(Duration::from_millis(20));
            }
        }),
    );
    *clock.borrow_mut() = Some(session.clock());
    session.read(&frame(0x81, b"hello"));
    session.loop_stats()
}

/// The names that samples have.
fn names(text: &str) -> BTreeSet<&str> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| line.split(['{', ' ']).next()).collect()
}

#[test]
fn every_counter_is_there_with_help_and_type() {
    let text = metrics::text(&[stats()]);
    assert!(text.ends_with("# EOF\n"));
    for (name, ..) in stats().totals.counters() {
        assert!(names(&text).contains(format!("adjourn_{name}_total").as_str()), "{name}: {text}");
        assert!(text.contains(&format!("# TYPE adjourn_{name} counter\n")), "{name}");
        assert!(text.contains(&format!("# HELP adjourn_{name} ")), "{name}");
    }
    assert!(text.contains("# UNIT adjourn_received_bytes bytes\n"));
    assert!(text.contains("\nadjourn_received_messages_total{loop=\"0\"} 1\n"), "{text}");
    assert!(text.contains("\nadjourn_connections{state=\"open\",loop=\"0\"} 1\n"), "{text}");
    assert!(
        text.contains("\nadjourn_closed_total{cause=\"PeerClose\",clean=\"true\",loop=\"0\"} 0\n"),
        "{text}"
    );
    assert!(text.contains("\nadjourn_cap_limit{cap=\"deferred\",loop=\"0\"} 1024\n"), "{text}");
    assert!(text.contains("\nadjourn_turn_duration_seconds_bucket{le=\"+Inf\",loop=\"0\"} "), "{text}");
}

#[test]
fn a_sum_has_no_loop_and_several_loops_have_theirs() {
    let (mut sum, mut other) = (stats(), stats());
    other.number = Some(7);
    let both = metrics::text(&[sum.clone(), other.clone()]);
    assert!(
        both.contains("\nadjourn_opened_total{loop=\"0\"} 1\nadjourn_opened_total{loop=\"7\"} 1\n"),
        "{both}"
    );
    sum.add(&other);
    let text = metrics::text(&[sum]);
    assert!(text.contains("\nadjourn_opened_total 2\n"), "{text}");
    assert!(!text.contains("loop="));
}

#[test]
fn the_dashboard_asks_for_nothing_that_is_not_there() {
    let text = metrics::text(&[stats()]);
    let there = names(&text);
    let dashboard: serde_json::Value =
        serde_json::from_str(include_str!("../docs/grafana/adjourn.json")).expect("it is JSON");
    let mut asked = BTreeSet::new();
    queries(&dashboard, &mut |query| {
        let words = query.split(|c: char| !c.is_alphanumeric() && c != '_');
        asked.extend(words.filter(|word| word.starts_with("adjourn_")).map(str::to_owned));
    });
    assert!(asked.len() > 15, "{asked:?}");
    let missing: Vec<_> = asked.iter().filter(|name| !there.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Everything that the dashboard asks Prometheus.
fn queries(value: &serde_json::Value, found: &mut impl FnMut(&str)) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str().filter(|_| matches!(name.as_str(), "expr" | "query" | "definition")) {
                    Some(query) => found(query),
                    None => queries(value, found),
                }
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| queries(value, found)),
        _ => {}
    }
}
