//! Where the fuzzers begin: inputs that reach what random bytes would take days to find. `seeds` writes them down.

use adjourn::testing::{REQUEST, frame};

use super::peer::pack;

/// Name and inputs of each target.
pub fn all() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let (streams, conversations) = (streams(), conversations());
    // What comes first: how to read what follows, and where to cut it.
    let on_the_wire = |hows: &[&[u8]]| {
        let cuts: [&[u8]; 3] = [&[0], &[2, 0, 3, 0, 7], &[16]];
        let mut inputs = Vec::new();
        for (at, stream) in streams.iter().chain(&conversations).enumerate() {
            let how = if at < streams.len() { hows[0] } else { hows[1] };
            inputs.push([&how[..1], cuts[at % 3], &how[1..], stream].concat());
        }
        inputs
    };
    let compressed = streams.iter().chain(&conversations).enumerate().flat_map(|(at, stream)| {
        let offer = u8::try_from(at % 7).expect("small");
        let how = if at < streams.len() { 2 } else { 6 };
        [[&[how, 2, 0, 4, 0, 9, 0, 0, offer], &stream[..]].concat()]
    });
    vec![
        ("header", headers()),
        (
            "upgrade_request",
            requests().iter().map(|request| [&[2, 0, 20, 0, 60], &request[..]].concat()).collect(),
        ),
        ("proxy_header", proxy_headers()),
        ("upgrade_response", responses()),
        ("any_split", on_the_wire(&[&[1], &[5]]).into_iter().chain(compressed).collect()),
        ("against_reference", on_the_wire(&[&[0], &[1]])),
        ("against_tungstenite", on_the_wire(&[&[0], &[1]])),
        ("connection", lives()),
        ("deflate", packed()),
        ("world", worlds()),
    ]
}

fn headers() -> Vec<Vec<u8>> {
    let firsts = [0x81, 0x82, 0x01, 0x80, 0x00, 0x88, 0x89, 0x8A, 0xC1, 0xA1, 0x91, 0x83, 0x8B, 0x08];
    let lengths: [&[u8]; 8] = [
        &[0x80, 1, 2, 3, 4],
        &[0xFD, 1, 2, 3, 4],
        &[0x7D],
        &[0xFE, 0, 126, 1, 2, 3, 4],
        &[0xFE, 0, 125, 1, 2, 3, 4],
        &[0xFF, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4],
        &[0xFF, 0, 0, 0, 0, 0, 0, 255, 255, 1, 2, 3, 4],
        &[0x7F, 0x80, 0, 0, 0, 0, 0, 0, 0],
    ];
    firsts.iter().flat_map(|first| lengths.map(|length| [&[*first], length].concat())).collect()
}

fn proxy_headers() -> Vec<Vec<u8>> {
    let lines = [
        "PROXY TCP4 192.0.2.1 198.51.100.1 40000 443\r\n",
        "PROXY TCP6 2001:db8::1 ::ffff:198.51.100.1 65535 0\r\nGET / HTTP/1.1\r\n",
        "PROXY UNKNOWN\r\n",
        "PROXY UNKNOWN ffff::ffff ffff::ffff 65535 65535\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 040000 443\r\n",
        "PROPFIND / HTTP/1.1\r\n",
    ];
    let binary = |command, family, body: &[u8]| {
        let len = u16::try_from(body.len()).expect("short");
        [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &len.to_be_bytes(), body].concat()
    };
    let lines = lines.map(|line| line.as_bytes().to_vec());
    let binaries = [
        binary(0x21, 0x11, &[192, 0, 2, 1, 198, 51, 100, 1, 0x9C, 0x40, 1, 0xBB]),
        binary(0x21, 0x21, &[0x20; 36]),
        binary(0x21, 0x11, b"\xc0\x00\x02\x01\xc6\x33\x64\x01\x9c\x40\x01\xbb\x03\x00\x04\xde\xad\xbe\xef"),
        binary(0x21, 0x31, &[b'/'; 216]),
        binary(0x20, 0x00, b""),
        binary(0x21, 0x11, b"short"),
    ];
    let headers = lines.into_iter().chain(binaries);
    headers.map(|header| [&[2, 0, 7, 0, 9], &header[..]].concat()).collect()
}

fn requests() -> Vec<Vec<u8>> {
    let text = str::from_utf8(REQUEST).expect("ASCII");
    let with = |lines: &str| text.replace("Host: localhost", &format!("Host: localhost{lines}"));
    let changed = |from: &str, to: &str| text.replace(from, to);
    let requests = [
        text.to_owned(),
        with("\r\nOrigin: http://example.com\r\nSec-WebSocket-Protocol: chat, superchat"),
        with(
            "\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=\"10\", foo;bar=\"\\a\"",
        ),
        with("\r\nContent-Length: 0\r\nCookie: a=b"),
        with("\r\nContent-Length: 5") + "hello",
        with("\r\nTransfer-Encoding: chunked"),
        with(&"\r\nX: y".repeat(40)),
        with(&format!("\r\nX: {}", "y".repeat(4100))),
        changed("GET /", "GET http://localhost/a?b"),
        changed("GET /", "POST /a"),
        changed("GET /", "HEAD /health?x"),
        changed("HTTP/1.1", "HTTP/1.0"),
        changed("HTTP/1.1", "HTTP/2.0"),
        changed("Connection: Upgrade", "Connection: keep-alive, Upgrade\r\nConnection: x"),
        changed("Upgrade: websocket", "Upgrade: h2c, WebSocket"),
        changed("Version: 13", "Version: 8"),
        changed("Upgrade: websocket\r\n", ""),
        changed("\r\nHost", "\nHost"),
        changed("\r\nHost", "\r\n\tHost"),
        "\x16\x03\x01 TLS".to_owned(),
    ];
    requests.into_iter().map(String::into_bytes).collect()
}

fn responses() -> Vec<Vec<u8>> {
    const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: #\r\n\r\n";
    let with = |lines: &str| GOOD.replace("\r\n\r\n", &format!("\r\n{lines}\r\n\r\n"));
    let changed = |from: &str, to: &str| GOOD.replace(from, to);
    let responses = [
        (0, GOOD.to_owned()),
        (2, with("Sec-WebSocket-Protocol: superchat")),
        (2, with("Sec-WebSocket-Protocol: chat, superchat")),
        (0, with("Sec-WebSocket-Protocol: chat")),
        (1, with("Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover")),
        (
            1,
            with(
                "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=15; client_max_window_bits=12",
            ),
        ),
        (1, with("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")),
        (0, with("Sec-WebSocket-Extensions: permessage-deflate")),
        (1, with("Sec-WebSocket-Extensions: permessage-deflate, foo")),
        (0, with("Upgrade: websocket")),
        (0, changed("Upgrade\r\n", "keep-alive, UPGRADE\r\n")),
        (0, changed("#", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")),
        (0, changed("101 Switching Protocols", "302 Found\r\nLocation: /")),
        (0, changed("101 Switching Protocols", "101 ")),
        (0, changed("HTTP/1.1", "HTTP/1.0")),
        (0, with(&"X: y\r\n".repeat(30))),
    ];
    // What the application does meanwhile.
    let impatient = [0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70].map(|how| (how, GOOD.to_owned()));
    // A server's frames are not masked.
    let behind: [&[u8]; 4] =
        [b"", b"\x81\x05hello\x89\x00\x88\x02\x03\xe8", b"\x01\x03abc\x80\x03def", b"\x81\x85maskhello"];
    let mut inputs = Vec::new();
    for (at, (how, response)) in responses.into_iter().chain(impatient).enumerate() {
        let settings: &[u8] = if how & 1 == 1 { &[3, 0] } else { &[] };
        inputs.push([&[how, 2, 0, 30, 0, 60], settings, response.as_bytes(), behind[at % 4]].concat());
    }
    inputs
}

/// What clients send behind the request, as it is.
fn streams() -> Vec<Vec<u8>> {
    let close = |code: u16, reason: &[u8]| frame(0x88, &[&code.to_be_bytes(), reason].concat());
    let text = frame(0x81, "h\u{e9}llo \u{20ac}\u{1f600}".as_bytes());
    let mut streams = vec![
        text.clone(),
        [frame(0x82, &[0; 200]), frame(0x88, b"")].concat(),
        [
            frame(0x01, b"one "),
            frame(0x89, b"ping"),
            frame(0x00, b"two "),
            frame(0x80, b"three"),
            close(1000, b"bye"),
        ]
        .concat(),
        [frame(0x01, b"\xe2\x82"), frame(0x80, b"\xac")].concat(),
        [frame(0x01, b"\xe2"), frame(0x80, b"\x28\xa1")].concat(),
        frame(0x81, b"\xed\xa0\x80"),
        frame(0x82, &[7; 3001]),
        [frame(0x02, &[7; 2000]), frame(0x80, &[7; 2000])].concat(),
        [frame(0x02, b""), frame(0x00, b"").repeat(30)].concat(),
        // The most fragments, and one more.
        [frame(0x02, b""), frame(0x00, b"").repeat(18), frame(0x80, b"")].concat(),
        [frame(0x02, b""), frame(0x00, b"").repeat(19), frame(0x80, b"")].concat(),
        [frame(0x8A, b"pong"), frame(0x89, &[b'x'; 125]), frame(0x89, &[b'x'; 126])].concat(),
        frame(0x80, b"nothing to continue"),
        [frame(0x01, b"not finished"), frame(0x81, b"another")].concat(),
        b"\x81\x05hello".to_vec(),
        b"\x82\xfe\x00\x05\0\0\0\0hello".to_vec(),
        b"\x82\xff\x80\0\0\0\0\0\0\x05\0\0\0\0hello".to_vec(),
        b"\x82\xff\0\0\0\0\0\0\0\x05\0\0\0\0hello".to_vec(),
        b"\x89\xfe\x00\x05\0\0\0\0hello".to_vec(),
        frame(0x83, b""),
        frame(0xA1, b""),
        frame(0xC1, &pack(b"compressed, compressed, compressed")),
        [frame(0x41, &pack(b"in two ")[..3]), frame(0x80, &pack(b"in two ")[3..])].concat(),
        frame(0xC2, &pack(&[0; 60_000])),
        frame(0xC1, b"\xff\xff\xff"),
        frame(0xC1, &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]),
        [close(1000, b""), frame(0x81, b"too late")].concat(),
        frame(0x88, b"\x03"),
        close(1000, b"\xff"),
    ];
    for code in [999, 1004, 1005, 1006, 1014, 1015, 2999, 3000, 4999, 5000] {
        streams.push([text.clone(), close(code, b"why")].concat());
    }
    streams
}

/// The same in the steps of `peer::step`.
fn conversations() -> Vec<Vec<u8>> {
    vec![
        b"\x03\x00\x05hello\x03\x04\x00".to_vec(),
        b"\x03\x05\x03one\x03\x02\x01p\x03\x08\x03two\x03\x04\x02\x03\xe8".to_vec(),
        b"\x05\x01\x04\x00x\x03\x04\x00".to_vec(),
        b"\x06\x00\x02\x0ca text twice a text twice\x07\x00\x20\x00a".to_vec(),
        b"\x07\x01\xff\xffz\x03\x04\x00".to_vec(),
        // Echoes of more than 16 KiB in one read, but not if it is cut.
        b"\x05\x01\x0f\xa0x".repeat(5),
        b"\x00\x81\x03\xe2\x82\xac\x00\x41\x05\xff\xff\xff\xff\xff\x04\x03\x88\x80\x00".to_vec(),
    ]
}

/// The life of a connection in the steps of `connection`.
fn lives() -> Vec<Vec<u8>> {
    let steps: [&[u8]; 17] = [
        // A request, a text, a Close.
        b"\x00\x02\x03\x00\x05hello\xff\x02\x03\x04\x02\x03\xe8\xff",
        // `close`, its answer, FIN.
        b"\x00\x0b\x06\x00\x02\x03\x04\x02\x03\xe8\xff\x09",
        // `send` to a kernel that takes little, `close_with`, time, room.
        b"\x00\x07\x00\x03\x0b\x00\x05hello\x0b\x00\x05again\x0b\x07\x01\x03\xe8\x01\x01\xf4\x00\x06\x02\x00\x07\x00\x05\x08",
        // `kick` behind a backlog that is dropped.
        b"\x00\x07\x00\x08\x0b\x03x\x00\x64\x0b\x00\x05never\x0b\x08\x00\x01\x03bye\x07\x00\x20\x08\x09",
        // The peer's Close, messages, the answer.
        b"\x00\x02\x03\x04\x02\x03\xe8\xff\x0b\x00\x04last\x0b\x09\x00\x08\x09",
        // `terminate` in each style, with a frame that is cut.
        b"\x00\x07\x00\x04\x0b\x00\x05hello\x0b\x0b\x00",
        b"\x00\x07\x00\x04\x0b\x00\x05hello\x0b\x0b\x01\x06\x20\x00",
        // Pause, input, resume.
        b"\x00\x0b\x0c\x02\x03\x00\x05hello\xff\x02\x03\x02\x01p\xff\x0b\x0d\x09",
        // Silence: a Ping, then a timeout.
        b"\x00\x06\x80\x00\x06\x80\x00\x06\x80\x00",
        // A stall.
        b"\x00\x07\x00\x00\x0b\x00\x05hello\x06\x80\x00\x06\x80\x00",
        // A shutdown with a lame duck, escalated; another that is aborted.
        b"\x00\x0b\x10\x14\x01\x01\x00\x03\xe8\x06\x00\x10\x0b\x11\x06\x00\x10\x02\x03\x04\x02\x03\xe9\xff\x09",
        b"\x00\x0b\x10\x00\x00\x01\x00\x03\xe8\x06\x00\x00\x0b\x12\x06\x00\x10",
        // Sweeps by predicate.
        b"\x00\x0b\x0e\x00\x00\xc8\x06\x00\xff\x02\x03\x04\x02\x03\xe8\xff\x0b\x0f\x06\x00\x10",
        // A violation, trailing bytes, a reset.
        b"\x00\x02\x00\x83\x00\xff\x02\x03\x00\x05hello\xff\x0a",
        // More Pings than the rate allows.
        b"\x00\x02\x03\x02\x01p\xff\x02\x03\x02\x01p\xff\x02\x03\x03\x01p\xff\x02\x03\x02\x01p\xff\x02\x03\x02\x01p\xff",
        // Plain HTTP, then nothing.
        b"\x01\x06\x40\x00",
        // Broadcast, Ping, a long message, a message in two reads.
        b"\x00\x0b\x04\x05hello\x0b\x05\x01p\x0b\x03y\x40\x00\x02\x03\x00\x05hello\xd1\x08\x09",
    ];
    let settings: [&[u8]; 10] = [
        b"\x00\x00\x00\x00",
        b"\x08\x00\x00\x00",
        b"\x03\x10\x00\x00",
        b"\x14\x20\x00\x02\x80\xc8",
        b"\x60\x01\x00\x03\x6a\x78\xfa",
        b"\x80\x00\x13\x00\x01\x00\x00",
        b"\x80\x02\x10\x77\x03\x00\x00",
        b"\x00\x0c\xff\x00",
        b"\x00\x00\x4a\x01\x01",
        b"\x00\x80\x00\x00",
    ];
    let mut inputs = Vec::new();
    for (at, steps) in steps.iter().enumerate() {
        for offset in [0, 3, 4, 7] {
            inputs.push([settings[(at + offset) % settings.len()], steps].concat());
        }
    }
    inputs
}

/// Negotiations, then messages, in the form of `deflate`.
fn packed() -> Vec<Vec<u8>> {
    let messages: [&[u8]; 6] = [
        b"\x01\x05hello\x01\x05hello\x01\x0bhello hello",
        b"\x02a\x01\x00\x02b\x07\xd0\x02c\x07\xd1",
        b"\x41\x0ctext in two.\x82\x07\x00\x21\x00",
        b"\x05\x07\xf2\x48\xcd\xc9\xc9\x07\x00",
        b"\x0d\x03\xf2\x48\xcd\x04\xc9\xc9\x07\x00\x03\x04\x00",
        b"\x04\x0b\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00\x03\x09\x03abc",
    ];
    let mut inputs = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        for offer in 0..7_u8 {
            let settings =
                [[0x30, 0x00], [0x13, 0x00], [0x61, 0x55], [0x92, 0x77]][(at + usize::from(offer)) % 4];
            inputs.push([&[2, 0, 3, 0, 9], &settings[..], &[offer], message].concat());
        }
    }
    let parameters = b"permessage-deflate; server_max_window_bits=\"1\\0\"; client_no_context_takeover";
    let length = u8::try_from(parameters.len()).expect("short");
    inputs.push([&[0, 0x13, 0x00, 15, length], &parameters[..], messages[0]].concat());
    inputs
}

/// Worlds of few connections: bytes of a small generator, since which byte means what depends on all before it.
fn worlds() -> Vec<Vec<u8>> {
    let mut state = 1_u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..200_usize).map(|n| (0..=n * 4).map(|_| byte()).collect()).collect()
}
