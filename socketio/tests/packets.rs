//! Section 6 of specification and the packet table of section 2: bytes literal in and out.

use std::fmt::Write as _;

use adjourn_socketio::links::{Frame, FrameRef};
use adjourn_socketio::offset::{Offset, Position};
use adjourn_socketio::packet::{
    self, Args, ArgsBuf, ArgsEncoder, ArgsError, Binary, DecodeError, Decoder, EncodeError, EnginePacket,
    EnginePacketError, Event, Packet, PacketKind, PacketLimits, Query, Raw, ToArgs,
};
use bytes::Bytes;

/// A packet as one line: kind, namespace, ack id, then the name or auth, arguments and attachments.
fn line(packet: &Packet<'_>) -> String {
    let mut line = format!("{:?} {}", packet.kind(), packet.namespace());
    if let Some(id) = packet.ack() {
        let _ = write!(line, " #{id}");
    }
    if let Some(auth) = packet.auth() {
        let _ = write!(line, " {auth}");
    }
    if packet.kind() == PacketKind::Event {
        let _ = write!(line, " {}:", packet.name());
    }
    let args = packet.args();
    for index in 0..args.len() {
        let _ = write!(line, " {}", args.raw(index).expect("below its length"));
    }
    for bytes in args.attachments() {
        let _ = write!(line, " {:?}", &bytes[..]);
    }
    line
}

fn decode_all(messages: &[FrameRef<'_>], limits: &PacketLimits) -> Result<Vec<String>, DecodeError> {
    let mut decoder = Decoder::new();
    let mut lines = Vec::new();
    for message in messages {
        lines.extend(decoder.decode(*message, limits)?.as_ref().map(line));
    }
    Ok(lines)
}

fn decode(text: &str) -> Result<String, DecodeError> {
    let lines = decode_all(&[FrameRef::Text(text)], &PacketLimits::default())?;
    Ok(lines.concat())
}

fn texts(frames: &[Frame]) -> Vec<String> {
    let text = |frame: &Frame| match frame.borrow() {
        FrameRef::Text(text) => text.to_owned(),
        FrameRef::Binary(bytes) => format!("{bytes:?}"),
    };
    frames.iter().map(text).collect()
}

#[test]
fn s6_packets_that_a_client_may_send() {
    for (text, expected) in [
        ("0", "Connect /"),
        ("0{}", "Connect / {}"),
        (r#"0{"token":"123"}"#, r#"Connect / {"token":"123"}"#),
        (r#"0 {"a" : 1} "#, r#"Connect /  {"a" : 1} "#),
        ("0/custom,", "Connect /custom"),
        ("0/custom", "Connect /custom"),
        (r#"0/custom,{"token":"abc"}"#, r#"Connect /custom {"token":"abc"}"#),
        ("0/a?b=1&c=/d", "Connect /a?b=1&c=/d"),
        ("0/,{}", "Connect / {}"),
        ("0/é,", "Connect /é"),
        ("07{}", "Connect / #7 {}"),
        ("1", "Disconnect /"),
        ("1/custom", "Disconnect /custom"),
        ("1/custom,", "Disconnect /custom"),
        (r#"2["message",1,"2",{"3":[true]}]"#, r#"Event / message: 1 "2" {"3":[true]}"#),
        (r#"2["message"]"#, "Event / message:"),
        (r#"2456["m",1]"#, "Event / #456 m: 1"),
        (r#"20["m"]"#, "Event / #0 m:"),
        (r#"2007["m"]"#, "Event / #7 m:"),
        (r#"29007199254740991["m"]"#, "Event / #9007199254740991 m:"),
        (r#"2/custom,["m"]"#, "Event /custom m:"),
        (r#"2/custom,12["m"]"#, "Event /custom #12 m:"),
        (r#"2 [ "m" , 1.0e1 ]"#, "Event / m: 1.0e1"),
        (r#"2["",null]"#, "Event / : null"),
        ("2[1,2]", "Event / 1: 2"),
        ("2[-1.50]", "Event / -1.50:"),
        (r#"2["a\u0062\n\/\"\\"]"#, "Event / ab\n/\"\\:"),
        ("2[\"m \u{7f}\u{2028}\"]", "Event / m \u{7f}\u{2028}:"),
        (r#"2["\ud83d\ude00\ud800!"]"#, "Event / 😀\u{fffd}!:"),
        (r#"2["m","\ud800",1E400,0.10000]"#, r#"Event / m: "\ud800" 1E400 0.10000"#),
        (r#"2["m",{"_placeholder":true,"num":9}]"#, r#"Event / m: {"_placeholder":true,"num":9}"#),
        (r#"3456[1,"2"]"#, r#"Ack / #456 1 "2""#),
        ("3/custom,1[]", "Ack /custom #1"),
        (r#"31["connect"]"#, r#"Ack / #1 "connect""#),
    ] {
        assert_eq!(decode(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn s6_decode_errors_of_text() {
    use DecodeError as E;
    for (text, expected) in [
        ("", E::UnknownType),
        ("abc", E::UnknownType),
        ("7", E::UnknownType),
        ("-1", E::UnknownType),
        (r#"4{"message":"x"}"#, E::ConnectError),
        ("4", E::ConnectError),
        // n: missing, no integer, 0, above max_attachments
        (r#"5["m"]"#, E::Attachments),
        (r#"5-["m"]"#, E::Attachments),
        (r#"5x-["m"]"#, E::Attachments),
        (r#"51.5-["m"]"#, E::Attachments),
        (r#"5-1-["m"]"#, E::Attachments),
        (r#"5+1-["m"]"#, E::Attachments),
        (r#"5 1-["m"]"#, E::Attachments),
        (r#"51e1-["m"]"#, E::Attachments),
        (r#"50-["m"]"#, E::Attachments),
        (r#"511-["m"]"#, E::Attachments),
        (r#"599999999999999999999999-["m"]"#, E::Attachments),
        ("51", E::Attachments),
        ("5", E::Attachments),
        // payload not of the kind in the table
        ("0[]", E::Payload),
        (r#"0"x""#, E::Payload),
        ("0null", E::Payload),
        ("1{}", E::Payload),
        ("1[]", E::Payload),
        ("1/custom,x", E::Payload),
        ("2", E::Payload),
        ("2/custom,", E::Payload),
        ("212", E::Payload),
        ("2{}", E::Payload),
        ("2[]", E::Payload),
        (r#"2"x""#, E::Payload),
        ("2[null]", E::Payload),
        ("2[true]", E::Payload),
        (r#"2[["m"]]"#, E::Payload),
        (r"2[{}]", E::Payload),
        ("31", E::Payload),
        ("31{}", E::Payload),
        // an ack needs its id
        ("3", E::AckId),
        ("3[]", E::AckId),
        // id too long
        (r#"29007199254740992["m"]"#, E::AckId),
        (r#"2123456789012345678901234567890["m"]"#, E::AckId),
        ("39007199254740992[]", E::AckId),
        // not JSON
        (r#"2abc["m"]"#, E::Json),
        (r#"2["m""#, E::Json),
        (r#"2["m",]"#, E::Json),
        (r#"2["m"]]"#, E::Json),
        (r#"2["m"],"#, E::Json),
        (r"2['m']", E::Json),
        (r#"2["m",01]"#, E::Json),
        (r#"2["m",1.]"#, E::Json),
        (r#"2["m",.5]"#, E::Json),
        (r#"2["m",+1]"#, E::Json),
        (r#"2["m",NaN]"#, E::Json),
        (r#"2["m","\x41"]"#, E::Json),
        (r#"2["m","\u12g4"]"#, E::Json),
        ("2[\"m\n\"]", E::Json),
        ("2[\"m\u{1f}\"]", E::Json),
        ("2[\"m\", \u{a0}1]", E::Json),
        (r#"2["m",{a:1}]"#, E::Json),
        (r#"2["m",tru]"#, E::Json),
        (r#"21-["m"]"#, E::Json),
        // reserved names
        (r#"2["connect"]"#, E::ReservedName),
        (r#"2["connect_error"]"#, E::ReservedName),
        (r#"2["disconnect"]"#, E::ReservedName),
        (r#"2["disconnecting"]"#, E::ReservedName),
        (r#"2["newListener"]"#, E::ReservedName),
        (r#"2["removeListener"]"#, E::ReservedName),
        (r#"2["\u0063onnect"]"#, E::ReservedName),
        // placeholders
        (r#"51-["m",{"_placeholder":true,"num":1}]"#, E::Placeholder),
        (r#"51-["m",{"_placeholder":true,"num":-1}]"#, E::Placeholder),
        (r#"51-["m",{"_placeholder":true,"num":0.5}]"#, E::Placeholder),
        (r#"51-["m",{"_placeholder":true,"num":"0"}]"#, E::Placeholder),
        (r#"51-["m",{"_placeholder":true}]"#, E::Placeholder),
        (r#"51-["m",[{"a":{"_placeholder":true,"num":4294967296}}]]"#, E::Placeholder),
        (r#"51-["m",{"\u005fplaceholder":true,"num":7}]"#, E::Placeholder),
    ] {
        assert_eq!(decode(text), Err(expected), "{text}");
    }
}

#[test]
fn s6_attachments_come_after_their_packet() {
    use FrameRef::{Binary as B, Text as T};
    let two = r#"52-["m",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
    let limits = PacketLimits { max_attachment_bytes: 4, ..PacketLimits::default() };
    for (messages, expected) in [
        (
            &[T(two), B(&[1, 2]), B(&[3])][..],
            Ok(vec![r#"Event / m: {"_placeholder":true,"num":0} {"_placeholder":true,"num":1} [1, 2] [3]"#]),
        ),
        (&[T(two), B(&[1, 2])], Ok(vec![])),
        (
            &[T(r#"61-/a,7[{"_placeholder":true,"num":0}]"#), B(&[]), T("1")],
            Ok(vec![r#"Ack /a #7 {"_placeholder":true,"num":0} []"#, "Disconnect /"]),
        ),
        // one used twice, or not at all, is legal; num in another spelling, escaped and repeated names
        (
            &[T(r#"51-["m",[{"_placeholder":true,"num":0},{"num":0,"_placeholder":true}]]"#), B(&[9])],
            Ok(vec![r#"Event / m: [{"_placeholder":true,"num":0},{"num":0,"_placeholder":true}] [9]"#]),
        ),
        (&[T(r#"51-["m"]"#), B(&[9])], Ok(vec!["Event / m: [9]"])),
        (
            &[
                T(r#"51-["m",{"_placeholder":true,"num":5,"num":0e1,"x":{"_placeholder":true,"num":77}}]"#),
                B(&[9]),
            ],
            Ok(vec![
                r#"Event / m: {"_placeholder":true,"num":5,"num":0e1,"x":{"_placeholder":true,"num":77}} [9]"#,
            ]),
        ),
        (
            &[
                T(r#"51-["m",{"_placeholder":"true","num":7},{"_placeholder":true,"_placeholder":1}]"#),
                B(&[9]),
            ],
            Ok(vec![
                r#"Event / m: {"_placeholder":"true","num":7} {"_placeholder":true,"_placeholder":1} [9]"#,
            ]),
        ),
        // text while attachments are outstanding; binary with none outstanding
        (&[T(two), B(&[1]), T(r#"2["m"]"#)], Err(DecodeError::TextOutstanding)),
        (&[T(two), T("1")], Err(DecodeError::TextOutstanding)),
        (&[B(&[1])], Err(DecodeError::BinaryUnexpected)),
        (&[T(r#"51-["m"]"#), B(&[1]), B(&[2])], Err(DecodeError::BinaryUnexpected)),
        // the sum of the attachments
        (&[T(two), B(&[1, 2, 3]), B(&[4, 5])], Err(DecodeError::AttachmentBytes)),
    ] {
        let expected = expected.map(|lines| lines.into_iter().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(decode_all(messages, &limits), expected, "{messages:?}");
    }
}

#[test]
fn s18_each_limit_holds_and_one_less_is_accepted() {
    let limits = PacketLimits { max_attachments: 2, max_depth: 3, max_attachment_bytes: 4, max_name: 5 };
    for (text, expected) in [
        (r#"52-["m"]"#, Ok(vec![])),
        (r#"53-["m"]"#, Err(DecodeError::Attachments)),
        (r#"2["m",[{}]]"#, Ok(vec!["Event / m: [{}]".to_owned()])),
        (r#"2["m",[[[]]]]"#, Err(DecodeError::Depth)),
        (r#"0{"a":{"b":{}}}"#, Ok(vec![r#"Connect / {"a":{"b":{}}}"#.to_owned()])),
        (r#"0{"a":{"b":[{}]}}"#, Err(DecodeError::Depth)),
        ("1/abcd", Ok(vec!["Disconnect /abcd".to_owned()])),
        ("1/abcde", Err(DecodeError::NameLength)),
        (r#"2["12345"]"#, Ok(vec!["Event / 12345:".to_owned()])),
        (r#"2["123456"]"#, Err(DecodeError::NameLength)),
        ("2[123456]", Err(DecodeError::NameLength)),
    ] {
        assert_eq!(decode_all(&[FrameRef::Text(text)], &limits), expected, "{text}");
    }
    let deep = |levels: usize| format!("2[\"m\",{}{}]", "[".repeat(levels - 1), "]".repeat(levels - 1));
    assert!(decode(&deep(128)).is_ok());
    assert_eq!(decode(&deep(129)), Err(DecodeError::Depth));
    assert_eq!(decode(&deep(400_000)), Err(DecodeError::Depth));
    let unlimited = PacketLimits { max_depth: usize::MAX, ..PacketLimits::default() };
    assert_eq!(decode_all(&[FrameRef::Text(&deep(400_000))], &unlimited), Err(DecodeError::Depth));
}

#[test]
fn s6_what_the_server_sends() {
    let frame = |frame: Frame| texts(&[frame]).concat();
    assert_eq!(frame(packet::connect("/", "S", None)), r#"40{"sid":"S"}"#);
    assert_eq!(frame(packet::connect("/custom", "S", Some("P"))), r#"40/custom,{"sid":"S","pid":"P"}"#);
    assert_eq!(
        frame(packet::connect_error("/random", "Invalid namespace", None)),
        r#"44/random,{"message":"Invalid namespace"}"#
    );
    assert_eq!(
        frame(packet::connect_error("/", "not \"you\"", Some(r#"{"code":401}"#))),
        r#"44{"message":"not \"you\"","data":{"code":401}}"#
    );
    assert_eq!(frame(packet::disconnect("/")), "41");
    assert_eq!(frame(packet::disconnect("/custom")), "41/custom,");
    let ack = packet::ack("/", 456, &(1, "2", [false])).expect("JSON");
    assert_eq!(texts(&ack), [r#"43456[1,"2",[false]]"#]);
    assert_eq!(texts(&packet::ack("/a", 0, &()).expect("JSON")), ["43/a,0[]"]);
    let ack = packet::ack("/a", 7, &(Binary(Bytes::from_static(&[1])),)).expect("JSON");
    assert_eq!(texts(&ack), [r#"461-/a,7[{"_placeholder":true,"num":0}]"#, "[1]"]);
}

fn event(args: &impl ToArgs) -> Event {
    Event::new("/", "m", args).expect("JSON")
}

fn binary(byte: u8) -> Binary {
    Binary(Bytes::from(vec![byte]))
}

#[test]
fn s6_events_are_encoded_once_and_have_variants() {
    let offset = Offset { epoch: 3, position: Position::counter(17) };
    let plain = Event::new("/custom", "m", &(1, "x")).expect("JSON");
    assert_eq!(texts(&plain.frames()), [r#"42/custom,["m",1,"x"]"#]);
    assert_eq!(texts(&plain.frames_with_offset(offset)), [r#"42/custom,["m",1,"x","3-17"]"#]);
    assert_eq!(texts(&plain.frames_with_ack(12)), [r#"42/custom,12["m",1,"x"]"#]);
    assert_eq!(plain.packet(), r#"2/custom,["m",1,"x"]"#);

    let nested = event(&(binary(1), [binary(2)], serde_json::json!({"a": 1})));
    let text = r#"["m",{"_placeholder":true,"num":0},[{"_placeholder":true,"num":1}],{"a":1}"#;
    assert_eq!(texts(&nested.frames()), [&format!("452-{text}]"), "[1]", "[2]"]);
    assert_eq!(texts(&nested.frames_with_offset(offset))[0], format!(r#"452-{text},"3-17"]"#));
    assert_eq!(texts(&nested.frames_with_ack(5))[0], format!("452-5{text}]"));
    assert_eq!(nested.packet(), format!("52-{text}]"));
    assert_eq!(texts(&event(&()).frames_with_offset(offset)), [r#"42["m","3-17"]"#]);
}

#[test]
fn s12_events_that_end_in_a_string_are_known() {
    for (event, expected) in [
        (event(&()), true),
        (event(&("x",)), true),
        (event(&(1, "x")), true),
        (event(&("x", 1)), false),
        (event(&("x", ["y"])), false),
        (event(&(binary(1),)), false),
        (event(&(None::<String>,)), false),
    ] {
        assert_eq!(event.ends_in_string(), expected, "{}", event.packet());
        let kept = Event::from_packet(event.packet(), event.attachments().clone()).expect("a packet");
        assert_eq!(kept.ends_in_string(), expected, "{}", event.packet());
    }
}

#[test]
fn s12_an_event_from_the_log_is_as_it_was() {
    let offset = Offset { epoch: 1, position: Position { time: 5, number: 6 } };
    for event in [
        Event::new("/", "m", &()).expect("JSON"),
        Event::new("/a[b]0", "1", &("]", 2)).expect("JSON"),
        Event::new("/a", "m", &(binary(1), "x")).expect("JSON"),
    ] {
        let kept = Event::from_packet(event.packet(), event.attachments().clone()).expect("a packet");
        assert_eq!(kept.frames(), event.frames());
        assert_eq!(kept.frames_with_ack(9), event.frames_with_ack(9));
        assert_eq!(kept.frames_with_offset(offset), event.frames_with_offset(offset));
        assert_eq!(kept.size(), event.size());
    }
    for packet in ["", "1", "3[]", "21[\"m\"]", "2[]", "2[\"m\"", "51-[\"m\"]"] {
        assert!(Event::from_packet(packet, [].into()).is_err(), "{packet}");
    }
}

#[test]
fn s6_reserved_and_long_names_are_refused_on_output_too() {
    for name in ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"] {
        assert!(matches!(Event::new("/", name, &()), Err(EncodeError::ReservedName(_))), "{name}");
    }
    assert!(Event::new("/", &"x".repeat(1024), &()).is_ok());
    let error = Event::new("/", &"x".repeat(1025), &()).expect_err("too long");
    assert_eq!(error.to_string(), "event name of 1025 bytes exceeds 1024");
    let many = vec![binary(1); 11];
    let error = Event::new("/", "m", &many).expect_err("too many");
    assert_eq!(error.to_string(), "11 attachments exceed 10");
}

fn packet(messages: &[FrameRef<'static>]) -> Packet<'static> {
    let mut decoder = Decoder::new();
    let limits = PacketLimits::default();
    messages.iter().find_map(|message| decoder.decode(*message, &limits).expect("valid")).expect("complete")
}

#[test]
fn s21_arguments_are_taken_by_type() {
    let packet = packet(&[
        FrameRef::Text(
            r#"51-["m",1,"\u00e9",{"_placeholder":true,"num":0},{"a":[{"_placeholder":true,"num":0}]}]"#,
        ),
        FrameRef::Binary(&[7, 8]),
    ]);
    let args = packet.args();
    let bytes = Binary(Bytes::from_static(&[7, 8]));
    assert_eq!(args.get::<u8>(0).expect("a number"), 1);
    assert_eq!(args.get::<String>(1).expect("a string"), "é");
    assert_eq!(args.get::<Binary>(2).expect("binary"), bytes);
    let nested: std::collections::BTreeMap<String, Vec<Binary>> = args.get(3).expect("a map");
    assert_eq!(nested["a"], std::slice::from_ref(&bytes));
    let (number, text, binary): (f64, String, Binary) = args.parse().expect("a tuple");
    assert_eq!((number.to_string().as_str(), text.as_str(), binary), ("1", "é", bytes));

    assert!(matches!(args.get::<u8>(4), Err(ArgsError::Missing { index: 4, length: 4 })));
    assert!(matches!(args.get::<u8>(1), Err(ArgsError::Type { index: 1, .. })));
    assert!(matches!(args.get::<Binary>(0), Err(ArgsError::Type { index: 0, .. })));
    assert!(matches!(args.parse::<(u8, u8)>(), Err(ArgsError::Type { index: 1, .. })));
    assert!(args.parse::<(u8, String, Binary, Raw, u8)>().is_err());
    assert!(serde_json::from_str::<Binary>(r#"{"_placeholder":true,"num":0}"#).is_err(), "not an argument");
    assert!(serde_json::to_string(&Binary(Bytes::new())).is_err(), "not an argument");
}

#[test]
fn s1_arguments_pass_through_byte_for_byte() {
    let text = r#"2["m", 1.00 ,"\ud800", {"b":1,"a" : 2} ,1e400]"#;
    let packet = packet(&[FrameRef::Text(text)]);
    let expected = r#"[1.00,"\ud800",{"b":1,"a" : 2},1e400]"#;
    assert_eq!(texts(&packet::ack("/", 1, &packet.args()).expect("JSON")), [format!("431{expected}")]);
    let owned = ArgsBuf::new(&packet.args()).expect("JSON");
    assert_eq!(owned.json(), expected);
    let raws = (packet.args().get::<Raw>(1).expect("any"), packet.args().get::<Raw>(2).expect("any"));
    assert_eq!(ArgsBuf::new(&raws).expect("JSON").json(), r#"["\ud800",{"b":1,"a" : 2}]"#);
}

/// Arguments behind a binary value.
struct Behind<'a>(Args<'a>);

impl ToArgs for Behind<'_> {
    fn to_args(&self, out: &mut ArgsEncoder) -> Result<(), EncodeError> {
        out.push(&binary(9))?;
        self.0.to_args(out)
    }
}

#[test]
fn s9_binary_arguments_pass_through_and_are_numbered_anew_among_others() {
    let packet = packet(&[
        FrameRef::Text(
            r#"52-["m",[{"_placeholder":true,"num":1},{"_placeholder":true,"num":1}],{"num":0,"_placeholder":true}]"#,
        ),
        FrameRef::Binary(&[1]),
        FrameRef::Binary(&[2]),
    ]);
    let args = packet.args();
    assert_eq!(
        texts(&event(&args).frames()),
        [
            r#"452-["m",[{"_placeholder":true,"num":1},{"_placeholder":true,"num":1}],{"num":0,"_placeholder":true}]"#,
            "[1]",
            "[2]"
        ]
    );
    // One argument of it, behind another binary value: only what it uses, with its new number.
    let first: Raw = args.get(0).expect("any");
    assert_eq!(
        texts(&event(&(binary(9), &first)).frames()),
        [
            r#"452-["m",{"_placeholder":true,"num":0},[{"_placeholder":true,"num":1},{"_placeholder":true,"num":1}]]"#,
            "[9]",
            "[2]"
        ]
    );
    // All of it behind another binary value.
    assert_eq!(
        texts(&event(&Behind(args)).frames()),
        [
            r#"453-["m",{"_placeholder":true,"num":0},[{"_placeholder":true,"num":2},{"_placeholder":true,"num":2}],{"num":1,"_placeholder":true}]"#,
            "[9]",
            "[1]",
            "[2]"
        ]
    );
    // An array of arguments, as `say` of the lab has it.
    let list: Vec<Raw> = vec![args.get(1).expect("any"), first];
    assert_eq!(
        texts(&event(&list).frames()),
        [
            r#"452-["m",{"num":0,"_placeholder":true},[{"_placeholder":true,"num":1},{"_placeholder":true,"num":1}]]"#,
            "[1]",
            "[2]"
        ]
    );
    let owned = ArgsBuf::new(&args).expect("JSON");
    let again = ArgsBuf::from_json(owned.json(), owned.attachments().to_vec()).expect("an array");
    assert_eq!(event(&again).frames(), event(&args).frames());
    assert!(ArgsBuf::from_json("{}", vec![]).is_none());
    assert!(ArgsBuf::from_json("[", vec![]).is_none());
}

#[test]
fn a_forged_placeholder_is_not_sent_on_among_other_attachments() {
    let forged = packet(&[FrameRef::Text(r#"2["m",{"_placeholder":true,"num":5}]"#)]);
    let raw: Raw = forged.args().get(0).expect("any");
    assert!(Event::new("/", "m", &(&raw,)).is_ok(), "without attachments it is an object like any other");
    assert!(matches!(Event::new("/", "m", &(raw, binary(1))), Err(EncodeError::Placeholder)));
}

#[test]
fn a_value_that_encodes_arguments_itself_does_not_disturb_those_around_it() {
    struct Inner;
    impl serde::Serialize for Inner {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let inner = ArgsBuf::new(&(binary(5),)).map_err(serde::ser::Error::custom)?;
            serializer.serialize_u64(inner.attachments().len() as u64)
        }
    }
    assert_eq!(
        texts(&event(&((binary(1), Inner, binary(2)),)).frames()),
        [r#"452-["m",[{"_placeholder":true,"num":0},1,{"_placeholder":true,"num":1}]]"#, "[1]", "[2]"]
    );
}

#[test]
fn views_of_no_arguments() {
    let packet = packet(&[FrameRef::Text(r#"2["m"]"#)]);
    let args: Args<'_> = packet.args();
    assert!(args.is_empty() && args.raw(0).is_none());
    assert_eq!(ArgsBuf::new(&args).expect("JSON").json(), "[]");
    assert_eq!(ArgsBuf::new(&()).expect("JSON").as_args().len(), 0);
}

#[test]
fn s2_engine_packets() {
    use EnginePacket as P;
    for (text, expected) in [
        ("0{}", Ok(P::Open)),
        ("1", Ok(P::Close)),
        ("1x", Ok(P::Close)),
        ("2", Ok(P::Ping(""))),
        ("2probe", Ok(P::Ping("probe"))),
        ("3", Ok(P::Pong(""))),
        ("3x", Ok(P::Pong("x"))),
        ("4", Ok(P::Text(""))),
        ("4hello", Ok(P::Text("hello"))),
        ("4é", Ok(P::Text("é"))),
        ("5", Ok(P::Upgrade)),
        ("6", Ok(P::Noop)),
        ("b", Ok(P::Binary(vec![].into()))),
        ("bAQIDBA==", Ok(P::Binary(vec![1, 2, 3, 4].into()))),
        ("bAQIDBA", Ok(P::Binary(vec![1, 2, 3, 4].into()))),
        ("b+/8=", Ok(P::Binary(vec![0xfb, 0xff].into()))),
        ("", Err(EnginePacketError)),
        ("abc", Err(EnginePacketError)),
        ("7", Err(EnginePacketError)),
        (" 4", Err(EnginePacketError)),
        ("é", Err(EnginePacketError)),
        ("b-_8=", Err(EnginePacketError)),
        ("bA", Err(EnginePacketError)),
        ("bAQI=x", Err(EnginePacketError)),
        ("b\u{1e}", Err(EnginePacketError)),
    ] {
        assert_eq!(EnginePacket::decode(FrameRef::Text(text)), expected, "{text:?}");
    }
    assert_eq!(EnginePacket::decode(FrameRef::Binary(b"4x")), Ok(P::Binary(b"4x".as_slice().into())));
}

#[test]
fn s4_payloads_are_split_and_joined_at_0x1e() {
    for (payload, expected) in [
        ("", &[""][..]),
        ("4hello", &["4hello"]),
        ("4test1\x1e4test2\x1e4test3", &["4test1", "4test2", "4test3"]),
        ("4a\x1e", &["4a", ""]),
        ("\x1e\x1e", &["", "", ""]),
    ] {
        let (mut packets, mut rest) = (Vec::new(), Some(payload));
        while let Some(text) = rest {
            let (first, next) = packet::split_payload(text);
            packets.push(first);
            rest = next;
        }
        assert_eq!(packets, expected, "{payload:?}");
    }
    let mut payload = String::new();
    let mut length = 0;
    for frame in [Frame::text("4hello"), Frame::Binary(Bytes::from_static(&[1, 2, 3, 4])), Frame::text("2")] {
        packet::push_packet(&mut payload, &frame);
        length += packet::encoded_len(&frame);
    }
    assert_eq!(payload, "4hello\x1ebAQIDBA==\x1e2");
    assert_eq!(length, payload.len() + 1);
}

#[test]
fn s2_queries_are_decoded() {
    for (text, expected) in [
        ("", &[][..]),
        ("EIO=4&transport=polling", &[("EIO", "4"), ("transport", "polling")]),
        ("a=b+c&d=%41%e2%82%AC", &[("a", "b c"), ("d", "A€")]),
        ("a&b=&=c&&d==e", &[("a", ""), ("b", ""), ("", "c"), ("d", "=e")]),
        ("a=1&a=2", &[("a", "1"), ("a", "2")]),
        ("%74=%", &[("t", "%")]),
        ("a=%4&b=%zz", &[("a", "%4"), ("b", "%zz")]),
        ("a=%ff", &[("a", "\u{fffd}")]),
    ] {
        let query = Query::parse(text);
        assert_eq!(query.iter().collect::<Vec<_>>(), expected, "{text}");
    }
    let query = Query::parse("sid=1&sid=2");
    assert_eq!((query.get("sid"), query.count("sid"), query.get("EIO")), (Some("1"), 2, None));
}
