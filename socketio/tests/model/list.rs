//! The naive list: what was called, in order, and what each session is to get of it.

use std::collections::HashMap;
use std::fmt;

/// Certain, impossible, or not known: what a crash may have taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Maybe {
    Yes,
    No,
    Perhaps,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// On its way to the store.
    Pending,
    /// In the store.
    Kept,
    /// It failed, or a crash took it.
    Lost,
}

#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) what: What,
    pub(crate) fate: Fate,
    /// Handed to the store with that fate (for entries, in the order of calls).
    pub(crate) entry: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    Emit {
        number: u64,
        rooms: Vec<String>,
        except: Vec<String>,
    },
    /// By a handler of the socket.
    Member {
        sid: String,
        room: String,
        join: bool,
    },
    /// By an entry.
    Rooms {
        rooms: Vec<String>,
        room: String,
        join: bool,
    },
}

#[derive(Clone, Debug, Default)]
pub(crate) struct List {
    pub(crate) ops: Vec<Op>,
}

/// One session as its client has seen it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lineage {
    pub(crate) sid: String,
    /// It began between these places of the list.
    pub(crate) began: (usize, usize),
    pub(crate) received: Vec<u64>,
    /// It can miss the end: it was refused, or ended by somebody.
    pub(crate) over: bool,
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ops
            .iter()
            .enumerate()
            .try_for_each(|(index, op)| writeln!(f, "{index} {:?} {:?}", op.fate, op.what))
    }
}

impl List {
    /// The entry that the store has appended next is the first that is pending.
    pub(crate) fn appended(&mut self, is_it: impl FnOnce(&What) -> bool) {
        let next = self.ops.iter_mut().find(|op| op.entry && op.fate == Fate::Pending);
        let op = next.expect("the store appends what was called");
        assert!(is_it(&op.what), "entries are appended in the order of calls: {op:?}");
        op.fate = Fate::Kept;
    }

    /// A crash: what was not kept is lost, and changes by handlers that were not reported as saved are not known.
    pub(crate) fn crash(&mut self) {
        for op in &mut self.ops {
            if op.fate == Fate::Pending {
                op.fate = Fate::Lost;
            }
        }
    }

    fn is_in(rooms: &HashMap<&str, Maybe>, sid: &str, room: &str) -> Maybe {
        if room == sid { Maybe::Yes } else { rooms.get(room).copied().unwrap_or(Maybe::No) }
    }

    fn any<'r>(rooms: &HashMap<&str, Maybe>, sid: &str, of: impl Iterator<Item = &'r String>) -> Maybe {
        of.fold(Maybe::No, |any, room| match (any, Self::is_in(rooms, sid, room)) {
            (Maybe::Yes, _) | (_, Maybe::Yes) => Maybe::Yes,
            (Maybe::Perhaps, _) | (_, Maybe::Perhaps) => Maybe::Perhaps,
            _ => Maybe::No,
        })
    }

    fn concerns(rooms: &HashMap<&str, Maybe>, sid: &str, to: &[String], except: &[String]) -> Maybe {
        let included = if to.is_empty() { Maybe::Yes } else { Self::any(rooms, sid, to.iter()) };
        match (included, Self::any(rooms, sid, except.iter())) {
            (Maybe::No, _) | (_, Maybe::Yes) => Maybe::No,
            (Maybe::Yes, Maybe::No) => Maybe::Yes,
            _ => Maybe::Perhaps,
        }
    }

    /// What a session is to get, in order, and the rooms that it is in at the end.
    pub(crate) fn expected(&self, of: &Lineage, phantoms: bool) -> (Vec<(u64, Maybe)>, HashMap<&str, Maybe>) {
        let mut rooms: HashMap<&str, Maybe> = HashMap::new();
        let mut events = Vec::new();
        for (index, op) in self.ops.iter().enumerate().skip(of.began.0) {
            let in_window = index < of.began.1;
            match &op.what {
                What::Emit { number, rooms: to, except } => {
                    let concerns = Self::concerns(&rooms, &of.sid, to, except);
                    let maybe = match (concerns, op.fate) {
                        (Maybe::No, _) => continue,
                        (_, Fate::Lost) if phantoms => Maybe::Perhaps,
                        (_, Fate::Lost) => continue,
                        (Maybe::Yes, Fate::Kept) if !in_window => Maybe::Yes,
                        _ => Maybe::Perhaps,
                    };
                    events.push((*number, maybe));
                }
                What::Member { sid, room, join } if *sid == of.sid => {
                    let new = if *join { Maybe::Yes } else { Maybe::No };
                    Self::set(&mut rooms, room, new, op.fate == Fate::Kept);
                }
                What::Member { .. } => {}
                What::Rooms { rooms: to, room, join } => {
                    let new = if *join { Maybe::Yes } else { Maybe::No };
                    let certain = match Self::concerns(&rooms, &of.sid, to, &[]) {
                        Maybe::No => continue,
                        Maybe::Yes => op.fate == Fate::Kept && !in_window,
                        Maybe::Perhaps => false,
                    };
                    if op.fate == Fate::Lost && !phantoms {
                        continue;
                    }
                    Self::set(&mut rooms, room, new, certain);
                }
            }
        }
        (events, rooms)
    }

    fn set<'l>(rooms: &mut HashMap<&'l str, Maybe>, room: &'l str, new: Maybe, certain: bool) {
        let old = rooms.get(room).copied().unwrap_or(Maybe::No);
        rooms.insert(room, if certain || old == new { new } else { Maybe::Perhaps });
    }

    /// Each event once, in order, nothing that is not its own, nothing missed.
    pub(crate) fn check(&self, of: &Lineage, phantoms: bool) {
        let (expected, _) = self.expected(of, phantoms);
        let mut received = of.received.iter().copied().peekable();
        for (number, maybe) in &expected {
            if received.peek() == Some(number) {
                received.next();
                continue;
            }
            if *maybe == Maybe::Yes {
                if received.peek().is_none() && of.over {
                    return;
                }
                self.fail(of, &expected, &format!("{number} is missing"));
            }
        }
        if let Some(number) = received.next() {
            self.fail(of, &expected, &format!("{number} is too much: doubled, out of order, or of another"));
        }
    }

    fn fail(&self, of: &Lineage, expected: &[(u64, Maybe)], what: &str) -> ! {
        panic!("{what}\n{of:?}\nexpected {expected:?}\n{self}");
    }
}
