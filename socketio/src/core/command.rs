//! What the core asks of the store, and the answers. The driver carries both; nothing here waits.
//!
//! Writer's calls are executed in the order of `poll_store` and answered in that order; reader's calls beside them.

use std::ops::Range;
use std::sync::Arc;

use crate::offset::Position;
use crate::store::{
    Attach, AttachError, Attached, Batch, Committed, Entry, LogLimits, Millis, NodeId, OnceKey, Page, Reader,
    Run, SessionSummary, StoreError, TransactContext, TransactError, Transacted, Trimmed, Writer,
};

/// Which call an answer belongs to; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// One call of the store.
pub struct StoreCommand {
    /// For the answer.
    pub ticket: Ticket,
    /// The call.
    pub call: StoreCall,
}

/// A call of [`Writer`] or [`Reader`].
pub enum StoreCall {
    /// [`Writer::commit`].
    Commit(Batch),
    /// [`Writer::attach`].
    Attach(Attach),
    /// [`Writer::transact`].
    Transact(Option<OnceKey>, TransactContext, Run<'static>),
    /// [`Writer::trim`].
    Trim(Arc<str>, LogLimits),
    /// [`Writer::expire`].
    Expire(usize),
    /// [`Writer::drop_log`].
    DropLog(Arc<str>),
    /// [`Reader::page`]; the last number is bytes.
    Page(Arc<str>, Range<Position>, usize),
    /// [`Reader::asks`].
    Asks(Arc<str>, Range<Position>),
}

/// The answer to a [`StoreCall`], under the same name.
#[derive(Debug)]
pub enum StoreReply {
    /// To `Commit`.
    Commit(Result<Committed, StoreError>),
    /// To `Attach`.
    Attach(Result<Box<Attached>, AttachError>),
    /// To `Transact`.
    Transact(Result<Transacted, TransactError>),
    /// To `Trim`.
    Trim(Result<Trimmed, StoreError>),
    /// To `Expire`.
    Expire(Result<Vec<SessionSummary>, StoreError>),
    /// To `DropLog`.
    DropLog(Result<bool, StoreError>),
    /// To `Page`.
    Page(Result<Page, StoreError>),
    /// To `Asks`.
    Asks(Result<Vec<Entry>, StoreError>),
}

/// What the core asks of the feed and the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedCommand {
    /// [`Feed::follow`](crate::store::Feed::follow).
    Follow(Arc<str>),
    /// [`Feed::leave`](crate::store::Feed::leave).
    Leave(Arc<str>),
    /// [`Bus::send`](crate::store::Bus::send).
    Send(Option<NodeId>, Vec<u8>),
}

impl StoreCall {
    /// Is it a call of the reader?
    pub const fn is_read(&self) -> bool {
        matches!(self, Self::Page(..) | Self::Asks(..))
    }

    /// Makes a call of the writer; `Err` gives back one of the reader.
    pub fn write(self, writer: &mut dyn Writer, now: Millis) -> Result<StoreReply, Self> {
        Ok(match self {
            Self::Commit(batch) => StoreReply::Commit(writer.commit(&batch, now)),
            Self::Attach(ask) => StoreReply::Attach(writer.attach(&ask, now).map(Box::new)),
            Self::Transact(key, context, run) => {
                StoreReply::Transact(writer.transact(key.as_ref(), &context, run, now))
            }
            Self::Trim(namespace, limits) => StoreReply::Trim(writer.trim(&namespace, &limits, now)),
            Self::Expire(max) => StoreReply::Expire(writer.expire(now, max)),
            Self::DropLog(namespace) => StoreReply::DropLog(writer.drop_log(&namespace)),
            read @ (Self::Page(..) | Self::Asks(..)) => return Err(read),
        })
    }

    /// Makes a call of the reader; `Err` gives back one of the writer.
    pub fn read(self, reader: &mut dyn Reader, now: Millis) -> Result<StoreReply, Self> {
        Ok(match self {
            Self::Page(namespace, of, bytes) => StoreReply::Page(reader.page(&namespace, of, bytes)),
            Self::Asks(namespace, of) => StoreReply::Asks(reader.asks(&namespace, of, now)),
            write => return Err(write),
        })
    }

    /// Makes either, on a store that is inline.
    pub fn execute(self, writer: &mut dyn Writer, reader: &mut dyn Reader, now: Millis) -> StoreReply {
        match self.write(writer, now) {
            Ok(reply) => reply,
            Err(read) => match read.read(reader, now) {
                Ok(reply) => reply,
                Err(_) => unreachable!("each call is the writer's or the reader's"),
            },
        }
    }
}
