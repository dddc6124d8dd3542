//! The protocol read off the picture in RFC 6455 §5.2, slowly and plainly: bit by bit, one frame after the other, the
//! whole input at hand. It shares nothing with `wire` and `conn`, and is not meant to be fast.

/// What a server's application hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// The peer's Close: code and reason.
    Close(Option<(u16, String)>),
}

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With the peer's Close.
    Close,
    /// With the bytes, and a header may be cut.
    Bytes { in_header: bool },
    /// The peer broke a rule, and this is the code to fail the connection with.
    Failed(u16),
}

pub struct Limits {
    /// Bytes of a message.
    pub payload: u64,
    /// Fragments of a message.
    pub fragments: u32,
}

/// Reads what a client sends behind its upgrade request.
pub fn read(bytes: &[u8], limits: &Limits) -> (Vec<Heard>, End) {
    let mut bits = Bits { bytes, at: 0 };
    let mut heard = Vec::new();
    // The message under way: its opcode, its payload, its fragments.
    let mut message: Option<(u64, Vec<u8>, u32)> = None;
    loop {
        if bits.at == 8 * bytes.len() {
            return (heard, End::Bytes { in_header: false });
        }
        let Some(frame) = header(&mut bits) else { return (heard, End::Bytes { in_header: true }) };
        if let Some(code) =
            violation(&frame, message.as_ref().map(|(_, payload, _)| payload.len() as u64), limits)
        {
            return (heard, End::Failed(code));
        }
        let payload = payload(&mut bits, &frame);
        let whole = payload.len() as u64 == frame.length;
        if frame.opcode >= 8 {
            if !whole {
                return (heard, End::Bytes { in_header: false });
            }
            match frame.opcode {
                9 => heard.push(Heard::Ping(payload)),
                10 => heard.push(Heard::Pong(payload)),
                _ => match close(&payload) {
                    Ok(close) => {
                        heard.push(Heard::Close(close));
                        return (heard, End::Close);
                    }
                    Err(code) => return (heard, End::Failed(code)),
                },
            }
            continue;
        }
        let (opcode, so_far, fragments) = message.get_or_insert((frame.opcode, Vec::new(), 0));
        *fragments += 1;
        if *fragments > limits.fragments {
            return (heard, End::Failed(1009));
        }
        so_far.extend(payload);
        let last = whole && frame.fin;
        if *opcode == 1 && !is_text(so_far, last) {
            return (heard, End::Failed(1007));
        }
        if last {
            let (opcode, payload, _) = message.take().expect("there is one");
            heard.push(match opcode {
                1 => Heard::Text(String::from_utf8(payload).expect("it was checked")),
                _ => Heard::Binary(payload),
            });
        }
        if !whole {
            return (heard, End::Bytes { in_header: false });
        }
    }
}

/// The head of a frame.
struct Frame {
    fin: bool,
    reserved: u64,
    opcode: u64,
    length: u64,
    /// Length in the form that §5.2 asks for.
    shortest: bool,
    key: Option<[u8; 4]>,
}

/// ```text
///   0                   1                   2                   3
///   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
///  +-+-+-+-+-------+-+-------------+-------------------------------+
///  |F|R|R|R| opcode|M| Payload len |    Extended payload length    |
///  |I|S|S|S|  (4)  |A|     (7)     |             (16/64)           |
///  |N|V|V|V|       |S|             |   (if payload len==126/127)   |
///  | |1|2|3|       |K|             |                               |
///  +-+-+-+-+-------+-+-------------+ - - - - - - - - - - - - - - - +
///  |     Extended payload length continued, if payload len == 127  |
///  + - - - - - - - - - - - - - - - +-------------------------------+
///  |                               |Masking-key, if MASK set to 1  |
///  +-------------------------------+-------------------------------+
///  | Masking-key (continued)       |          Payload Data         |
///  +-------------------------------- - - - - - - - - - - - - - - - +
/// ```
fn header(bits: &mut Bits<'_>) -> Option<Frame> {
    let (fin, reserved, opcode) = (bits.take(1)? == 1, bits.take(3)?, bits.take(4)?);
    let (masked, short) = (bits.take(1)? == 1, bits.take(7)?);
    let (length, shortest) = match short {
        126 => bits.take(16).map(|length| (length, length > 125))?,
        127 => bits.take(64).map(|length| (length, length > 0xFFFF && length >> 63 == 0))?,
        short => (short, true),
    };
    let key = if masked { Some(u32::try_from(bits.take(32)?).expect("32 bits").to_be_bytes()) } else { None };
    Some(Frame { fin, reserved, opcode, length, shortest, key })
}

/// The code to fail the connection with for what a header says. `under_way`: the length of an unfinished message.
fn violation(frame: &Frame, under_way: Option<u64>, limits: &Limits) -> Option<u16> {
    let control = frame.opcode >= 8;
    let broken = frame.reserved != 0
        || matches!(frame.opcode, 3..=7 | 11..=15)
        || (control && (!frame.fin || frame.length > 125))
        || !frame.shortest
        || frame.key.is_none()
        || (!control && (frame.opcode == 0) != under_way.is_some());
    let too_big = !control && under_way.unwrap_or(0).saturating_add(frame.length) > limits.payload;
    if broken { Some(1002) } else { too_big.then_some(1009) }
}

/// What there is of a frame's payload (§5.3: octet i, exclusive or octet i mod 4 of the key).
fn payload(bits: &mut Bits<'_>, frame: &Frame) -> Vec<u8> {
    let mut payload = Vec::new();
    while (payload.len() as u64) < frame.length
        && let Some(byte) = bits.take(8)
    {
        let byte = u8::try_from(byte).expect("8 bits");
        payload.push(byte ^ frame.key.map_or(0, |key| key[payload.len() % 4]));
    }
    payload
}

/// §5.5.1, §7.4: nothing, or a code that may be sent, and a reason.
fn close(payload: &[u8]) -> Result<Option<(u16, String)>, u16> {
    match payload {
        [] => Ok(None),
        [_] => Err(1002),
        [high, low, reason @ ..] => {
            let code = u16::from(*high) * 256 + u16::from(*low);
            let (defined, free) =
                ([1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014], 3000..5000);
            if !defined.contains(&code) && !free.contains(&code) {
                return Err(1002);
            }
            let reason = String::from_utf8(reason.to_vec()).map_err(|_| 1007_u16)?;
            Ok(Some((code, reason)))
        }
    }
}

/// RFC 3629 §4 as its grammar has it. Of an unfinished text, what is there must be the beginning of one.
fn is_text(bytes: &[u8], finished: bool) -> bool {
    const TAIL: (u8, u8) = (0x80, 0xBF);
    const FORMS: [&[(u8, u8)]; 9] = [
        &[(0x00, 0x7F)],
        &[(0xC2, 0xDF), TAIL],
        &[(0xE0, 0xE0), (0xA0, 0xBF), TAIL],
        &[(0xE1, 0xEC), TAIL, TAIL],
        &[(0xED, 0xED), (0x80, 0x9F), TAIL],
        &[(0xEE, 0xEF), TAIL, TAIL],
        &[(0xF0, 0xF0), (0x90, 0xBF), TAIL, TAIL],
        &[(0xF1, 0xF3), TAIL, TAIL, TAIL],
        &[(0xF4, 0xF4), (0x80, 0x8F), TAIL, TAIL],
    ];
    let fits = |form: &[(u8, u8)], bytes: &[u8]| {
        form.iter().zip(bytes).all(|((lowest, highest), byte)| (lowest..=highest).contains(&byte))
    };
    let mut rest = bytes;
    while !rest.is_empty() {
        let Some(form) = FORMS.iter().find(|form| fits(form, rest)) else { return false };
        if rest.len() < form.len() {
            return !finished;
        }
        rest = &rest[form.len()..];
    }
    true
}

/// Bits, most significant first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, n: usize) -> Option<u64> {
        let mut number = 0;
        for at in self.at..self.at + n {
            let byte = self.bytes.get(at / 8)?;
            number = number << 1 | u64::from(byte >> (7 - at % 8) & 1);
        }
        self.at += n;
        Some(number)
    }
}
