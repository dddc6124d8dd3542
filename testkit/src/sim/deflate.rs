//! A second reading of permessage-deflate (RFC 7692) and of DEFLATE (RFC 1951): what a request's offer comes to, and what a
//! message inflates to. Nothing of the crate is used here, nor of its codec. Only the peers compress with a library.

use super::chance::Rng;

/// What a flushed stream ends with, cut off by the sender (§7.2.1 of RFC 7692).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// An empty block that ends a stream.
const LAST_BLOCK: [u8; 5] = [1, 0, 0, 0xff, 0xff];
/// The farthest that a reference may reach back.
const WINDOW: usize = 32 << 10;
const MAX_BITS: u8 = 15;

/// What the server is set to.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub threshold: usize,
    pub server_keeps: bool,
    pub client_keeps: bool,
    pub server_bits: u8,
    pub client_bits: u8,
}

/// What the sides of a connection have to agree on.
#[derive(Clone, Copy, Debug)]
pub struct Agreed {
    /// The messages of a side may refer to earlier ones.
    pub server_keeps: bool,
    pub client_keeps: bool,
    /// How far, as a power of two.
    server_bits: u8,
    client_bits: u8,
    /// Shorter messages of the server go as they are.
    threshold: usize,
}

/// An offer of a client, and what its server has to make of it.
pub fn offer(settings: Settings, rng: &mut Rng) -> (Option<String>, Option<Agreed>) {
    if rng.u8(..5) == 0 {
        return (None, None);
    }
    let (server_no, client_no) = (rng.u8(..3) == 0, rng.u8(..3) == 0);
    let server_bits = (rng.u8(..3) == 0).then(|| rng.u8(8..=MAX_BITS));
    // It may say that it can be limited without saying to what.
    let client_bits = (rng.u8(..3) > 0).then(|| (rng.u8(..2) == 0).then(|| rng.u8(8..=MAX_BITS)));
    let mut line = "permessage-deflate".to_owned();
    let mut add = |name: &str, value: Option<u8>| {
        line += &value.map_or(format!("; {name}"), |value| format!("; {name}={value}"));
    };
    if server_no {
        add("server_no_context_takeover", None);
    }
    if client_no {
        add("client_no_context_takeover", None);
    }
    if server_bits.is_some() {
        add("server_max_window_bits", server_bits);
    }
    if let Some(bits) = client_bits {
        add("client_max_window_bits", bits);
    }
    let agreed = Agreed {
        server_keeps: !server_no && settings.server_keeps,
        client_keeps: !client_no && settings.client_keeps,
        server_bits: server_bits.unwrap_or(MAX_BITS).min(settings.server_bits),
        client_bits: client_bits.flatten().unwrap_or(MAX_BITS).min(settings.client_bits),
        threshold: settings.threshold,
    };
    // Who cannot be limited is declined where there is a limit.
    let declined = client_bits.is_none() && settings.client_bits < MAX_BITS;
    (Some(line), Some(agreed).filter(|_| !declined))
}

impl Agreed {
    /// Whether this is how the 101 has to say it.
    pub fn is_said_by(&self, answer: &str) -> bool {
        let mut parts = answer.split(';').map(str::trim);
        let (mut server_keeps, mut client_keeps) = (true, true);
        let (mut server_bits, mut client_bits) = (MAX_BITS, MAX_BITS);
        let known = parts.next() == Some("permessage-deflate")
            && parts.all(|part| match part.split_once('=') {
                None if part == "server_no_context_takeover" => std::mem::take(&mut server_keeps),
                None if part == "client_no_context_takeover" => std::mem::take(&mut client_keeps),
                Some(("server_max_window_bits", bits)) => bits.parse().map(|bits| server_bits = bits).is_ok(),
                Some(("client_max_window_bits", bits)) => bits.parse().map(|bits| client_bits = bits).is_ok(),
                _ => false,
            });
        let said = (server_keeps, client_keeps, server_bits, client_bits);
        known && said == (self.server_keeps, self.client_keeps, self.server_bits, self.client_bits)
    }

    /// What inflates the server's messages: they reach back as far as was agreed, and no farther.
    pub fn of_server(&self) -> Inflate {
        Inflate { keeps: self.server_keeps, reach: 1 << self.server_bits, ..Inflate::default() }
    }

    /// What inflates the client's. A server takes what it can.
    pub fn of_client(&self) -> Inflate {
        Inflate { keeps: self.client_keeps, reach: WINDOW, ..Inflate::default() }
    }

    /// What deflates the client's messages.
    pub fn squeeze(&self, rng: &mut Rng) -> Squeeze {
        Squeeze::new(self.client_keeps, self.client_bits, rng.u8(..=9))
    }

    /// Why the server should not have compressed this message.
    pub fn objects(&self, packed: usize, length: usize) -> Option<String> {
        (length < self.threshold || packed >= length).then(|| {
            format!("{length} bytes were compressed to {packed}, with a threshold of {}", self.threshold)
        })
    }
}

/// Deflates the messages of a client.
#[derive(Debug)]
pub struct Squeeze {
    #[cfg(feature = "deflate")]
    stream: flate2::Compress,
    #[cfg_attr(not(feature = "deflate"), expect(dead_code, reason = "nothing is compressed"))]
    keeps: bool,
}

impl Squeeze {
    #[cfg(feature = "deflate")]
    fn new(keeps: bool, bits: u8, level: u8) -> Self {
        let level = flate2::Compression::new(u32::from(level));
        Self { stream: flate2::Compress::new_with_window_bits(level, false, bits.max(9)), keeps }
    }

    #[cfg(not(feature = "deflate"))]
    fn new(keeps: bool, _: u8, _: u8) -> Self {
        Self { keeps }
    }

    /// The payload of a compressed message.
    #[cfg_attr(not(feature = "deflate"), expect(clippy::unused_self, reason = "nothing is compressed"))]
    pub fn message(&mut self, payload: &[u8]) -> Vec<u8> {
        if payload.is_empty() {
            return vec![0];
        }
        let mut out = Vec::with_capacity(payload.len() + payload.len() / 8 + 100);
        #[cfg(feature = "deflate")]
        {
            let flushed = self.stream.compress_vec(payload, &mut out, flate2::FlushCompress::Sync);
            assert!(flushed.is_ok() && out.ends_with(&TAIL), "there is room");
            if !self.keeps {
                self.stream.reset();
            }
        }
        out.truncate(out.len().saturating_sub(TAIL.len()));
        out
    }
}

/// Why a message cannot be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    TooBig,
    Corrupt,
}

/// Inflates the messages of one side.
#[derive(Clone, Debug, Default)]
pub struct Inflate {
    keeps: bool,
    reach: usize,
    /// What references may reach back into, then what has come out of this message.
    out: Vec<u8>,
    /// References end here: an earlier stream has ended.
    from: usize,
    bytes: Vec<u8>,
    /// In bits.
    at: usize,
    block: Block,
    last: bool,
    ended: bool,
}

#[derive(Clone, Debug, Default)]
enum Block {
    #[default]
    Header,
    Stored(usize),
    Coded(Box<(Code, Code)>),
}

/// Why it does not go on.
enum Stop {
    /// All bytes are used up.
    More,
    Fault(Fault),
}

const CORRUPT: Stop = Stop::Fault(Fault::Corrupt);

impl Inflate {
    /// A message that is whole. `limit`: so much may come out.
    ///
    /// # Errors
    /// What has come out by then, and why it is not all.
    pub fn message(&mut self, packed: &[u8], limit: usize) -> Result<Vec<u8>, (Vec<u8>, Fault)> {
        let start = self.out.len();
        let result = if packed.is_empty() { Ok(()) } else { self.whole(packed, start, limit) };
        let message = self.out.split_off(start);
        if self.keeps {
            self.out.extend_from_slice(&message);
            let old = self.out.len().saturating_sub(WINDOW);
            self.out.drain(..old);
            self.from = self.from.saturating_sub(old);
            self.bytes.drain(..self.at / 8);
            self.at %= 8;
        } else {
            *self = Self { reach: self.reach, ..Self::default() };
        }
        match result {
            Ok(()) => Ok(message),
            Err(fault) => Err((message, fault)),
        }
    }

    fn whole(&mut self, packed: &[u8], start: usize, limit: usize) -> Result<(), Fault> {
        self.feed(packed, start.saturating_add(limit))?;
        let whole = self.out.len();
        let tails: &[&[u8]] = if self.keeps { &[&TAIL] } else { &[&TAIL, &LAST_BLOCK] };
        for tail in tails {
            if !self.ended {
                self.feed(tail, usize::MAX)?;
            }
        }
        // What was cut off belongs to a block without content.
        let right = self.out.len() == whole && (self.keeps || self.ended);
        if right { Ok(()) } else { Err(Fault::Corrupt) }
    }

    fn feed(&mut self, bytes: &[u8], limit: usize) -> Result<(), Fault> {
        self.bytes.extend_from_slice(bytes);
        loop {
            if self.ended {
                if self.at.div_ceil(8) >= self.bytes.len() {
                    return Ok(());
                }
                // Another stream follows, which refers to nothing of this one.
                self.at = self.at.next_multiple_of(8);
                (self.ended, self.from, self.block) = (false, self.out.len(), Block::Header);
            }
            let at = self.at;
            match self.step() {
                Ok(()) if self.out.len() > limit => return Err(Fault::TooBig),
                Ok(()) => {}
                Err(Stop::More) => {
                    self.at = at;
                    return Ok(());
                }
                Err(Stop::Fault(fault)) => return Err(fault),
            }
        }
    }

    /// A header, a byte that is stored, or a symbol.
    fn step(&mut self) -> Result<(), Stop> {
        match std::mem::take(&mut self.block) {
            Block::Header => {
                let last = self.bits(1)? == 1;
                self.block = match self.bits(2)? {
                    0 => self.stored()?,
                    1 => Block::Coded(Box::new(fixed())),
                    2 => Block::Coded(Box::new(self.dynamic()?)),
                    _ => return Err(CORRUPT),
                };
                self.last = last;
                if matches!(self.block, Block::Stored(0)) {
                    self.end_block();
                }
            }
            Block::Stored(left) => {
                self.block = Block::Stored(left);
                let byte = self.bits(8)?;
                self.out.push(byte.to_le_bytes()[0]);
                self.block = Block::Stored(left - 1);
                if left == 1 {
                    self.end_block();
                }
            }
            Block::Coded(codes) => {
                let done = self.symbol(&codes);
                self.block = Block::Coded(codes);
                if done? {
                    self.end_block();
                }
            }
        }
        Ok(())
    }

    fn end_block(&mut self) {
        (self.block, self.ended) = (Block::Header, self.last);
    }

    fn stored(&mut self) -> Result<Block, Stop> {
        self.at = self.at.next_multiple_of(8);
        let (length, complement) = (self.bits(16)?, self.bits(16)?);
        if length != !complement & 0xffff {
            return Err(CORRUPT);
        }
        Ok(Block::Stored(length as usize))
    }

    /// RFC 1951 §3.2.7.
    fn dynamic(&mut self) -> Result<(Code, Code), Stop> {
        const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
        let (literals, distances) = (self.bits(5)? as usize + 257, self.bits(5)? as usize + 1);
        let count = self.bits(4)? as usize + 4;
        let mut lengths = [0; 19];
        for at in &ORDER[..count] {
            lengths[*at] = self.bits(3)?.to_le_bytes()[0];
        }
        let code = Code::new(&lengths, false)?;
        if literals > 286 || distances > 30 {
            return Err(CORRUPT);
        }
        let mut lengths = Vec::new();
        while lengths.len() < literals + distances {
            let (value, times) = match self.decode(&code)? {
                16 => (*lengths.last().ok_or(CORRUPT)?, 3 + self.bits(2)?),
                17 => (0, 3 + self.bits(3)?),
                18 => (0, 11 + self.bits(7)?),
                length => (length.to_le_bytes()[0], 1),
            };
            lengths.extend(std::iter::repeat_n(value, times as usize));
        }
        if lengths.len() > literals + distances || lengths[256] == 0 {
            return Err(CORRUPT);
        }
        Ok((Code::new(&lengths[..literals], true)?, Code::new(&lengths[literals..], true)?))
    }

    /// One symbol of a coded block. Says whether it was the last.
    fn symbol(&mut self, (literals, distances): &(Code, Code)) -> Result<bool, Stop> {
        let length = match self.decode(literals)? {
            256 => return Ok(true),
            literal @ 0..256 => {
                self.out.push(literal.to_le_bytes()[0]);
                return Ok(false);
            }
            285 => 258,
            symbol @ 257..285 => {
                let symbol = usize::from(symbol - 257);
                let extra = if symbol < 8 { 0 } else { symbol / 4 - 1 };
                let base = if symbol < 8 { 3 + symbol } else { 3 + ((4 + symbol % 4) << extra) };
                base + self.bits(extra)? as usize
            }
            _ => return Err(CORRUPT),
        };
        let symbol = usize::from(self.decode(distances)?);
        if symbol >= 30 {
            return Err(CORRUPT);
        }
        let extra = if symbol < 4 { 0 } else { symbol / 2 - 1 };
        let base = if symbol < 4 { 1 + symbol } else { 1 + ((2 + symbol % 2) << extra) };
        let distance = base + self.bits(extra)? as usize;
        if distance > (self.out.len() - self.from).min(self.reach) {
            return Err(CORRUPT);
        }
        for _ in 0..length {
            self.out.push(self.out[self.out.len() - distance]);
        }
        Ok(false)
    }

    fn bits(&mut self, count: usize) -> Result<u32, Stop> {
        let mut value = 0;
        for i in 0..count {
            let byte = self.bytes.get(self.at / 8).ok_or(Stop::More)?;
            value |= u32::from(byte >> (self.at % 8) & 1) << i;
            self.at += 1;
        }
        Ok(value)
    }

    fn decode(&mut self, code: &Code) -> Result<u16, Stop> {
        let (mut word, mut first, mut index) = (0, 0, 0);
        for count in &code.counts[1..] {
            word |= self.bits(1)?;
            if word < first + count {
                return Ok(code.symbols[(index + word - first) as usize]);
            }
            index += count;
            (first, word) = ((first + count) << 1, word << 1);
        }
        Err(CORRUPT)
    }
}

/// A canonical Huffman code (RFC 1951 §3.2.2).
#[derive(Clone, Debug)]
struct Code {
    /// How many words have each length.
    counts: [u32; 16],
    /// In the order of their words.
    symbols: Vec<u16>,
}

impl Code {
    /// `sparse`: there may be a single word, of one bit, or none.
    fn new(lengths: &[u8], sparse: bool) -> Result<Self, Stop> {
        let mut counts = [0; 16];
        for length in lengths {
            counts[usize::from(*length)] += 1;
        }
        counts[0] = 0;
        let mut left = 1_i64;
        for count in &counts[1..] {
            left = left * 2 - i64::from(*count);
            if left < 0 {
                return Err(CORRUPT);
            }
        }
        let few = sparse && counts[2..].iter().all(|count| *count == 0);
        if left > 0 && !few {
            return Err(CORRUPT);
        }
        let mut symbols: Vec<_> = (0_u16..).zip(lengths).filter(|(_, length)| **length > 0).collect();
        symbols.sort_by_key(|(_, length)| **length);
        Ok(Self { counts, symbols: symbols.into_iter().map(|(symbol, _)| symbol).collect() })
    }
}

/// RFC 1951 §3.2.6.
fn fixed() -> (Code, Code) {
    let lengths: Vec<u8> = (0..288)
        .map(|symbol| match symbol {
            144..256 => 9,
            256..280 => 7,
            _ => 8,
        })
        .collect();
    let code = |lengths: &[u8]| Code::new(lengths, false).ok().expect("it is complete");
    (code(&lengths), code(&[5; 32]))
}

#[cfg(all(test, feature = "deflate"))]
mod tests {
    use super::*;

    /// Against a library, which is also that of the crate: what the simulation takes for granted.
    #[test]
    fn what_was_deflated_inflates_to_the_same() {
        let mut rng = Rng::with_seed(1);
        for _ in 0..300 {
            let (keeps, bits) = (rng.bool(), rng.u8(8..=MAX_BITS));
            let mut squeeze = Squeeze::new(keeps, bits, rng.u8(..=9));
            let mut inflate = Inflate { keeps, reach: 1 << bits.max(9), ..Inflate::default() };
            for _ in 0..rng.u8(1..6) {
                let letters = rng.u8(1..=255);
                let message: Vec<u8> = (0..rng.usize(..5000)).map(|_| rng.u8(..letters)).collect();
                let packed = squeeze.message(&message);
                assert_eq!(inflate.message(&packed, usize::MAX), Ok(message));
            }
        }
    }
}
