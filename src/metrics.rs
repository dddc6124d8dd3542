//! [`LoopStats`] as `OpenMetrics` text, for Prometheus and what speaks like it. Feature `metrics`.
//!
//! A server answers `GET /metrics` on its own port, while it serves and, with
//! [`ListenerInShutdown::PlainHttp`](crate::shutdown::ListenerInShutdown::PlainHttp), while it shuts down:
//!
//! ```
//! use adjourn::{Config, Handle, Server, handler, http::{Response, Upgrade}, metrics};
//!
//! let mut server = Server::<()>::bind("127.0.0.1:0", Config::default())?;
//! let handle = server.handle();
//! let mut application = handler(
//!     move |request| match (request.is_upgrade(), request.path()) {
//!         (true, _) => Upgrade::accept(()),
//!         (false, "/metrics") => Upgrade::Answer(metrics::response(&[handle.loop_stats()])),
//!         _ => Upgrade::Reject(Response::new(404).expect("a status")),
//!     },
//!     |_, _| {},
//! );
//! // server.run_with(&mut application)?;
//! # let _ = (&mut server, &mut application);
//! # Ok::<(), adjourn::error::BindError>(())
//! ```
//!
//! An application that has metrics of its own registers a [`Source`] with its `prometheus_client::registry::Registry`.
//!
//! Every number has the label `loop` if it is that of one loop, and none if it is the [sum](LoopStats::sum) of several. What may be
//! a value of a label is fixed, so peers cannot add series.

use std::{fmt, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, MetricEncoder, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use crate::{
    shutdown::ShutdownPhase,
    stats::{Histogram, LoopStats, Totals},
    wire::upgrade::Response,
};

/// The media type of [`text`](self::text()).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of these loops, in the text format of `OpenMetrics` 1.0. Some 15 KiB a loop.
///
/// # Panics
/// Never: a `String` takes everything.
pub fn text(loops: &[LoopStats]) -> String {
    let mut registry = Registry::default();
    let loops = loops.to_vec();
    registry.register_collector(Box::new(Source::new(move || loops.clone())));
    let mut out = String::new();
    text::encode(&mut out, &registry).expect("a String takes everything");
    out
}

/// The answer to `GET /metrics`: 200 with [`text`](self::text()).
///
/// # Panics
/// Never: the header is a constant.
pub fn response(loops: &[LoopStats]) -> Response {
    Response::new(200)
        .and_then(|response| response.header("Content-Type", CONTENT_TYPE))
        .expect("the status and the header are valid")
        .body(text(loops))
}

/// The metrics of some loops for a [`Registry`]: `stats` is called for each scrape.
///
/// ```
/// use adjourn::{Config, Server, metrics::Source};
/// use prometheus_client::{encoding::text, registry::Registry};
///
/// let server = Server::<()>::bind("127.0.0.1:0", Config::default())?;
/// let handle = server.handle();
/// let mut registry = Registry::default();
/// registry.register_collector(Box::new(Source::new(move || vec![handle.loop_stats()])));
///
/// let mut page = String::new();
/// text::encode(&mut page, &registry)?;
/// assert!(page.contains("\nadjourn_connections{state=\"open\",loop="), "{page}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Source<F>(F);

impl<F: Fn() -> Vec<LoopStats> + Send + Sync + 'static> Source<F> {
    /// A source that asks `stats`, `|| handle.loop_stats()` of a [`WorkersHandle`](crate::WorkersHandle) for example.
    pub const fn new(stats: F) -> Self {
        Self(stats)
    }
}

impl<F> fmt::Debug for Source<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

impl<F: Fn() -> Vec<LoopStats> + Send + Sync + 'static> Collector for Source<F> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let loops = (self.0)();
        let mut page = Page { encoder, loops: &loops };
        page.gauges()?;
        page.counters()?;
        page.endings()?;
        page.histograms()
    }
}

type Labels = Vec<(&'static str, String)>;

struct Page<'e, 's> {
    encoder: DescriptorEncoder<'e>,
    loops: &'s [LoopStats],
}

impl Page<'_, '_> {
    /// One metric: `samples` gives those of one loop, with what labels they have besides.
    fn family<V, I: IntoIterator<Item = (Labels, V)>>(
        &mut self,
        (name, unit, help): (&str, Option<Unit>, &str),
        kind: MetricType,
        samples: impl Fn(&LoopStats) -> I,
        encode: impl Fn(V, &mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let name = format!("adjourn_{name}");
        // The format ends it.
        let help = help.trim_end_matches('.');
        let mut family = self.encoder.encode_descriptor(&name, help, unit.as_ref(), kind)?;
        for stats in self.loops {
            for (mut labels, value) in samples(stats) {
                labels.extend(stats.number.map(|number| ("loop", number.to_string())));
                if labels.is_empty() {
                    encode(value, &mut family)?;
                } else {
                    encode(value, &mut family.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }

    fn counter<I: IntoIterator<Item = (Labels, u64)>>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl Fn(&LoopStats) -> I,
    ) -> fmt::Result {
        let (name, unit) = match name.strip_suffix("_bytes") {
            Some(name) => (name, Some(Unit::Bytes)),
            None => (name, None),
        };
        self.family((name, unit, help), MetricType::Counter, samples, |value, encoder| {
            encoder.encode_counter::<Labels, _, f64>(&value, None)
        })
    }

    fn gauge<V: EncodeGaugeValue, I: IntoIterator<Item = (Labels, V)>>(
        &mut self,
        about: (&str, Option<Unit>, &str),
        samples: impl Fn(&LoopStats) -> I,
    ) -> fmt::Result {
        self.family(about, MetricType::Gauge, samples, |value, encoder| encoder.encode_gauge(&value))
    }

    /// How things are.
    fn gauges(&mut self) -> fmt::Result {
        self.gauge(("connections", None, "Connections by state"), |stats| {
            let of = stats.connections;
            [
                ("connecting", of.connecting),
                ("open", of.open),
                ("closing", of.closing),
                ("lingering", of.lingering),
            ]
            .map(|(state, count)| (label("state", state), count as u64))
        })?;
        self.gauge(("shutdown_phase", None, "1 for the phase that the shutdown is in"), |stats| {
            ShutdownPhase::ALL.map(|phase| (label("phase", phase.name()), u64::from(phase == stats.phase)))
        })?;
        let used = "How much of a limit is used; of per_address, the most that one address has had";
        self.gauge(("cap_used", None, used), |stats| {
            let each = stats.caps.iter().map(|(name, cap)| (label("cap", name), cap.used));
            each.collect::<Vec<_>>()
        })?;
        self.gauge(("cap_limit", None, "The limit beside cap_used, where there is one"), |stats| {
            let each = stats.caps.iter().filter_map(|(name, cap)| Some((label("cap", name), cap.limit?)));
            each.collect::<Vec<_>>()
        })?;
        let longest = "The longest callback since the loop began, if one took 10 ms, and what was delivered";
        self.gauge(("longest_callback", Some(Unit::Seconds), longest), |stats| {
            let longest = stats.totals.longest_callback;
            longest.map(|slow| (label("event", slow.event), slow.took.as_secs_f64()))
        })
    }

    fn counters(&mut self) -> fmt::Result {
        for (place, (name, help, _)) in Totals::default().counters().enumerate() {
            self.counter(name, help, |stats| {
                stats.totals.counters().nth(place).map(|it| (Vec::new(), it.2))
            })?;
        }
        self.counter("unsent_messages", "Messages of handles that could not be sent", |stats| {
            [(Vec::new(), stats.connections.unsent)]
        })?;
        self.counter(
            "internal_errors",
            "Invariants of this crate that were found broken: please report it",
            |stats| [(Vec::new(), stats.connections.internal_errors)],
        )?;
        self.counter("accept_errors", "Failed calls of accept", |stats| {
            [(Vec::new(), stats.connections.accept_errors)]
        })?;
        let about = ("slow_callback", Some(Unit::Seconds), "Time in callbacks that took 10 ms or more");
        self.family(
            about,
            MetricType::Counter,
            |stats| [(Vec::new(), stats.totals.slow_callback_time.as_secs_f64())],
            |value, encoder| encoder.encode_counter::<Labels, _, f64>(&value, None),
        )
    }

    /// How handshakes and connections ended.
    fn endings(&mut self) -> fmt::Result {
        self.counter("handshakes_failed", "Opening handshakes that failed, by cause", |stats| {
            let each =
                stats.totals.handshakes_failed.iter().map(|(name, count)| (label("cause", name), count));
            each.collect::<Vec<_>>()
        })?;
        self.counter(
            "http_answers",
            "HTTP answers other than 101 that were sent, by status; 0 is any that is not listed",
            |stats| {
                let each =
                    stats.totals.answers.iter().map(|(status, count)| (label("status", status), count));
                each.collect::<Vec<_>>()
            },
        )?;
        self.counter("closed", "Connections that ended, by cause, and whether cleanly", |stats| {
            let each = stats.totals.closed.by_cause();
            each.map(|(name, clean, count)| {
                (vec![("cause", name.to_owned()), ("clean", clean.to_string())], count)
            })
            .collect::<Vec<_>>()
        })?;
        self.counter(
            "closed_by_code",
            "Connections that ended, by the code to log; 3000 and 4000 are all of their thousand",
            |stats| {
                let each = stats.totals.closed.by_code().map(|(code, count)| (label("code", code), count));
                each.collect::<Vec<_>>()
            },
        )?;
        self.counter("closed_by_initiator", "Connections that ended, by who ended them", |stats| {
            let each =
                stats.totals.closed.by_initiator().map(|(who, count)| (label("initiator", who), count));
            each.collect::<Vec<_>>()
        })?;
        self.counter("lost_messages", "Messages that endings have lost", |stats| {
            let lost = &stats.totals.lost;
            [("unsent", lost.messages), ("cut", lost.partial), ("received", lost.inbound_messages)]
                .map(|(kind, count)| (label("kind", kind), count))
        })?;
        self.counter("lost_bytes", "Bytes that endings have lost", |stats| {
            let lost = &stats.totals.lost;
            [
                ("unsent", lost.bytes),
                ("received", lost.inbound_bytes),
                ("received_partial", lost.inbound_partial_bytes),
                ("trailing", lost.trailing_bytes),
            ]
            .map(|(kind, count)| (label("kind", kind), count))
        })
    }

    fn histograms(&mut self) -> fmt::Result {
        type Row = (&'static str, &'static str, fn(&LoopStats) -> &Histogram);
        let rows: [Row; 4] = [
            ("connection_duration", "How long connections were open", |stats| &stats.totals.durations),
            ("close_phase", "From the first Close to the end", |stats| &stats.totals.close_phases),
            ("turn_duration", "How long turns took, good to a few milliseconds", |stats| &stats.totals.turns),
            ("deadline_lateness", "How late deadlines and timers were served", |stats| {
                &stats.totals.lateness
            }),
        ];
        for (name, help, of) in rows {
            self.family(
                (name, Some(Unit::Seconds), help),
                MetricType::Histogram,
                |stats| [(Vec::new(), *of(stats))],
                |histogram, encoder| {
                    let bound =
                        |bound: Option<Duration>| bound.map_or(f64::INFINITY, |bound| bound.as_secs_f64());
                    let buckets: Vec<_> =
                        histogram.buckets().map(|(upper, count)| (bound(upper), count)).collect();
                    let sum = histogram.sum().as_secs_f64();
                    encoder.encode_histogram::<Labels>(sum, histogram.count(), &buckets, None)
                },
            )?;
        }
        Ok(())
    }
}

fn label(name: &'static str, value: impl fmt::Display) -> Labels {
    vec![(name, format!("{value}"))]
}
