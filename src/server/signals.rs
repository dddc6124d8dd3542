//! SIGTERM and SIGINT as a shutdown plan.

use std::{io, time::Duration};

use mio::{Interest, Registry, Token};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    low_level::emulate_default_handler,
};

use crate::{
    hub::Hub,
    shutdown::{Escalation, ShutdownPlan},
};

/// The signals that came, and the plan for the first.
pub(super) struct Signals {
    source: signal_hook_mio::v1_0::Signals,
    plan: ShutdownPlan,
    count: u32,
}

impl Signals {
    pub(super) fn install(registry: &Registry, token: Token, plan: ShutdownPlan) -> io::Result<Self> {
        let mut source = signal_hook_mio::v1_0::Signals::new([SIGTERM, SIGINT])?;
        registry.register(&mut source, token, Interest::READABLE)?;
        Ok(Self { source, plan, count: 0 })
    }

    pub(super) fn heed<D>(&mut self, hub: &mut Hub<D>) {
        for signal in self.source.pending() {
            self.count += 1;
            match (self.count, signal) {
                (1, SIGINT) => hub.shutdown(ShutdownPlan { lame_duck: Duration::ZERO, ..self.plan.clone() }),
                (1, _) => hub.shutdown(self.plan.clone()),
                (2, _) => hub.abort(Escalation::Signal),
                // Not even the hard sweep was fast enough for whoever sends these.
                _ => {
                    let _ = emulate_default_handler(signal);
                }
            }
        }
    }
}
