//! The application's timers: never early, each once, none of a connection that has ended.

use adjourn::{Clients, Event};

use super::{
    alarms::Alarm,
    app::App,
    checker::{Checker, ensure},
};

/// How many timers a connection has at most.
const KEYS: u64 = 3;

impl App {
    /// Sets a timer of this connection, or clears it.
    pub fn set_timer(&mut self, checker: &mut Checker, clients: &mut Clients<'_, u32>, conn: u32) {
        let Some(id) = checker.of(conn).id else { return };
        let (key, clears) = (self.rng.u64(..KEYS), self.rng.u8(..4) == 0);
        let after = if self.rng.u8(..8) == 0 { 0 } else { self.rng.u64(..3_000_000) };
        let established = checker.state(conn).is_some_and(adjourn::clients::State::is_established);
        let timers = &mut checker.of(conn).timers;
        if !established {
            timers.clear();
        }
        let was_set = timers.iter().position(|(known, ..)| *known == key);
        was_set.map(|at| timers.swap_remove(at));
        let right = if clears {
            clients.clear_timer(id, key) == was_set.is_some()
        } else {
            clients.set_timer(id, std::time::Duration::from_micros(after), key) == established
        };
        if !clears && established {
            let at = checker.now.saturating_add(after);
            checker.of(conn).timers.push((key, at, true));
            checker.timers_set.push(conn);
            checker.set_alarm(at, conn, Alarm::Timer);
        }
        ensure!(checker, conn, "timer_answers", right, "key {key}, clears: {clears}, set: {was_set:?}");
    }
}

impl Checker {
    /// The callback that set them has returned, `by` later.
    pub fn start_timers(&mut self, by: u64) {
        for conn in std::mem::take(&mut self.timers_set) {
            for (_, at, fresh) in &mut self.of(conn).timers {
                *at += if std::mem::take(fresh) { by } else { 0 };
            }
            if let Some(at) = self.due(conn, Alarm::Timer) {
                self.set_alarm(at, conn, Alarm::Timer);
            }
        }
    }

    /// A timer has fired.
    pub fn timer_fired(&mut self, conn: u32, event: &Event<'_>) {
        let Event::Timer { key, .. } = event else { return };
        let now = self.now;
        let timers = &mut self.of(conn).timers;
        let at = timers.iter().position(|(known, ..)| known == key).map(|at| timers.swap_remove(at).1);
        ensure!(self, conn, "timers_fire_once", at.is_some(), "{key}");
        ensure!(self, conn, "no_timer_is_early", at.is_none_or(|at| at <= now), "{key} was due at {at:?}");
    }
}
