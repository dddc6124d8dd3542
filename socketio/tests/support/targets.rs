//! The bodies of the fuzz targets of this crate, as functions of bytes: `cargo test` runs them too (`tests/properties.rs`).
//!
//! Each compares with something written in another way, or with what must hold whatever comes.

use std::borrow::Cow;

use adjourn_socketio::links::{Frame, FrameRef};
use adjourn_socketio::packet::{
    self, ArgsBuf, DecodeError, Decoder, EnginePacket, Event, Packet, PacketKind, PacketLimits, Query,
};
use serde_json::value::RawValue;

/// A packet is written back to the same bytes; what is refused is empty, of another type, or bad base64.
pub(crate) fn engine_packet(bytes: &[u8]) {
    assert_eq!(
        EnginePacket::decode(FrameRef::Binary(bytes)),
        Ok(EnginePacket::Binary(Cow::Borrowed(bytes))),
        "a binary message is a message, whatever it is"
    );
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let rest = text.get(1..);
    match EnginePacket::decode(FrameRef::Text(text)) {
        Ok(EnginePacket::Open) => assert!(text.starts_with('0')),
        Ok(EnginePacket::Close) => assert!(text.starts_with('1')),
        Ok(EnginePacket::Ping(data)) => assert_eq!(format!("2{data}"), text),
        Ok(EnginePacket::Pong(data)) => assert_eq!(format!("3{data}"), text),
        Ok(EnginePacket::Text(data)) => assert_eq!(format!("4{data}"), text),
        Ok(EnginePacket::Upgrade) => assert!(text.starts_with('5')),
        Ok(EnginePacket::Noop) => assert!(text.starts_with('6')),
        Ok(EnginePacket::Binary(data)) => {
            assert!(text.starts_with('b'));
            let mut again = String::new();
            packet::push_packet(&mut again, &Frame::Binary(data.to_vec().into()));
            assert_eq!(EnginePacket::decode(FrameRef::Text(&again)), Ok(EnginePacket::Binary(data)));
            assert_eq!(bits(&again[1..]), bits(rest.expect("begins with an ASCII letter")));
        }
        Err(_) => match text.as_bytes().first() {
            Some(b'b') => assert!(!is_canonical_base64(&text[1..]), "{text:?}"),
            Some(type_) => assert!(!(b'0'..=b'6').contains(type_)),
            None => (),
        },
    }
}

/// What base64 says, without its padding and the bits that mean nothing.
fn bits(base64: &str) -> String {
    let digits: String = base64.chars().filter(|c| *c != '=').collect();
    let whole = digits.len() / 4 * 4;
    // Of an incomplete group, the last character says 4 or 2 bits too many.
    digits[..(digits.len() - usize::from(digits.len() > whole))].to_owned()
}

fn is_canonical_base64(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    text.len().is_multiple_of(4)
        && text.len() - digits.len() <= 2
        && digits.len() % 4 != 1
        && digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
}

/// Splitting a payload is what `str::split` does; packets that are joined come apart as they were.
pub(crate) fn payload_split(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let expected: Vec<_> = text.split('\u{1e}').collect();
    assert_eq!(split(text), expected);
    let frames: Vec<_> = expected
        .iter()
        .filter(|packet| !packet.is_empty())
        .map(|packet| match packet.strip_prefix('b') {
            Some(binary) => Frame::Binary(binary.as_bytes().to_vec().into()),
            None => Frame::text(*packet),
        })
        .collect();
    let mut joined = String::new();
    for frame in &frames {
        packet::push_packet(&mut joined, frame);
    }
    let length: usize = frames.iter().map(packet::encoded_len).sum();
    assert_eq!(length, joined.len() + usize::from(!frames.is_empty()));
    let parts = if frames.is_empty() { vec![] } else { split(&joined) };
    assert_eq!(parts.len(), frames.len());
    for (part, frame) in parts.iter().zip(&frames) {
        match (EnginePacket::decode(FrameRef::Text(part)), frame.borrow()) {
            (Ok(EnginePacket::Binary(got)), FrameRef::Binary(sent)) => assert_eq!(got, sent),
            (_, FrameRef::Text(sent)) => assert_eq!(*part, sent),
            (got, sent) => panic!("{sent:?} came as {got:?}"),
        }
    }
}

fn split(payload: &str) -> Vec<&str> {
    let (mut packets, mut rest) = (Vec::new(), Some(payload));
    while let Some(text) = rest {
        let (first, next) = packet::split_payload(text);
        packets.push(first);
        rest = next;
    }
    packets
}

/// Messages, separated by 0xFF, each text if it is UTF-8. Nothing panics; what is accepted is what a second reading of the
/// grammar accepts; what is sent back comes again as it was; memory is bounded by the limits.
pub(crate) fn socket_packet(bytes: &[u8]) {
    let limits = PacketLimits { max_attachments: 3, max_depth: 6, max_attachment_bytes: 20, max_name: 12 };
    let mut decoder = Decoder::new();
    for message in bytes.split(|byte| *byte == 0xff) {
        let frame = match std::str::from_utf8(message) {
            Ok(text) if text.starts_with(|first: char| first.is_ascii_graphic()) => FrameRef::Text(text),
            _ => FrameRef::Binary(message),
        };
        let waiting = decoder.is_waiting();
        match (decoder.decode(frame, &limits), frame) {
            (Ok(Some(packet)), frame) => check_packet(&packet, frame, &limits),
            (Ok(None), _) => assert!(decoder.is_waiting()),
            (Err(DecodeError::Json), FrameRef::Text(text)) => {
                let start = text.find(['[', '{', '"']);
                let json = start.and_then(|start| text.get(start..));
                let valid = json.is_some_and(|json| serde_json::from_str::<&RawValue>(json).is_ok());
                let header = start.and_then(|start| text.get(..start)).unwrap_or_default();
                let plain = header.bytes().all(|byte| byte.is_ascii_digit());
                assert!(!(valid && plain), "{text:?} is JSON");
                return;
            }
            (Err(error), FrameRef::Text(_)) => {
                assert_eq!(waiting, error == DecodeError::TextOutstanding);
                return;
            }
            (Err(error), FrameRef::Binary(_)) => {
                let expected =
                    if waiting { DecodeError::AttachmentBytes } else { DecodeError::BinaryUnexpected };
                assert_eq!(error, expected);
                return;
            }
        }
    }
}

fn check_packet(packet: &Packet<'_>, frame: FrameRef<'_>, limits: &PacketLimits) {
    let args = packet.args();
    assert!(packet.namespace().starts_with('/') && packet.namespace().len() <= limits.max_name);
    assert!(args.attachments().len() <= limits.max_attachments);
    assert!(args.attachments().iter().map(bytes::Bytes::len).sum::<usize>() <= limits.max_attachment_bytes);
    match packet.kind() {
        PacketKind::Connect => {
            let auth = packet.auth().map(|auth| serde_json::from_str::<&RawValue>(auth).is_ok());
            assert_ne!(auth, Some(false));
        }
        PacketKind::Disconnect => assert!(args.is_empty() && packet.auth().is_none()),
        PacketKind::Event => {
            assert!(!packet::is_reserved(&packet.name()) && packet.name().len() <= limits.max_name);
            let again = Event::new(packet.namespace(), &packet.name(), &args).expect("was accepted");
            check_again(packet, &again.frames());
            let kept = Event::from_packet(again.packet(), again.attachments().clone()).expect("our own");
            assert_eq!(kept.frames(), again.frames());
            assert_eq!(kept.ends_in_string(), again.ends_in_string());
        }
        PacketKind::Ack => {
            let id = packet.ack().expect("an ack has an id");
            check_again(packet, &packet::ack(packet.namespace(), id, &args).expect("was accepted"));
        }
    }
    // The arguments are what serde_json takes the array apart into.
    if let (FrameRef::Text(text), PacketKind::Event | PacketKind::Ack) = (frame, packet.kind()) {
        let found = (0..text.len())
            .filter(|at| text.as_bytes()[*at] == b'[')
            .find_map(|at| serde_json::from_str::<Vec<&RawValue>>(&text[at..]).ok())
            .expect("an array");
        let names = usize::from(packet.kind() == PacketKind::Event);
        let raws: Vec<_> = (0..args.len()).filter_map(|index| args.raw(index)).collect();
        assert_eq!(raws, found.iter().skip(names).map(|raw| raw.get()).collect::<Vec<_>>());
    }
    let owned = ArgsBuf::new(&args).expect("was accepted");
    let stored = ArgsBuf::from_json(owned.json(), owned.attachments().to_vec()).expect("an array");
    assert_eq!(stored.as_args().len(), args.len());
}

/// Frames of our own are read as the packet that they were made of.
fn check_again(packet: &Packet<'_>, frames: &[Frame]) {
    let mut decoder = Decoder::new();
    let mut decoded = None;
    for frame in frames {
        let frame = match frame.borrow() {
            FrameRef::Text(text) => FrameRef::Text(text.strip_prefix('4').expect("a message")),
            binary @ FrameRef::Binary(_) => binary,
        };
        assert!(decoded.is_none(), "complete before its last frame");
        decoded = decoder.decode(frame, &PacketLimits::default()).expect("our own");
    }
    let again = decoded.expect("complete");
    assert_eq!(again.kind(), packet.kind());
    assert_eq!(again.namespace(), packet.namespace());
    assert_eq!(again.name(), packet.name());
    assert_eq!(again.args().attachments(), packet.args().attachments());
    for index in 0..packet.args().len().max(again.args().len()) {
        assert_eq!(again.args().raw(index), packet.args().raw(index));
    }
}

/// What is decoded, encoded and decoded again stays the same; the counts fit.
pub(crate) fn query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let query = Query::parse(text);
    assert_eq!(query.iter().count(), text.split('&').filter(|pair| !pair.is_empty()).count());
    for (name, value) in query.iter() {
        assert!(query.count(name) > 0 && query.get(name).is_some());
        assert!(name.len() + value.len() <= 3 * text.len());
    }
    let encoded: Vec<_> =
        query.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    assert_eq!(Query::parse(&encoded.join("&")), query);
    if !text.contains(['%', '+']) {
        let plain = text.split('&').filter(|pair| !pair.is_empty());
        let plain = plain.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        assert!(plain.eq(query.iter()));
    }
}

fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |text, byte| text + &format!("%{byte:02x}"))
}
