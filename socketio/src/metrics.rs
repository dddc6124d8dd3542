//! [`SocketIoStats`] as `OpenMetrics` text, beside what `adjourn` counts of the connections below. Feature `metrics`.
//!
//! The names are those of the fields of [`SocketIoStats`] after `adjourn_socketio_`. Namespaces and rooms, which clients may choose,
//! never become labels.

use std::fmt;

use adjourn::metrics::Source as LoopSource;
use adjourn::stats::LoopStats;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::stats::SocketIoStats;

/// The media type of [`text`](self::text()).
pub use adjourn::metrics::CONTENT_TYPE;

/// All metrics of the loop and of the layer on it, in the text format of `OpenMetrics` 1.0.
///
/// # Panics
/// Never: a `String` takes everything.
pub fn text(server: &LoopStats, layer: &SocketIoStats) -> String {
    let mut registry = Registry::default();
    let (server, layer) = (server.clone(), layer.clone());
    registry.register_collector(Box::new(LoopSource::new(move || vec![server.clone()])));
    registry.register_collector(Box::new(Source::new(move || Some(layer.clone()))));
    let mut out = String::new();
    text::encode(&mut out, &registry).expect("a String takes everything");
    out
}

/// The metrics of the layer for a [`Registry`] of the application's own: `stats` is called for each scrape, and nothing is written if it
/// has none.
pub struct Source<F>(F);

impl<F: Fn() -> Option<SocketIoStats> + Send + Sync + 'static> Source<F> {
    /// A source that asks `stats`: `move || handle.stats()` of a [`SocketIoHandle`](crate::SocketIoHandle), where scrapes are answered
    /// on another thread than the loop's.
    pub const fn new(stats: F) -> Self {
        Self(stats)
    }
}

impl<F> fmt::Debug for Source<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

impl<F: Fn() -> Option<SocketIoStats> + Send + Sync + 'static> Collector for Source<F> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.0)().map_or(Ok(()), |stats| Page { encoder }.write(&stats))
    }
}

struct Page<'e> {
    encoder: DescriptorEncoder<'e>,
}

impl Page<'_> {
    fn write(&mut self, stats: &SocketIoStats) -> fmt::Result {
        for (name, help, value) in stats.described() {
            // The words of the fields say which of them are not counted since the start.
            if help.contains(", now") {
                self.gauge((name, None, help), &value)?;
            } else {
                self.counter((name, None, help), &[(None, value)])?;
            }
        }
        let sockets: u64 = stats.sockets.iter().map(|(_, count)| count).sum();
        self.gauge(("sockets", None, "Sockets of all namespaces, now"), &sockets)?;
        let by_reason =
            stats.disconnects.iter().map(|(reason, count)| (Some(("reason", reason.as_str())), *count));
        self.counter(("disconnects", None, "Disconnects by reason"), &by_reason.collect::<Vec<_>>())?;
        let refusals = stats.resume_refusals.iter().map(|(name, count)| (Some(("cause", *name)), *count));
        let about = ("resume_refusals", None, "Sessions asked for and not resumed, by cause");
        self.counter(about, &refusals.collect::<Vec<_>>())?;
        let kinds = [
            ("decode_error_kinds", "Packets that could not be decoded, by kind", &stats.decode_error_kinds),
            ("state_error_kinds", "Packets that the state did not allow, by kind", &stats.state_error_kinds),
        ];
        for (name, help, counts) in kinds {
            let samples = counts.iter().map(|(kind, count)| (Some(("kind", *kind)), *count));
            self.counter((name, None, help), &samples.collect::<Vec<_>>())?;
        }
        let longest = "The longest time between a call of the store and its answer";
        self.gauge(("commit_time_max", Some(Unit::Seconds), longest), &stats.commit_time_max.as_secs_f64())?;
        let down = stats.store_down_time.as_secs_f64();
        self.counter(
            ("store_down", Some(Unit::Seconds), "For how long the store was down in all"),
            &[(None, down)],
        )
    }

    fn counter<V: EncodeCounterValue>(
        &mut self,
        (name, unit, help): (&str, Option<Unit>, &str),
        samples: &[(Option<(&str, &str)>, V)],
    ) -> fmt::Result {
        let name = format!("adjourn_socketio_{name}");
        let help = help.trim_end_matches('.');
        let mut family = self.encoder.encode_descriptor(&name, help, unit.as_ref(), MetricType::Counter)?;
        for (label, value) in samples {
            match label {
                Some(label) => {
                    family
                        .encode_family(&[*label])?
                        .encode_counter::<[(&str, &str); 1], _, f64>(value, None)?;
                }
                None => family.encode_counter::<[(&str, &str); 1], _, f64>(value, None)?,
            }
        }
        Ok(())
    }

    fn gauge(
        &mut self,
        (name, unit, help): (&str, Option<Unit>, &str),
        value: &impl EncodeGaugeValue,
    ) -> fmt::Result {
        let name = format!("adjourn_socketio_{name}");
        let help = help.trim_end_matches('.');
        self.encoder.encode_descriptor(&name, help, unit.as_ref(), MetricType::Gauge)?.encode_gauge(value)
    }
}
