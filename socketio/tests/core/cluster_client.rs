//! A client of the simulated cluster: it is on two namespaces, takes offsets as the official one does, and joins one of two
//! rooms in each.

use adjourn_socketio::links::LinkId;
use serde_json::Value;

pub(crate) const SPACES: [&str; 2] = ["/", "/b"];

#[derive(Default)]
pub(crate) struct Client {
    /// Is its room that of even clients?
    pub(crate) even: bool,
    pub(crate) node: usize,
    pub(crate) link: Option<LinkId>,
    pub(crate) seats: [Seat; 2],
}

/// Its session of one namespace.
#[derive(Default)]
pub(crate) struct Seat {
    sid: Option<String>,
    pid: Option<String>,
    offset: Option<String>,
    got: Vec<u64>,
    /// How long the log was when it was connected, and when its join was acked, for the first time.
    connected: Option<usize>,
    joined: Option<usize>,
    pub(crate) resumed: usize,
    /// The server has disconnected it.
    pub(crate) ended: bool,
}

impl Client {
    pub(crate) fn new(even: bool) -> Self {
        Self { even, ..Self::default() }
    }

    fn room(&self) -> &'static str {
        if self.even { "even" } else { "odd" }
    }

    pub(crate) fn has_joined(&self) -> bool {
        self.seats.iter().all(|seat| seat.joined.is_some())
    }

    /// What it says on a new connection.
    pub(crate) fn connects(&mut self) -> Vec<String> {
        let mut connects = Vec::new();
        for (seat, space) in self.seats.iter_mut().zip(["", "/b,"]) {
            seat.ended = false;
            let auth = match (&seat.pid, &seat.offset) {
                (Some(pid), Some(offset)) => format!(r#"{{"pid":"{pid}","offset":"{offset}"}}"#),
                (Some(pid), None) => format!(r#"{{"pid":"{pid}"}}"#),
                _ => String::new(),
            };
            connects.push(format!("40{space}{auth}"));
        }
        connects
    }

    /// Takes a frame; the answer to it. `lengths` are those of the logs now.
    pub(crate) fn frame(&mut self, frame: &str, lengths: [usize; 2]) -> Option<String> {
        if frame == "2" {
            return Some("3".to_owned());
        }
        let packet = frame.strip_prefix('4')?;
        let (kind, rest) = packet.split_at_checked(1)?;
        let (space, rest) = rest.strip_prefix("/b,").map_or((0, rest), |rest| (1, rest));
        let room = self.room();
        let seat = &mut self.seats[space];
        match kind {
            "0" => {
                seat.connect_answer(rest, lengths[space]);
                let space = if space == 0 { "" } else { "/b," };
                seat.joined.is_none().then(|| format!(r#"42{space}7["join","{room}"]"#))
            }
            "1" => {
                seat.ended = true;
                None
            }
            "2" => {
                seat.event(rest);
                None
            }
            "3" => {
                assert_eq!(rest, "7[]", "an ack");
                seat.joined.get_or_insert(lengths[space]);
                None
            }
            _ => panic!("{frame}"),
        }
    }
}

impl Seat {
    fn connect_answer(&mut self, answer: &str, length: usize) {
        let answer: Value = serde_json::from_str(answer).expect("JSON");
        let text = |name: &str| answer[name].as_str().map(str::to_owned);
        assert!(text("pid").is_some(), "a session that cannot be resumed");
        if self.pid.is_some() {
            assert_eq!((&self.pid, &self.sid), (&text("pid"), &text("sid")), "not resumed");
            self.resumed += 1;
        }
        (self.pid, self.sid) = (text("pid"), text("sid"));
        self.connected.get_or_insert(length);
    }

    fn event(&mut self, event: &str) {
        let event: Vec<Value> = serde_json::from_str(event).expect("an event");
        if let Some(offset) = event.last().and_then(Value::as_str) {
            self.offset = Some(offset.to_owned());
        }
        if let Some(number) = event.get(1).and_then(Value::as_u64) {
            self.got.push(number);
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.got.len()
    }

    /// Is what it got the log's end, without a gap, nothing twice, in order?
    pub(crate) fn judge(&self, log: &[u64], even: bool) -> Result<(), String> {
        let places: Option<Vec<usize>> =
            self.got.iter().map(|number| log.iter().position(|logged| logged == number)).collect();
        let places = places.ok_or_else(|| format!("got {:?}\nnot in {log:?}", self.got))?;
        if !places.is_sorted_by(|a, b| a < b) {
            return Err(format!("twice or out of order: {:?}\nof {log:?}", self.got));
        }
        let of_room = if even { 1 } else { 2 };
        if let Some(strange) = self.got.iter().find(|number| ![0, of_room].contains(&(*number % 3))) {
            return Err(format!("{strange} is for a room that it is not in"));
        }
        for (kind, since) in [(0, self.connected), (of_room, self.joined)] {
            let Some(since) = since else { return Err("it was never connected, or never joined".into()) };
            let is_of = |number: &u64| number % 3 == kind;
            let got: Vec<u64> = self.got.iter().copied().filter(is_of).collect();
            let due: Vec<u64> = log[since..].iter().copied().filter(is_of).collect();
            let all: Vec<u64> = log.iter().copied().filter(is_of).collect();
            // A join that was not acked may be lost with its node.
            if !got.ends_with(&due) || (kind == 0 && !all.ends_with(&got)) {
                return Err(format!("of kind {kind} it got {got:?}\nof {all:?}\ndue were {due:?}"));
            }
        }
        Ok(())
    }
}
