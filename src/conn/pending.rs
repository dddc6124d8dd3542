//! What is left to do for a connection, and whether it is in the run queue. The hub decides when it is done.

/// What the driver still has to do for a connection; a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pending(u8);

impl Pending {
    pub(crate) const WRITE: u8 = 1;
    pub(crate) const READ: u8 = 2;
    pub(crate) const FIN: u8 = 4;
    pub(crate) const ABORT: u8 = 8;
    pub(crate) const RELEASE: u8 = 16;
    /// The deadline may have moved to an earlier moment.
    pub(crate) const DEADLINE: u8 = 32;
    pub(crate) const CONNECT: u8 = 64;
    /// A `Drain` is owed and nothing is queued.
    pub(crate) const DRAIN: u8 = 128;
    const FOR_THE_DRIVER: u8 = !Self::DEADLINE;
    /// What uses up a share of a turn, and can wait for the next one.
    const SHARED: u8 = Self::WRITE | Self::READ | Self::DRAIN | Self::CONNECT | Self::DEADLINE;

    #[inline]
    pub(crate) fn add(&mut self, what: u8) {
        self.0 |= what;
    }

    #[inline]
    pub(crate) const fn has(self, what: u8) -> bool {
        self.0 & what != 0
    }

    /// Takes `what` out; says whether it was in.
    #[inline]
    pub(crate) fn take(&mut self, what: u8) -> bool {
        let had = self.has(what);
        self.0 &= !what;
        had
    }

    pub(crate) const fn only(what: u8) -> Self {
        Self(what)
    }

    /// Whether there is nothing for the driver to do.
    #[inline]
    pub(crate) const fn is_idle(self) -> bool {
        self.0 & Self::FOR_THE_DRIVER == 0
    }

    /// Whether something must be done before the turn ends.
    #[inline]
    pub(crate) const fn is_urgent(self) -> bool {
        self.0 & !Self::SHARED != 0
    }
}

/// Whether a connection stands in the run queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Listed {
    #[default]
    No,
    /// In this turn's.
    Now,
    /// In the next turn's.
    Next,
}
