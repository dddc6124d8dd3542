//! The PROXY protocol's header (versions 1 and 2, as haproxy's proxy-protocol.txt has them): who a proxy speaks for. Whom to believe is
//! decided elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::error::ProxyFault;

/// What a header says of the connection that it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The client's address. `None`: the proxy speaks for itself (`LOCAL`, a health check), or for somebody without an Internet
    /// address (`UNKNOWN`).
    pub client: Option<SocketAddr>,
    /// Bytes of the header. The client's first byte follows them.
    pub len: usize,
}

/// A header of version 1 is a line of this many bytes at most, its CRLF included.
const MAX_V1: usize = 107;
/// What a header of version 2 may take with its additions. The addresses take 232 at most; what proxies add (names, certificates) is
/// ignored, so more of it is refused rather than kept.
pub const MAX_HEADER: usize = 4096;

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family, and the length of the rest.
const V2_FIXED: usize = 16;

impl ProxyHeader {
    /// Reads a header from all bytes that have arrived so far, from the first one on. `None`: it is not complete, and no more than
    /// [`MAX_HEADER`] bytes. The verdict on a connection is the same however its bytes are cut.
    ///
    /// # Errors
    /// [`ProxyFault::Missing`] with the first byte that no header can have; that it is malformed or too long.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, ProxyFault> {
        if bytes.starts_with(V1) {
            return v1(bytes);
        }
        if bytes.starts_with(V2) {
            return v2(bytes);
        }
        if V1.starts_with(bytes) || V2.starts_with(bytes) { Ok(None) } else { Err(ProxyFault::Missing) }
    }
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 40000 443`
fn v1(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyFault> {
    let most = bytes.get(..MAX_V1).unwrap_or(bytes);
    let Some(end) = most.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() < MAX_V1 { Ok(None) } else { Err(ProxyFault::TooLong) };
    };
    let line =
        most.get(V1.len()..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(ProxyFault::Malformed)?;
    let len = end + 1;
    // Whatever follows is to be ignored.
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Ok(Some(ProxyHeader { client: None, len }));
    }
    let client = str::from_utf8(line).ok().and_then(v1_client).ok_or(ProxyFault::Malformed)?;
    Ok(Some(ProxyHeader { client: Some(client), len }))
}

fn v1_client(line: &str) -> Option<SocketAddr> {
    let mut words = line.split(' ');
    let family = words.next()?;
    let mut ip = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse().ok().map(IpAddr::V4),
            "TCP6" => word.parse().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, _) = (ip()?, ip()?);
    let (source_port, _) = (port(words.next()?)?, port(words.next()?)?);
    words.next().is_none().then(|| SocketAddr::new(source, source_port))
}

/// Decimal, without leading zeroes or a sign.
fn port(word: &str) -> Option<u16> {
    let plain = word == "0" || word.starts_with(|first: char| matches!(first, '1'..='9'));
    if plain { word.parse().ok() } else { None }
}

fn v2(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyFault> {
    let Some((&[command, family, high, low], rest)) =
        bytes.get(V2.len()..).and_then(|rest| rest.split_first_chunk::<4>())
    else {
        return Ok(None);
    };
    let body_len = usize::from(u16::from_be_bytes([high, low]));
    let len = V2_FIXED + body_len;
    if len > MAX_HEADER {
        return Err(ProxyFault::TooLong);
    }
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyFault::Malformed),
    };
    // The addresses of each family; 0x11 and 0x21 are TCP over IPv4 and IPv6.
    let addresses = match family {
        _ if is_local => 0,
        0x00 => 0,
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        0x31 | 0x32 => 216,
        _ => return Err(ProxyFault::Malformed),
    };
    if body_len < addresses {
        return Err(ProxyFault::Malformed);
    }
    let Some(body) = rest.get(..body_len) else { return Ok(None) };
    let client = match family {
        _ if is_local => None,
        0x11 => v2_client(body, |ip: [u8; 4]| Ipv4Addr::from(ip).into()),
        0x21 => v2_client(body, |ip: [u8; 16]| Ipv6Addr::from(ip).into()),
        _ => None,
    };
    Ok(Some(ProxyHeader { client, len }))
}

/// Source, destination, source port, destination port.
fn v2_client<const N: usize>(body: &[u8], ip: impl FnOnce([u8; N]) -> IpAddr) -> Option<SocketAddr> {
    let (source, rest) = body.split_first_chunk::<N>()?;
    let (_, rest) = rest.split_first_chunk::<N>()?;
    let (port, _) = rest.split_first_chunk::<2>()?;
    Some(SocketAddr::new(ip(*source), u16::from_be_bytes(*port)))
}

#[cfg(test)]
#[expect(clippy::unnecessary_wraps, reason = "they are cells of tables")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Verdict = Result<Option<ProxyHeader>, ProxyFault>;

    fn header(client: &str, len: usize) -> Verdict {
        Ok(Some(ProxyHeader { client: Some(client.parse().expect("an address")), len }))
    }

    const fn nobody(len: usize) -> Verdict {
        Ok(Some(ProxyHeader { client: None, len }))
    }

    const MALFORMED: Verdict = Err(ProxyFault::Malformed);
    const MISSING: Verdict = Err(ProxyFault::Missing);
    const TOO_LONG: Verdict = Err(ProxyFault::TooLong);

    /// The verdict on all of it, and that of every way to cut it once.
    fn check(what: &str, bytes: &[u8], expected: Verdict) {
        assert_eq!(ProxyHeader::parse(bytes), expected, "{what}");
        for cut in 0..bytes.len() {
            let early = ProxyHeader::parse(&bytes[..cut]);
            assert!(early == Ok(None) || early == expected, "{what}: after {cut} bytes {early:?}");
        }
    }

    #[test]
    fn headers_of_version_1() {
        let longest = b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n";
        let full = [&b"PROXY UNKNOWN "[..], &[b'x'; 91], b"\r\n"].concat();
        assert_eq!(full.len(), 107);
        let rows: &[(&str, &[u8], Verdict)] = &[
            ("nothing yet", b"", Ok(None)),
            ("its beginning", b"PROXY", Ok(None)),
            ("no end yet", b"PROXY TCP4 192.0.2.1 198.51.100.1 40000 443\r", Ok(None)),
            ("IPv4", b"PROXY TCP4 192.0.2.1 198.51.100.1 40000 443\r\n", header("192.0.2.1:40000", 45)),
            ("what follows stays", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET /", header("1.2.3.4:1", 32)),
            ("IPv6", b"PROXY TCP6 2001:db8::1 2001:db8::2 65535 0\r\n", header("[2001:db8::1]:65535", 44)),
            ("unknown", b"PROXY UNKNOWN\r\n", nobody(15)),
            ("unknown, with what is to be ignored", longest, nobody(longest.len())),
            ("the longest", &full, nobody(107)),
            ("one byte more", &[b"PROXY UNKNOWN ", &[b'x'; 92][..], b"\r\n"].concat(), TOO_LONG),
            ("a line without an end", &[b"PROXY ", &[b'x'; 101][..]].concat(), TOO_LONG),
            ("another family", b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", MALFORMED),
            ("an unknown family", b"PROXY UNKNOWNS\r\n", MALFORMED),
            ("a lower-case family", b"PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n", MALFORMED),
            ("IPv6 in TCP4", b"PROXY TCP4 ::1 ::1 1 2\r\n", MALFORMED),
            ("IPv4 in TCP6", b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n", MALFORMED),
            ("three numbers", b"PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n", MALFORMED),
            ("a number of 256", b"PROXY TCP4 1.2.3.256 5.6.7.8 1 2\r\n", MALFORMED),
            ("a zero in front", b"PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n", MALFORMED),
            ("a port of 65536", b"PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n", MALFORMED),
            ("a port with a zero in front", b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n", MALFORMED),
            ("a port with a sign", b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n", MALFORMED),
            ("no port", b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", MALFORMED),
            ("no destination", b"PROXY TCP4 1.2.3.4\r\n", MALFORMED),
            ("one word more", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n", MALFORMED),
            ("two blanks", b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n", MALFORMED),
            ("a blank at the end", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n", MALFORMED),
            ("nothing but its beginning", b"PROXY \r\n", MALFORMED),
            ("no UTF-8", b"PROXY TCP4 \xff\r\n", MALFORMED),
            ("a bare LF", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", MALFORMED),
            ("another method", b"PROPFIND / HTTP/1.1\r\n", MISSING),
            ("a request", b"GET / HTTP/1.1\r\n", MISSING),
            ("lower case", b"proxy TCP4", MISSING),
        ];
        for (what, bytes, expected) in rows {
            check(what, bytes, *expected);
        }
    }

    #[test]
    fn headers_of_version_2() {
        // Command and family, length, body.
        let v2 = |head: [u8; 2], len: u16, body: &[u8]| [V2, &head, &len.to_be_bytes(), body].concat();
        let ipv4 = b"\xc0\x00\x02\x01\xc6\x33\x64\x01\x9c\x40\x01\xbb";
        let ipv6 = b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\
                     \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\xff\xff\0\0";
        let checksum = b"\x03\x00\x04\xde\xad\xbe\xef";
        let (client4, client6) = ("192.0.2.1:40000", "[2001:db8::1]:65535");
        let rows: &[(&str, Vec<u8>, Verdict)] = &[
            ("its beginning", b"\r\n\r\n\0\r\nQUI".to_vec(), Ok(None)),
            ("without its length", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0".to_vec(), Ok(None)),
            ("IPv4", v2([0x21, 0x11], 12, ipv4), header(client4, 28)),
            ("IPv4, cut", v2([0x21, 0x11], 12, &ipv4[..11]), Ok(None)),
            (
                "what follows stays",
                v2([0x21, 0x11], 12, &[ipv4, &b"GET /"[..]].concat()),
                header(client4, 28),
            ),
            ("with additions", v2([0x21, 0x11], 19, &[ipv4, &checksum[..]].concat()), header(client4, 35)),
            ("IPv6", v2([0x21, 0x21], 36, ipv6), header(client6, 52)),
            ("local", v2([0x20, 0x00], 0, b""), nobody(16)),
            ("local, with addresses to be ignored", v2([0x20, 0x11], 12, ipv4), nobody(28)),
            ("local, of a family that does not exist", v2([0x20, 0x77], 1, b"x"), nobody(17)),
            ("unspecified", v2([0x21, 0x00], 0, b""), nobody(16)),
            ("UDP", v2([0x21, 0x12], 12, ipv4), nobody(28)),
            ("a Unix domain socket", v2([0x21, 0x31], 216, &[0; 216]), nobody(232)),
            ("a short body for IPv4", v2([0x21, 0x11], 11, &ipv4[..11]), MALFORMED),
            ("a short body for IPv6", v2([0x21, 0x21], 12, ipv4), MALFORMED),
            ("a short body for a Unix domain socket", v2([0x21, 0x31], 215, &[0; 215]), MALFORMED),
            ("version 1", v2([0x11, 0x11], 12, ipv4), MALFORMED),
            ("version 3", v2([0x31, 0x11], 12, ipv4), MALFORMED),
            ("another command", v2([0x22, 0x11], 12, ipv4), MALFORMED),
            ("another family", v2([0x21, 0x41], 12, ipv4), MALFORMED),
            ("another transport", v2([0x21, 0x13], 12, ipv4), MALFORMED),
            ("the longest", v2([0x21, 0x00], 4080, &[0; 4080]), nobody(4096)),
            ("one byte more", v2([0x21, 0x00], 4081, &[0; 4081]), TOO_LONG),
            ("the longest that there is", v2([0x21, 0x11], u16::MAX, b""), TOO_LONG),
            ("an empty line and a request", b"\r\nGET / HTTP/1.1\r\n".to_vec(), MISSING),
            ("nearly the signature", b"\r\n\r\n\0\r\nQUIT\r".to_vec(), MISSING),
        ];
        for (what, bytes, expected) in rows {
            check(what, bytes, *expected);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_have_one_verdict_however_they_are_cut(
            version in 0..3_usize,
            tail in proptest::collection::vec(
                prop_oneof![3 => proptest::sample::select(b"TCP46 UNKOW.:0129\r\n\x11\x20\x21\0".to_vec()), 1 => any::<u8>()],
                0..160,
            ),
        ) {
            let bytes = [[&b""[..], V1, V2][version], &tail].concat();
            let whole = ProxyHeader::parse(&bytes);
            let first = (0..=bytes.len()).map(|cut| ProxyHeader::parse(&bytes[..cut])).find(|early| *early != Ok(None));
            prop_assert_eq!(first.unwrap_or(Ok(None)), whole);
            if let Ok(Some(header)) = whole {
                prop_assert!(header.len <= bytes.len().min(MAX_HEADER));
            }
        }
    }
}
