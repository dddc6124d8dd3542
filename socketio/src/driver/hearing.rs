//! Is the loop behind, so that what clients have sent may lie unread? Time is a parameter.
//!
//! A client is ended if its pong has not come in time. If a handler blocks the loop, or many clients want something at once,
//! pongs wait in the kernel: the loop has to listen before it judges.

use std::time::Duration;

/// A turn that takes longer has kept clients waiting.
const LAG: Duration = Duration::from_millis(50);

/// A turn with fewer callbacks has dealt with all that was ready.
const MANY: u32 = 256;

/// What is known of the present turn and the one before.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    /// Of this turn, the first callback.
    first: Option<Duration>,
    callbacks: u32,
    /// All that had arrived by then was read.
    behind: Option<Duration>,
    /// Has this turn put it behind?
    fell_behind: bool,
}

impl Hearing {
    pub(super) fn begin_turn(&mut self, now: Duration) {
        let late = self.first.filter(|first| now > *first + LAG);
        *self = Self { behind: self.behind.or(late), ..Self::default() };
    }

    /// A callback at `now`. Gives until when all was heard; `None`: until now.
    pub(super) fn callback(&mut self, now: Duration) -> Option<Duration> {
        self.callbacks = self.callbacks.saturating_add(1);
        let first = *self.first.get_or_insert(now);
        if now > first + LAG || self.callbacks >= MANY {
            self.behind.get_or_insert(first);
            self.fell_behind = true;
        }
        self.behind
    }

    /// Requests that have come are left to the next turn.
    pub(super) fn leave_some(&mut self) {
        self.behind = self.behind.or(self.first);
        self.fell_behind = true;
    }

    /// All that was ready at the turn's beginning has been handed over; next, at `now`, deadlines are looked at.
    pub(super) fn end_turn(&mut self, now: Duration) {
        let late = self.first.is_some_and(|first| now > first + LAG);
        if late {
            self.behind = self.behind.or(self.first);
        } else if !self.fell_behind {
            self.behind = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_loop_that_keeps_up_has_heard_everything() {
        let mut hearing = Hearing::default();
        for turn in 0..5_u64 {
            // Between the beginning of a turn and its first callback the loop waits.
            hearing.begin_turn(ms((turn * 100).saturating_sub(55)));
            assert_eq!(hearing.callback(ms(turn * 100)), None);
            assert_eq!(hearing.callback(ms(turn * 100 + 40)), None);
            hearing.end_turn(ms(turn * 100 + 45));
            assert_eq!(hearing.callback(ms(turn * 100 + 45)), None);
        }
    }

    #[test]
    fn a_callback_that_blocks_leaves_it_behind_until_the_next_turn_has_listened() {
        let mut hearing = Hearing::default();
        hearing.begin_turn(ms(100));
        assert_eq!(hearing.callback(ms(100)), None);
        assert_eq!(hearing.callback(ms(3000)), Some(ms(100)));
        hearing.end_turn(ms(3001));
        assert_eq!(hearing.callback(ms(3001)), Some(ms(100)));
        hearing.begin_turn(ms(3001));
        assert_eq!(hearing.callback(ms(3002)), Some(ms(100)));
        hearing.end_turn(ms(3003));
        assert_eq!(hearing.callback(ms(3003)), None);
    }

    #[test]
    fn the_last_callback_of_a_turn_may_be_the_one_that_blocks() {
        let mut hearing = Hearing::default();
        hearing.begin_turn(ms(100));
        assert_eq!(hearing.callback(ms(100)), None);
        hearing.end_turn(ms(3001));
        assert_eq!(hearing.callback(ms(3001)), Some(ms(100)));
        let mut hearing = Hearing::default();
        hearing.begin_turn(ms(100));
        hearing.end_turn(ms(101));
        assert_eq!(hearing.callback(ms(101)), None, "a timer's callback blocks after it");
        hearing.begin_turn(ms(3001));
        assert_eq!(hearing.callback(ms(3002)), Some(ms(101)));
        hearing.end_turn(ms(3002));
        assert_eq!(hearing.callback(ms(3002)), None);
    }

    #[test]
    fn requests_that_are_left_over_have_not_been_heard() {
        let mut hearing = Hearing::default();
        hearing.begin_turn(ms(100));
        assert_eq!(hearing.callback(ms(100)), None);
        hearing.leave_some();
        hearing.end_turn(ms(101));
        assert_eq!(hearing.callback(ms(101)), Some(ms(100)));
        hearing.begin_turn(ms(101));
        assert_eq!(hearing.callback(ms(102)), Some(ms(100)), "some of them may still be left");
        hearing.end_turn(ms(102));
        assert_eq!(hearing.callback(ms(102)), None);
    }

    #[test]
    fn a_turn_with_many_callbacks_may_have_left_some_out() {
        let mut hearing = Hearing::default();
        hearing.begin_turn(ms(100));
        for n in 1..256 {
            assert_eq!(hearing.callback(ms(100)), None, "callback {n}");
        }
        assert_eq!(hearing.callback(ms(120)), Some(ms(100)));
        hearing.end_turn(ms(120));
        hearing.begin_turn(ms(120));
        hearing.end_turn(ms(121));
        assert_eq!(hearing.callback(ms(121)), None);
    }
}
