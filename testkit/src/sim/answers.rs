//! The HTTP answer to a request: what a client sees of it, and whether it agrees with the event that says why there is one.

use adjourn::error::HandshakeError;

use super::checker::{Checker, ensure};

/// The head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
    /// `Connection: close`.
    pub closes: bool,
}

impl Answer {
    /// The answer with this head; `None` if it has no status.
    pub fn parse(head: &str) -> Option<Self> {
        let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let retry_after = header(head, "retry-after").and_then(|seconds| seconds.parse().ok());
        let closes = header(head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        Some(Self { status, retry_after, closes })
    }
}

/// The value of a header.
pub fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (known, value) = line.split_once(':')?;
        known.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

impl Checker {
    /// An answer is on the wire.
    pub fn saw_answer(&mut self, conn: u32, answer: Answer) {
        self.of(conn).answered = Some(answer);
        self.check_answer(conn);
    }

    /// A handshake has failed for `cause`.
    pub fn refused_for(&mut self, conn: u32, cause: HandshakeError) {
        self.of(conn).refused_for = Some(cause);
        self.check_answer(conn);
    }

    /// The answer and the event come in either order.
    fn check_answer(&mut self, conn: u32) {
        let facts = &self.facts[conn as usize];
        let (Some(answer), Some(cause)) = (facts.answered, facts.refused_for) else { return };
        let seconds = self.config.handshake.retry_after.as_micros().div_ceil(1_000_000);
        let says_when = answer.retry_after.map(u128::from) == Some(seconds) && answer.closes;
        let right = match cause {
            HandshakeError::Timeout => answer.status == 408,
            HandshakeError::ShuttingDown | HandshakeError::TooManyConnections { .. } => {
                answer.status == 503 && says_when
            }
            HandshakeError::HeadTooLarge => answer.status == 431,
            HandshakeError::BadVersion => answer.status == 426,
            HandshakeError::BadRequest => matches!(answer.status, 400 | 405 | 426 | 505),
            // By the application, or because it has panicked.
            HandshakeError::Rejected => matches!(answer.status, 403 | 500 | 503),
            _ => false,
        };
        ensure!(self, conn, "the_answer_says_why", right, "{answer:?} for {cause:?}");
    }
}
