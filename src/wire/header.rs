//! One frame header off a slice, one onto a buffer (§5.2).
//!
//! Every message passes it twice, so it is written by hand: it takes fewer instructions than tungstenite's, and it is as strict
//! as §5.2 demands. The tests compare it with tungstenite. No connection enters.
//!
//! ```text
//!   byte 0: F R R R opcode      byte 1: M length     then: 0, 2 or 8 bytes of length, 0 or 4 of mask
//! ```

use crate::error::ProtocolError;

/// The longest header: 2 bytes, 8 of length, 4 of mask (§5.2).
pub const MAX_HEADER: usize = 14;

/// The longest payload of a control frame (§5.5).
pub const MAX_CONTROL_PAYLOAD: usize = 125;

/// What a frame is (§11.8). Reserved opcodes have no variant: [`parse`] rejects them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opcode {
    /// A further piece of the message that a `Text` or `Binary` frame began.
    Continuation,
    /// A message of UTF-8, or its first piece.
    Text,
    /// A message of bytes, or its first piece.
    Binary,
    /// The sender's last frame.
    Close,
    /// Wants a `Pong` with the same payload.
    Ping,
    /// Answers a `Ping`, or is sent without one.
    Pong,
}

impl Opcode {
    /// Whether frames of this kind may be sent between the fragments of a message (§5.5).
    #[inline]
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    #[inline]
    const fn of(first: u8) -> Result<Self, ProtocolError> {
        Ok(match first & 0x0F {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            reserved => return Err(ProtocolError::ReservedOpcode(reserved)),
        })
    }

    #[inline]
    const fn code(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }
}

/// A whole header that breaks no rule which can be judged without knowing the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The last frame of its message.
    pub fin: bool,
    /// The first reserved bit. An error unless an extension gives it a meaning: the caller knows.
    pub rsv1: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// The masking key. Whether there must be one depends on the sender: the caller knows.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload; below 2^63.
    pub length: u64,
    /// Bytes of the header itself: 2 to [`MAX_HEADER`].
    pub header_length: usize,
}

impl Header {
    /// What [`peek`] returns for this header.
    #[inline]
    pub const fn prefix(&self) -> Prefix {
        Prefix {
            fin: self.fin,
            rsv1: self.rsv1,
            opcode: self.opcode,
            masked: Some(self.mask.is_some()),
            length_so_far: self.length,
        }
    }
}

/// What the first bytes of a header show: everything that a rule of the connection can depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The last frame of its message.
    pub fin: bool,
    /// The first reserved bit.
    pub rsv1: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// Whether a masking key follows; `None` while only the first byte is here.
    pub masked: Option<bool>,
    /// The least length of the payload: bytes of the length that are missing count as 0.
    pub length_so_far: u64,
}

/// Cuts the header off the front of `bytes`. `None`: more bytes are needed.
///
/// A violation is reported with the first byte that shows it, even if the rest of the header is still missing: the
/// reserved bits and opcodes and a fragmented control frame with byte 0, a long control frame with byte 1, the 64-bit
/// length's top bit with byte 2, and a length that had a shorter form as soon as no further byte can change that.
///
/// After `None`, the caller checks the rules that it alone knows by [`peek`].
#[inline(always)]
#[expect(clippy::inline_always, reason = "a third fewer instructions: what the caller knows falls out")]
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, ProtocolError> {
    let &[first, second, ref rest @ ..] = bytes else {
        return bytes.first().map_or(Ok(None), |first| check_first(*first).map(|_| None));
    };
    let opcode = check_first(first)?;
    let short = second & 0x7F;
    // A control frame may not use the longer forms at all, so 126 and 127 count as too long, whatever follows.
    if opcode.is_control() && usize::from(short) > MAX_CONTROL_PAYLOAD {
        return Err(ProtocolError::ControlTooLong);
    }
    let (length, rest, unmasked) = match short {
        126 => match rest.split_first_chunk() {
            Some((length, rest)) => (check_16(*length)?, rest, 4),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk() {
            Some((length, rest)) => (check_64(*length)?, rest, 10),
            None => return check_cut_64(rest).map(|()| None),
        },
        short => (u64::from(short), rest, 2),
    };
    let (fin, rsv1) = (first & 0x80 != 0, first & 0x40 != 0);
    if second & 0x80 == 0 {
        return Ok(Some(Header { fin, rsv1, opcode, mask: None, length, header_length: unmasked }));
    }
    let Some(&key) = rest.first_chunk() else { return Ok(None) };
    Ok(Some(Header { fin, rsv1, opcode, mask: Some(key), length, header_length: unmasked + 4 }))
}

/// What the beginning of a header shows so far, under the same rules as [`parse`]. `None`: there is no byte yet. For headers
/// that are cut, and to find which byte of a header showed a violation first.
#[cold]
#[inline(never)]
pub fn peek(bytes: &[u8]) -> Result<Option<Prefix>, ProtocolError> {
    let Some(&first) = bytes.first() else {
        return Ok(None);
    };
    let opcode = check_first(first)?;
    parse(bytes)?;
    let mut so_far = [0; 8];
    let long = match bytes.get(1).map_or(0, |second| second & 0x7F) {
        126 => so_far.get_mut(6..),
        127 => so_far.get_mut(..),
        short => {
            so_far = u64::from(short).to_be_bytes();
            None
        }
    };
    let long = long.unwrap_or_default();
    for (place, byte) in long.iter_mut().zip(bytes.get(2..).unwrap_or_default()) {
        *place = *byte;
    }
    Ok(Some(Prefix {
        fin: first & 0x80 != 0,
        rsv1: first & 0x40 != 0,
        opcode,
        masked: bytes.get(1).map(|second| second & 0x80 != 0),
        length_so_far: u64::from_be_bytes(so_far),
    }))
}

/// Appends one header to `out`, its length in the shortest form (§5.2). Allocates only as `out` grows.
///
/// The caller follows the rules of what it sends: no control frame without `fin` or of more than
/// [`MAX_CONTROL_PAYLOAD`] bytes, `rsv1` only if negotiated.
#[inline(always)]
#[expect(clippy::inline_always, reason = "a third fewer instructions: what the caller knows falls out")]
pub fn write(out: &mut Vec<u8>, fin: bool, rsv1: bool, opcode: Opcode, mask: Option<[u8; 4]>, length: u64) {
    debug_assert!(length >> 63 == 0, "no payload is that long");
    debug_assert!(!opcode.is_control() || fin, "a control frame is never fragmented");
    debug_assert!(!opcode.is_control() || length <= MAX_CONTROL_PAYLOAD as u64, "a control frame is short");
    let first = u8::from(fin) << 7 | u8::from(rsv1) << 6 | opcode.code();
    let masked = u8::from(mask.is_some()) << 7;
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..126), _) => out.extend_from_slice(&[first, masked | short]),
        (_, Ok(length)) => {
            let [high, low] = length.to_be_bytes();
            out.extend_from_slice(&[first, masked | 0x7E, high, low]);
        }
        _ => {
            out.extend_from_slice(&[first, masked | 0x7F]);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    if let Some(key) = mask {
        out.extend_from_slice(&key);
    }
}

/// Bytes on the wire of a frame with that much payload.
#[inline]
pub const fn frame_length(payload: usize, masked: bool) -> usize {
    let length = if payload < 126 {
        2
    } else if payload < 0x1_0000 {
        4
    } else {
        10
    };
    payload + length + if masked { 4 } else { 0 }
}

#[inline]
fn check_first(first: u8) -> Result<Opcode, ProtocolError> {
    // RSV1 belongs to permessage-deflate (RFC 7692 §6); no extension uses the other two.
    if first & 0x30 != 0 {
        return Err(ProtocolError::ReservedBits);
    }
    let opcode = Opcode::of(first)?;
    if opcode.is_control() && first & 0x80 == 0 {
        return Err(ProtocolError::FragmentedControl);
    }
    Ok(opcode)
}

/// "The minimal number of bytes MUST be used", and of eight "the most significant bit MUST be 0" (§5.2). Two ways to
/// write one length are two ways for two parsers to disagree about where the next frame begins.
#[inline]
const fn check_16(length: [u8; 2]) -> Result<u64, ProtocolError> {
    match u16::from_be_bytes(length) {
        0..126 => Err(ProtocolError::NonMinimalLength),
        length => Ok(length as u64),
    }
}

#[inline]
const fn check_64(length: [u8; 8]) -> Result<u64, ProtocolError> {
    match u64::from_be_bytes(length) {
        0..0x1_0000 => Err(ProtocolError::NonMinimalLength),
        length if length >> 63 != 0 => Err(ProtocolError::LengthTopBit),
        length => Ok(length),
    }
}

/// What the first bytes of a 64-bit length show.
fn check_cut_64(bytes: &[u8]) -> Result<(), ProtocolError> {
    match bytes {
        [top, ..] if top & 0x80 != 0 => Err(ProtocolError::LengthTopBit),
        // Six zero bytes leave 16 bits, for which there is the shorter form.
        [0, 0, 0, 0, 0, 0, ..] => Err(ProtocolError::NonMinimalLength),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[expect(clippy::type_complexity, reason = "rows of tables")]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;
    use tungstenite::protocol::frame::FrameHeader;

    use super::*;

    type Row<'a> =
        (&'a str, &'a [u8], Result<Option<(Opcode, bool, bool, Option<[u8; 4]>, u64, usize)>, ProtocolError>);

    #[test]
    fn headers_off_the_wire() {
        use Opcode::{Binary, Close, Continuation, Ping, Pong, Text};
        let rows: &[Row<'_>] = &[
            ("nothing is here yet", &[], Ok(None)),
            ("one byte is not enough", &[0x81], Ok(None)),
            ("an unmasked text of 5", &[0x81, 0x05], Ok(Some((Text, true, false, None, 5, 2)))),
            (
                "payload after the header is not looked at",
                &[0x81, 0x05, 0xFF],
                Ok(Some((Text, true, false, None, 5, 2))),
            ),
            (
                "a masked text of 5",
                &[0x81, 0x85, 1, 2, 3, 4],
                Ok(Some((Text, true, false, Some([1, 2, 3, 4]), 5, 6))),
            ),
            ("a mask that is cut", &[0x81, 0x85, 1, 2, 3], Ok(None)),
            ("a first fragment, binary", &[0x02, 0x00], Ok(Some((Binary, false, false, None, 0, 2)))),
            ("a middle fragment", &[0x00, 0x01], Ok(Some((Continuation, false, false, None, 1, 2)))),
            ("a last fragment", &[0x80, 0x01], Ok(Some((Continuation, true, false, None, 1, 2)))),
            ("RSV1 is the caller's business", &[0xC1, 0x01], Ok(Some((Text, true, true, None, 1, 2)))),
            ("an empty Close", &[0x88, 0x00], Ok(Some((Close, true, false, None, 0, 2)))),
            ("a Ping of 125", &[0x89, 0x7D], Ok(Some((Ping, true, false, None, 125, 2)))),
            ("a Pong", &[0x8A, 0x00], Ok(Some((Pong, true, false, None, 0, 2)))),
            ("125 in 7 bits", &[0x82, 0x7D], Ok(Some((Binary, true, false, None, 125, 2)))),
            ("126 in 16 bits", &[0x82, 0x7E, 0, 126], Ok(Some((Binary, true, false, None, 126, 4)))),
            ("65535 in 16 bits", &[0x82, 0x7E, 0xFF, 0xFF], Ok(Some((Binary, true, false, None, 65_535, 4)))),
            ("16 bits of length, cut", &[0x82, 0x7E, 0], Ok(None)),
            (
                "65536 in 64 bits",
                &[0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0],
                Ok(Some((Binary, true, false, None, 65_536, 10))),
            ),
            (
                "2^63 - 1, masked: the longest header",
                &[0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 9, 8, 7, 6],
                Ok(Some((Binary, true, false, Some([9, 8, 7, 6]), u64::MAX >> 1, 14))),
            ),
            ("64 bits of length, cut", &[0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0], Ok(None)),
            ("RSV2, with the first byte alone", &[0xA1], Err(ProtocolError::ReservedBits)),
            ("RSV3, with the first byte alone", &[0x91], Err(ProtocolError::ReservedBits)),
            ("RSV2 in a whole header", &[0xA1, 0x00], Err(ProtocolError::ReservedBits)),
            ("opcode 3, with the first byte alone", &[0x83], Err(ProtocolError::ReservedOpcode(3))),
            ("opcode 7", &[0x87, 0x00], Err(ProtocolError::ReservedOpcode(7))),
            ("opcode 11", &[0x8B], Err(ProtocolError::ReservedOpcode(11))),
            ("opcode 15", &[0x8F, 0x80], Err(ProtocolError::ReservedOpcode(15))),
            (
                "a Close without FIN, with the first byte alone",
                &[0x08],
                Err(ProtocolError::FragmentedControl),
            ),
            ("a Ping without FIN", &[0x09, 0x00], Err(ProtocolError::FragmentedControl)),
            ("a Ping of 126, with two bytes", &[0x89, 0x7E], Err(ProtocolError::ControlTooLong)),
            ("a masked Close in 64 bits, with two bytes", &[0x88, 0xFF], Err(ProtocolError::ControlTooLong)),
            ("a Ping of 5 in 16 bits", &[0x89, 0x7E, 0, 5], Err(ProtocolError::ControlTooLong)),
            ("5 in 16 bits", &[0x82, 0x7E, 0, 5], Err(ProtocolError::NonMinimalLength)),
            ("125 in 16 bits, its mask missing", &[0x82, 0xFE, 0, 125], Err(ProtocolError::NonMinimalLength)),
            ("200 in 64 bits", &[0x82, 0x7F, 0, 0, 0, 0, 0, 0, 0, 200], Err(ProtocolError::NonMinimalLength)),
            (
                "65535 in 64 bits",
                &[0x82, 0x7F, 0, 0, 0, 0, 0, 0, 255, 255],
                Err(ProtocolError::NonMinimalLength),
            ),
            (
                "six zeros of 64 bits show it",
                &[0x82, 0x7F, 0, 0, 0, 0, 0, 0],
                Err(ProtocolError::NonMinimalLength),
            ),
            ("five zeros of 64 bits do not", &[0x82, 0x7F, 0, 0, 0, 0, 0], Ok(None)),
            ("the top bit, with its byte", &[0x82, 0x7F, 0x80], Err(ProtocolError::LengthTopBit)),
            (
                "2^64 - 1",
                &[0x82, 0x7F, 255, 255, 255, 255, 255, 255, 255, 255],
                Err(ProtocolError::LengthTopBit),
            ),
        ];
        for (name, bytes, expected) in rows {
            let expected = expected.map(|header| {
                header.map(|(opcode, fin, rsv1, mask, length, header_length)| Header {
                    fin,
                    rsv1,
                    opcode,
                    mask,
                    length,
                    header_length,
                })
            });
            assert_eq!(parse(bytes), expected, "{name}");
        }
    }

    #[test]
    fn a_header_that_is_cut_can_be_peeked_at() {
        let text = Prefix { fin: true, rsv1: false, opcode: Opcode::Text, masked: None, length_so_far: 0 };
        let unmasked = Prefix { masked: Some(false), ..text };
        let masked = Prefix { masked: Some(true), ..text };
        let rows: &[(&str, &[u8], Result<Option<Prefix>, ProtocolError>)] = &[
            ("nothing", &[], Ok(None)),
            ("a text", &[0x81], Ok(Some(text))),
            ("a length that is to come", &[0x81, 0x7E], Ok(Some(unmasked))),
            ("half a length", &[0x81, 0x7E, 1], Ok(Some(Prefix { length_so_far: 0x100, ..unmasked }))),
            ("a short length", &[0x81, 0x85, 9], Ok(Some(Prefix { length_so_far: 5, ..masked }))),
            ("RSV1 and a mask", &[0xC1, 0xFE], Ok(Some(Prefix { rsv1: true, ..masked }))),
            (
                "the first byte of eight",
                &[0x81, 0xFF, 0x01],
                Ok(Some(Prefix { length_so_far: 1 << 56, ..masked })),
            ),
            (
                "the mask is not the length",
                &[0x81, 0xFE, 1, 2, 0xFF, 0xFF],
                Ok(Some(Prefix { length_so_far: 0x102, ..masked })),
            ),
            ("a Ping that is fragmented", &[0x08], Err(ProtocolError::FragmentedControl)),
            ("a Ping that is too long", &[0x89, 0xFE], Err(ProtocolError::ControlTooLong)),
            ("the top bit", &[0x82, 0xFF, 0x80], Err(ProtocolError::LengthTopBit)),
            ("a shorter form", &[0x82, 0x7E, 0, 5], Err(ProtocolError::NonMinimalLength)),
        ];
        for (name, bytes, expected) in rows {
            assert_eq!(peek(bytes), *expected, "{name}");
        }
    }

    #[test]
    fn headers_onto_the_wire() {
        let rows: &[(&str, Opcode, Option<[u8; 4]>, u64, &[u8])] = &[
            ("a text of 5", Opcode::Text, None, 5, &[0x81, 0x05]),
            ("a masked Close of 2", Opcode::Close, Some([1, 2, 3, 4]), 2, &[0x88, 0x82, 1, 2, 3, 4]),
            ("a binary of 125", Opcode::Binary, None, 125, &[0x82, 0x7D]),
            ("a binary of 126", Opcode::Binary, None, 126, &[0x82, 0x7E, 0, 126]),
            ("a binary of 65535", Opcode::Binary, None, 65_535, &[0x82, 0x7E, 255, 255]),
            ("a binary of 65536", Opcode::Binary, None, 65_536, &[0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0]),
        ];
        for (name, opcode, mask, length, expected) in rows {
            let mut out = vec![];
            write(&mut out, true, false, *opcode, *mask, *length);
            assert_eq!(out, *expected, "{name}");
            let payload = usize::try_from(*length).expect("small");
            assert_eq!(frame_length(payload, mask.is_some()), out.len() + payload, "{name}");
        }
    }

    fn any_opcode() -> impl Strategy<Value = Opcode> {
        proptest::sample::select(vec![
            Opcode::Continuation,
            Opcode::Text,
            Opcode::Binary,
            Opcode::Close,
            Opcode::Ping,
            Opcode::Pong,
        ])
    }

    fn any_length() -> impl Strategy<Value = u64> {
        prop_oneof![0..130_u64, 65_500..65_600_u64, 0..=(u64::MAX >> 1)]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            fin: bool,
            rsv1: bool,
            opcode in any_opcode(),
            mask: Option<[u8; 4]>,
            length in any_length(),
        ) {
            let control = opcode.is_control();
            let (fin, length) = if control { (true, length % 126) } else { (fin, length) };
            let mut out = vec![];
            write(&mut out, fin, rsv1, opcode, mask, length);
            let header = Header { fin, rsv1, opcode, mask, length, header_length: out.len() };
            prop_assert_eq!(parse(&out), Ok(Some(header)));
            prop_assert_eq!(peek(&out), Ok(Some(header.prefix())));
            for cut in 0..out.len() {
                prop_assert_eq!(parse(&out[..cut]), Ok(None));
                let prefix = peek(&out[..cut]).expect("no violation");
                prop_assert!(prefix.is_none_or(|prefix| prefix.length_so_far <= length));
            }
        }

        /// Once a violation is seen no further byte takes it back, and what passes whole passed at every cut.
        #[test]
        fn a_verdict_stands(bytes: [u8; MAX_HEADER]) {
            let mut last = Ok(None);
            for end in 0..=MAX_HEADER {
                let verdict = parse(&bytes[..end]);
                if last != Ok(None) {
                    prop_assert_eq!(verdict, last);
                }
                last = verdict;
            }
            prop_assert_ne!(last, Ok(None), "14 bytes are enough for every header");
        }

        /// What passes here says the same there, and goes back to the same bytes.
        #[test]
        fn tungstenite_agrees(bytes in prop_oneof![
            any::<[u8; MAX_HEADER]>(),
            (any_opcode(), 0..128_u8, any::<[u8; 12]>()).prop_map(|(opcode, short, rest)| {
                let mut bytes = [0; MAX_HEADER];
                bytes[..2].copy_from_slice(&[0x80 | opcode.code(), 0x80 | short]);
                bytes[2..].copy_from_slice(&rest);
                bytes
            }),
        ]) {
            if let Ok(Some(ours)) = parse(&bytes) {
                let (theirs, length) =
                    FrameHeader::parse(&mut Cursor::new(&bytes)).expect("valid").expect("whole");
                prop_assert_eq!((ours.fin, ours.rsv1, ours.mask), (theirs.is_final, theirs.rsv1, theirs.mask));
                prop_assert_eq!((ours.opcode.code(), ours.length), (u8::from(theirs.opcode), length));
                let (mut out, mut other) = (vec![], vec![]);
                write(&mut out, ours.fin, ours.rsv1, ours.opcode, ours.mask, ours.length);
                theirs.format(length, &mut other).expect("a Vec takes every byte");
                prop_assert_eq!(out, other);
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
            let _ = parse(&bytes);
            let _ = peek(&bytes);
        }
    }
}
