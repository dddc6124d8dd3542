//! The settings of what the connections of a loop share.

use super::check::{ensure, positive, within};
use crate::{error::ConfigError, id::MAX_SLOTS};

/// The settings of one loop, for all its connections together. With [`Workers`](crate::Workers) each loop has them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LoopConfig {
    /// Connections in any state, 1 to 16,777,216. Where all places are taken, a new connection gets that of the oldest
    /// connection whose request was refused, or else that of the oldest handshake; if there is neither, it is closed at accept.
    /// The default is the most that a loop can number.
    pub max_connections: usize,
    /// Of these, connections from one IPv4 address, or one /64 of IPv6, since a site chooses among the addresses of its /64 as
    /// it likes; 1 at least. More are closed at accept. A connection whose request was refused does not count. The kernel
    /// spreads an address over several loops by its ports, so each loop may have as many. `None`, the default: no limit and
    /// nothing counted, since a proxy or a whole company may share one address; with a limit, 30 to 60 bytes an address.
    pub max_connections_per_address: Option<u32>,
    /// Connections whose handshake is not complete, 1 at least. With one more, the oldest of them is closed: an honest client
    /// finishes within two round trips, a slow-loris client does not. `None`, the default, is half of `max_connections`,
    /// within 64 and 16,384: so large servers always have places for connections, their request heads take at most 256 MiB,
    /// and with round trips of 200 ms even 80,000 new ones a second push nobody out.
    pub max_handshakes: Option<usize>,
    /// Connections whose upgrade the application has [deferred](crate::http::Upgrade::Defer). One more is refused with 503;
    /// none of them is closed for another one. 1,024: as many answers as a database owes at a time, and with their request heads
    /// and what was read after these 80 MiB at most. 0: none can be deferred.
    pub max_deferred: usize,
    /// Bytes of commands that may wait for the loop, 1,024 at least: what other threads ask of it by a [`Handle`](crate::Handle), payloads
    /// and some hundred bytes for each command. More fails with [`HandleError::Full`](crate::error::HandleError::Full). 64 MiB: as
    /// much as may be queued for one connection.
    pub max_handle_queue: usize,
    /// Bytes of the loop's one receive buffer, and so of one read, 1 to 1 GiB. 64 KiB: beyond that a read saves no time.
    pub read_buffer: usize,
    /// Reads per connection and turn before others get theirs, 1 to 255. 4: 256 KiB with the default buffer.
    pub reads_per_turn: u32,
    /// Bytes written per connection and turn before others get theirs, 1 to 65,535 KiB. 1 MiB and 64 KiB: a message of 1 MiB
    /// leaves in one piece, while it is in the processor's caches; in pieces of 256 KiB it cost a sixth more.
    pub write_bytes_per_turn: usize,
    /// Bytes that all connections together read, inflate and write in one turn, 1 at least; what exceeds them waits for the
    /// next turn. 4 MiB: about a millisecond of the kernel's time, so that deadlines and commands of others come that soon.
    pub turn_bytes: usize,
    /// Callbacks in one turn, 1 at least. 4,096: for the same reason. As many commands of other threads are executed besides, but no more
    /// than 1,024.
    pub turn_callbacks: u32,
    /// Connections that a sweep, or expiring deadlines, look at per turn, 1 at least. 4,096: a few milliseconds to look at and
    /// some ten to write to, so that the last Close frame of a large sweep does not wait for the answers to the first.
    pub sweep_slice: usize,
    /// Bytes that the backlogs of all connections may hold together, 1 at least. A message that several of them wait for counts
    /// once if it was sent to them by [`broadcast`](crate::Clients::broadcast) or [`send_to`](crate::Clients::send_to), and what
    /// waits for the write at the end of a callback counts, too. `None`, the default: no limit but
    /// [`max_backlog`](super::ConnectionConfig::max_backlog) for each; choose one by the memory of the machine.
    /// [`Stats::backlog_total`](crate::event::Stats::backlog_total) is what they hold.
    pub max_backlog_total: Option<usize>,
    /// What happens if the next message would exceed `max_backlog_total`. Refuse: the caller gets the error and decides. But then
    /// those who do not read keep the others from getting anything until a `stall_timeout` ends them.
    pub on_total_overflow: OnTotalOverflow,
    /// Bytes that the loop keeps in buffers of large messages (128 KiB and more) that were written, or only looked at, for the
    /// next ones; new ones would be page faults, and zeroed. 0 keeps none. 8 MiB: eight messages of 1 MiB in flight.
    pub buffer_pool: usize,
    /// Bytes not yet sent that the kernel may hold for a connection that closes with a backlog (`TCP_NOTSENT_LOWAT`,
    /// Linux), 1 to 2,147,483,647. What the kernel holds cannot be overtaken by a Close frame; what is in the backlog can be
    /// dropped for it when `flush_budget` is used up. 128 KiB; `None` leaves it to the kernel, which may hold megabytes. Only
    /// closing connections have it: for all of them it would cost a fifth of the time of large messages.
    pub notsent_lowat: Option<u32>,
}

impl Default for LoopConfig {
    fn default() -> Self {
        Self {
            max_connections: MAX_SLOTS,
            max_connections_per_address: None,
            max_handshakes: None,
            max_deferred: 1024,
            max_handle_queue: 64 << 20,
            read_buffer: 64 << 10,
            reads_per_turn: 4,
            write_bytes_per_turn: (1 << 20) + (64 << 10),
            turn_bytes: 4 << 20,
            turn_callbacks: 4096,
            sweep_slice: 4096,
            max_backlog_total: None,
            on_total_overflow: OnTotalOverflow::Refuse,
            buffer_pool: 8 << 20,
            notsent_lowat: Some(128 << 10),
        }
    }
}

/// A command without a payload fits.
pub(crate) const LEAST_HANDLE_QUEUE: usize = 1024;

impl LoopConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        within("event_loop.max_connections", self.max_connections, 1..=MAX_SLOTS)?;
        if let Some(per_address) = self.max_connections_per_address {
            positive("event_loop.max_connections_per_address", per_address)?;
        }
        if let Some(handshakes) = self.max_handshakes {
            positive("event_loop.max_handshakes", handshakes)?;
        }
        let queue = self.max_handle_queue;
        ensure(queue >= LEAST_HANDLE_QUEUE, "event_loop.max_handle_queue", queue, "at least 1024")?;
        within("event_loop.read_buffer", self.read_buffer, 1..=1 << 30)?;
        within("event_loop.reads_per_turn", self.reads_per_turn, 1..=u8::MAX.into())?;
        // A connection's share of a turn counts KiB in 16 bits.
        within(
            "event_loop.write_bytes_per_turn",
            self.write_bytes_per_turn,
            1..=usize::from(u16::MAX) << 10,
        )?;
        positive("event_loop.turn_bytes", self.turn_bytes)?;
        positive("event_loop.turn_callbacks", self.turn_callbacks)?;
        positive("event_loop.sweep_slice", self.sweep_slice)?;
        if let Some(bytes) = self.max_backlog_total {
            positive("event_loop.max_backlog_total", bytes)?;
        }
        if let Some(bytes) = self.notsent_lowat {
            within("event_loop.notsent_lowat", bytes, 1..=i32::MAX.unsigned_abs())?;
        }
        Ok(())
    }
}

/// What happens if the next message would exceed [`LoopConfig::max_backlog_total`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTotalOverflow {
    /// `send` says no, and nothing else happens.
    Refuse,
    /// The open connections with the largest backlogs are failed with 1013 until there is room, for an eighth of the limit at
    /// least, and what they had queued is dropped and counted as lost. `send` says no only if that is not enough, or if it was
    /// meant for one of them. O(connections) when it happens.
    CloseLargest,
}
