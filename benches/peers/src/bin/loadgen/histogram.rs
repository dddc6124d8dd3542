//! Durations, counted in buckets that are 1.6 % wide.

use std::time::Duration;

/// Buckets of an octave.
const FINE: u32 = 64;

#[derive(Default)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: Duration,
}

impl Histogram {
    pub fn record(&mut self, value: Duration) {
        let bucket = bucket(u64::try_from(value.as_nanos()).unwrap_or(u64::MAX));
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// In microseconds, what the given share of all values does not exceed; NaN if there are none.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn quantile_us(&self, share: f64) -> f64 {
        let rank = ((self.total as f64 * share).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper(bucket).min(self.max.as_nanos() as f64) / 1e3;
            }
        }
        f64::NAN
    }

    pub fn max_us(&self) -> f64 {
        self.max.as_secs_f64() * 1e6
    }
}

/// Below 64 ns each value has its own; from then on each octave has 64.
fn bucket(ns: u64) -> usize {
    let octave = (u64::BITS - ns.leading_zeros()).saturating_sub(FINE.ilog2() + 1);
    let within = ns >> octave;
    usize::try_from(u64::from(octave * FINE) + within).unwrap_or(usize::MAX)
}

#[allow(clippy::cast_precision_loss)]
fn upper(bucket: usize) -> f64 {
    let fine = FINE as usize;
    let octave = (bucket / fine).saturating_sub(1);
    ((bucket - octave * fine + 1) as f64) * (1_u64 << octave.min(63)) as f64
}
