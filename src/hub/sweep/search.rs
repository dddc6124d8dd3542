//! A walk over all slots, a few of them in each turn. Which slots there are is said anew at each step.

#[derive(Debug, Default)]
pub(super) struct Search {
    /// The next slot to look at.
    at: usize,
    is_complete: bool,
}

impl Search {
    /// The next slot below `end`; `None` if all have been looked at, and at every later call.
    pub(super) const fn next(&mut self, end: usize) -> Option<usize> {
        if self.is_complete || self.at >= end {
            self.is_complete = true;
            return None;
        }
        // Advanced first: a predicate that panics is not asked about this slot again.
        self.at += 1;
        Some(self.at - 1)
    }

    pub(super) const fn has_begun(&self) -> bool {
        self.at > 0
    }

    /// There is nothing to look at.
    pub(super) const fn complete(&mut self) {
        self.is_complete = true;
    }

    pub(super) const fn is_complete(&self) -> bool {
        self.is_complete
    }
}
