//! What a world is like: settings, peers and plans, drawn from its seed.

use std::time::Duration;

use adjourn::{
    CloseCode, CloseFrame, Config, ShutdownPlan,
    config::{Abort, CloseAnswer, ClosingData, ControlRate, OnOverflow, OnPeerClose},
    shutdown::{LameDuckPolicy, ListenerInShutdown, Pace},
};

use super::{chance::Rng, deflate::Settings, peer::Kind};

/// How large a world is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Connections in all.
    pub connections: u32,
    /// Ends by a shutdown, always or never; `None` leaves it to the seed.
    pub shutdown: Option<bool>,
    /// Mostly quiet peers and default timeouts, as a large server has them.
    pub crowd: bool,
    /// The pace of the shutdown, if it is not the seed's choice.
    pub pace: Option<Pace>,
}

/// How the loop's thread and its application behave in a world.
#[derive(Clone, Copy, Debug, Default)]
pub struct Behaviour {
    /// By how many milliseconds a turn may begin late.
    pub late: u64,
    /// How many of a hundred callbacks take their time, and how many milliseconds at most.
    pub slow: u8,
    pub slow_ms: u64,
    /// How many of a thousand callbacks panic; whoever runs the loop catches that and goes on.
    pub panics: u16,
    /// It sends so often on `Drain`, as one streams.
    pub refills: u32,
    /// Every event is answered with commands.
    pub hostile: bool,
}

/// Draws how the loop's thread and its application behave. Half of the worlds are in good order.
pub fn behaviour(rng: &mut Rng, size: Size) -> Behaviour {
    let mut behaviour = Behaviour::default();
    if size.crowd {
        return behaviour;
    }
    if rng.bool() {
        behaviour.late = rng.u64(1..40);
    }
    if rng.bool() {
        return behaviour;
    }
    if rng.u8(..3) == 0 {
        behaviour.late = rng.u64(40..5000);
    }
    if rng.u8(..3) == 0 {
        (behaviour.slow, behaviour.slow_ms) = (rng.u8(1..20), rng.u64(1..400));
    }
    if rng.u8(..4) == 0 {
        behaviour.panics = rng.u16(1..100);
    }
    if rng.u8(..3) == 0 {
        behaviour.refills = rng.u32(1..60);
    }
    behaviour.hostile = rng.u8(..4) == 0;
    behaviour
}

/// A fuzzer's bytes as a little world and its choices.
pub fn of_bytes(bytes: &[u8]) -> (Size, Rng) {
    let (size, choices) = bytes.split_first().unwrap_or((&0, &[]));
    let shutdown = [None, Some(true), Some(false), None][usize::from(size >> 2 & 3)];
    let size = Size { connections: 1 + u32::from(size & 3), shutdown, crowd: false, pace: None };
    (size, Rng::with_bytes(choices))
}

/// The settings of a hostile little world, or of a large ordinary one.
pub fn config(rng: &mut Rng, size: Size) -> Config {
    let mut config = Config::default();
    if size.crowd {
        config.connection.close_timeout = Duration::from_secs(5);
        return config;
    }
    let mut ms = |rare: u8, most: u64| {
        if rng.u8(..rare) == 0 { Duration::ZERO } else { Duration::from_micros(rng.u64(1..most * 1000)) }
    };
    config.connection.close_timeout = ms(12, 6000);
    config.connection.linger_timeout = ms(8, 2000);
    config.handshake.handshake_timeout = ms(40, 4000).max(Duration::from_micros(1));
    config.connection.heartbeat.timeout = ms(10, 3000).max(Duration::from_millis(1));
    config.handshake.retry_after = ms(4, 5000);
    let (interval, stall, budget) = (ms(50, 5000), ms(20, 4000), ms(4, 3000));
    config.connection.heartbeat.interval =
        Some(interval).filter(|interval| !interval.is_zero() && rng.u8(..4) > 0);
    config.connection.stall_timeout = Some(stall).filter(|stall| !stall.is_zero() && rng.u8(..4) > 0);
    // A budget of more than there is time is all of it.
    config.connection.flush_budget = Some(budget.min(config.connection.close_timeout)).filter(|_| rng.bool());
    config.connection.linger_bytes = if rng.bool() { rng.u64(..60_000) } else { 16 << 20 };
    config.connection.max_payload = if rng.bool() { rng.usize(130..100_000) } else { 1 << 20 };
    config.connection.max_fragments = if rng.u8(..4) == 0 { rng.u32(1..12) } else { 1 << 20 };
    config.connection.max_backlog = rng.usize(..300_000);
    config.connection.on_overflow = [OnOverflow::Refuse, OnOverflow::Fail][rng.usize(..2)];
    config.connection.abort = abort(rng);
    config.connection.terminate = abort(rng);
    config.connection.on_peer_close = [OnPeerClose::FlushQueued, OnPeerClose::DropQueued][rng.usize(..2)];
    config.connection.answer = if rng.u8(..3) == 0 { CloseAnswer::Manual } else { CloseAnswer::Auto };
    config.connection.closing_data = [ClosingData::Deliver, ClosingData::Discard][rng.usize(..2)];
    config.connection.closing_bytes = if rng.bool() { rng.u64(..3000) } else { 16 << 20 };
    config.event_loop.reads_per_turn = rng.u32(1..5);
    config.event_loop.read_buffer = match rng.u8(..4) {
        0 => rng.usize(1..64),
        1 => rng.usize(64..2048),
        _ => 64 << 10,
    };
    config.event_loop.sweep_slice = if rng.bool() { rng.usize(1..16) } else { 1024 };
    if rng.u8(..6) == 0 {
        config.event_loop.max_connections = rng.usize(1..(size.connections as usize + 2));
    }
    if rng.u8(..3) == 0 {
        config.event_loop.write_bytes_per_turn = rng.usize(1..20_000);
    }
    if rng.u8(..4) == 0 {
        config.event_loop.turn_bytes = rng.usize(1..100_000);
    }
    if rng.u8(..4) == 0 {
        config.event_loop.turn_callbacks = rng.u32(1..50);
    }
    // Drawn beside the rest, so that a seed stays the world that it was.
    let mut beside = rng.beside();
    if beside.u8(..6) == 0 {
        config.event_loop.max_handshakes = Some(beside.usize(1..size.connections as usize / 2 + 2));
    }
    if beside.u8(..6) == 0 {
        config.connection.control_rate =
            Some(ControlRate { per_second: beside.u32(..20), burst: beside.u32(..10).max(1) });
    }
    if beside.u8(..6) == 0 {
        config.event_loop.max_deferred = beside.usize(..3);
    }
    if beside.u8(..4) == 0 {
        config.connection.pause_timeout = Some(Duration::from_micros(beside.u64(..3_000_000)));
    }
    #[cfg(feature = "deflate")]
    if beside.u8(..4) == 0 {
        config.deflate = Some(compression(&mut beside));
    }
    if beside.u8(..6) == 0 {
        config.event_loop.max_backlog_total = Some(beside.usize(1..200_000));
    }
    config
}

#[cfg(feature = "deflate")]
fn compression(rng: &mut Rng) -> adjourn::config::Deflate {
    let mut deflate = adjourn::config::Deflate::default();
    deflate.level = rng.u8(..=9);
    deflate.threshold = rng.usize(..400);
    deflate.server_no_context_takeover = rng.bool();
    deflate.client_no_context_takeover = rng.bool();
    let mut bits = || if rng.bool() { 15 } else { rng.u8(8..=15) };
    (deflate.server_max_window_bits, deflate.client_max_window_bits) = (bits(), bits());
    if rng.bool() {
        deflate.release_after = Some(Duration::from_micros(rng.u64(1..2_000_000)));
    }
    deflate
}

/// How the server compresses, as the second reading of RFC 7692 has it.
#[cfg(feature = "deflate")]
pub fn deflate(config: &Config) -> Option<Settings> {
    config.deflate.map(|deflate| Settings {
        threshold: deflate.threshold,
        server_keeps: !deflate.server_no_context_takeover,
        client_keeps: !deflate.client_no_context_takeover,
        server_bits: deflate.server_max_window_bits,
        client_bits: deflate.client_max_window_bits,
    })
}

#[cfg(not(feature = "deflate"))]
pub fn deflate(_: &Config) -> Option<Settings> {
    None
}

fn abort(rng: &mut Rng) -> Abort {
    [Abort::Auto, Abort::Auto, Abort::Reset, Abort::Fin][rng.usize(..4)]
}

/// A plan of a shutdown.
pub fn plan(rng: &mut Rng, size: Size) -> ShutdownPlan {
    let mut plan = ShutdownPlan::default();
    plan.frame = CloseFrame::truncating(CloseCode::GOING_AWAY, "shutdown");
    if size.crowd {
        plan.lame_duck = Duration::from_secs(2);
        plan.grace = Duration::from_secs(8);
    } else {
        plan.lame_duck = Duration::from_millis(if rng.bool() { 0 } else { rng.u64(..3000) });
        plan.grace = Duration::from_millis(if rng.u8(..5) == 0 { 0 } else { rng.u64(..6000) });
        let policies = [LameDuckPolicy::Serve, LameDuckPolicy::Refuse, LameDuckPolicy::Close];
        plan.listeners = policies[rng.usize(..3)];
        plan.abort = rng.bool().then(|| abort(rng));
        if rng.beside().bool() {
            plan.listener_in_shutdown = ListenerInShutdown::PlainHttp;
        }
    }
    plan.pace = size.pace.unwrap_or_else(|| match rng.u8(..4) {
        0 => Pace::Rate(f64::from(rng.u32(2..500))),
        1 => Pace::Spread(Duration::from_millis(rng.u64(..4000))),
        _ => Pace::AtOnce,
    });
    plan
}

/// Who connects.
pub fn kind(rng: &mut Rng, size: Size) -> Kind {
    if size.crowd {
        return match rng.u16(..1000) {
            0..8 => Kind::Silent,
            8..10 => Kind::Deaf,
            10..12 => Kind::NeverUpgrades,
            12..14 => Kind::HalfRequest,
            14..16 => Kind::Resetter,
            16..18 => Kind::HalfCloser,
            18..20 => Kind::Garbage,
            20..24 => Kind::Closer,
            24..30 => Kind::Crosser,
            _ => Kind::Polite,
        };
    }
    Kind::ALL[rng.usize(..Kind::ALL.len())]
}

/// The path that a peer asks for: its first letter tells the application what to do.
pub fn path(rng: &mut Rng, size: Size) -> &'static str {
    if size.crowd {
        return "/a";
    }
    ["/a", "/a", "/a", "/o", "/o", "/a", "/r", "/p"][rng.usize(..8)]
}
