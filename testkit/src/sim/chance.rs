//! Where the choices of a world come from: a seed, or a fuzzer's bytes and then the seed that they make.

use std::{
    cell::RefCell,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    ops::{Bound, RangeBounds},
    rc::Rc,
};

/// A generator. Everything that happens in a world asks it or one of its forks, so that the same seed, or the same bytes,
/// are the same world.
#[derive(Clone, Debug)]
pub struct Rng {
    seeded: fastrand::Rng,
    /// The fuzzer's bytes, last one first. All forks take theirs from here, in the order in which they ask.
    bytes: Option<Rc<RefCell<Vec<u8>>>>,
}

impl Rng {
    pub fn with_seed(seed: u64) -> Self {
        Self { seeded: fastrand::Rng::with_seed(seed), bytes: None }
    }

    pub fn with_bytes(bytes: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let bytes = bytes.iter().rev().copied().collect();
        Self { bytes: Some(Rc::new(RefCell::new(bytes))), ..Self::with_seed(hasher.finish()) }
    }

    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self { seeded: self.seeded.fork(), bytes: self.bytes.clone() }
    }

    /// One that takes no number of this one's seed.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self { seeded: fastrand::Rng::with_seed(!self.seeded.get_seed()), bytes: self.bytes.clone() }
    }

    pub fn bool(&mut self) -> bool {
        self.next(0, 1).map_or_else(|| self.seeded.bool(), |number| number == 1)
    }

    pub fn shuffle<T>(&mut self, slice: &mut [T]) {
        self.seeded.shuffle(slice);
    }

    /// A number of the fuzzer's from `lowest` to `highest`, made from as many bytes as the largest one needs.
    fn next(&mut self, lowest: u64, highest: u64) -> Option<u64> {
        let mut bytes = self.bytes.as_ref()?.borrow_mut();
        let span = highest - lowest;
        let mut number = 0_u64;
        for _ in 0..(64 - span.leading_zeros()).div_ceil(8) {
            number = number << 8 | u64::from(bytes.pop()?);
        }
        Some(lowest + span.checked_add(1).map_or(number, |choices| number % choices))
    }
}

macro_rules! numbers {
    ($($number:ident)*) => {$(
        #[allow(clippy::cast_possible_truncation, clippy::cast_lossless, reason = "within the range")]
        impl Rng {
            pub fn $number(&mut self, range: impl RangeBounds<$number>) -> $number {
                let lowest = match range.start_bound() {
                    Bound::Included(lowest) => *lowest,
                    Bound::Excluded(below) => *below + 1,
                    Bound::Unbounded => 0,
                };
                let highest = match range.end_bound() {
                    Bound::Included(highest) => *highest,
                    Bound::Excluded(above) => *above - 1,
                    Bound::Unbounded => $number::MAX,
                };
                let chosen = self.next(lowest as u64, highest as u64).map(|number| number as $number);
                chosen.unwrap_or_else(|| self.seeded.$number(range))
            }
        }
    )*};
}

numbers!(u8 u16 u32 u64 usize);
