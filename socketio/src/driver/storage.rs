//! Carries calls to the store: at once if it is inline, else by its two threads, whose answers wake the loop.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::wake::{Clock, Waker};
use crate::core::{StoreCommand, StoreReply, Ticket};
use crate::store::{Parts, Reader, Writer};

/// The store as the driver sees it.
pub(super) enum Storage {
    /// On the loop.
    Inline { writer: Box<dyn Writer>, reader: Box<dyn Reader>, clock: Clock },
    /// On its threads.
    Threads(Threads),
}

/// The threads of a store that blocks. They end when this is dropped.
pub(super) struct Threads {
    writer: Sender<StoreCommand>,
    reader: Sender<StoreCommand>,
    answers: Arc<Answers>,
    /// Disconnected when both have ended, and with them the store is closed.
    ended: Receiver<()>,
}

/// Answers that the loop has not taken yet; at most one a command, and the core bounds those.
struct Answers {
    list: Mutex<Vec<(Ticket, StoreReply)>>,
    waker: Waker,
}

impl Storage {
    /// Starts the threads unless the store is inline.
    pub(super) fn start(parts: Parts, inline: bool, clock: Clock, waker: &Waker) -> io::Result<Self> {
        let Parts { mut writer, mut reader, .. } = parts;
        if inline {
            return Ok(Self::Inline { writer, reader, clock });
        }
        let answers = Arc::new(Answers { list: Mutex::default(), waker: waker.clone() });
        let (to_writer, commands) = mpsc::channel::<StoreCommand>();
        let (ending, ended) = mpsc::channel::<()>();
        let (shared, reader_ending) = (Arc::clone(&answers), ending.clone());
        thread::Builder::new().name("sio-store-writer".into()).spawn(move || {
            for StoreCommand { ticket, call } in commands {
                if let Ok(reply) = call.write(&mut *writer, clock.millis()) {
                    shared.push(ticket, reply);
                }
            }
            drop(writer);
            drop(ending);
        })?;
        let (to_reader, commands) = mpsc::channel::<StoreCommand>();
        let shared = Arc::clone(&answers);
        thread::Builder::new().name("sio-store-reader".into()).spawn(move || {
            for StoreCommand { ticket, call } in commands {
                if let Ok(reply) = call.read(&mut *reader, clock.millis()) {
                    shared.push(ticket, reply);
                }
            }
            drop(reader);
            drop(reader_ending);
        })?;
        Ok(Self::Threads(Threads { writer: to_writer, reader: to_reader, answers, ended }))
    }

    /// Makes the call. Gives the answer if the store is inline.
    pub(super) fn submit(&mut self, command: StoreCommand) -> Option<(Ticket, StoreReply)> {
        match self {
            Self::Inline { writer, reader, clock } => {
                let reply = command.call.execute(&mut **writer, &mut **reader, clock.millis());
                Some((command.ticket, reply))
            }
            Self::Threads(threads) => {
                let thread = if command.call.is_read() { &threads.reader } else { &threads.writer };
                // A thread that has panicked gives no answer: the store stalls, and the core says so.
                let _ = thread.send(command);
                None
            }
        }
    }

    /// Takes the answers that have come since the last call.
    pub(super) fn take_answers(&mut self, into: &mut Vec<(Ticket, StoreReply)>) {
        if let Self::Threads(threads) = self {
            into.append(&mut threads.answers.list.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Closes the store; waits for what its threads are at, `limit` at most. Returns whether it is closed.
    pub(super) fn close(self, limit: Duration) -> bool {
        match self {
            Self::Inline { .. } => true,
            Self::Threads(Threads { writer, reader, ended, .. }) => {
                drop((writer, reader));
                ended.recv_timeout(limit) == Err(RecvTimeoutError::Disconnected)
            }
        }
    }
}

impl Answers {
    fn push(&self, ticket: Ticket, reply: StoreReply) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push((ticket, reply));
        self.waker.wake();
    }
}
