//! A fuzzer's bytes as choices.

/// Bytes that are taken from the front. Behind their end there are zeroes, so that every input means something, and a
/// prefix of an input means nearly the same.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    pub fn flag(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.u8()) % from.len()]
    }

    /// So many bytes, or what there is.
    pub fn take(&mut self, n: usize) -> &'a [u8] {
        let (piece, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        piece
    }

    /// Bytes behind their number, which takes one byte, or three if the first is 255.
    pub fn piece(&mut self) -> &'a [u8] {
        let n = match self.u8() {
            255 => usize::from(self.u16()),
            n => usize::from(n),
        };
        self.take(n)
    }

    /// Lengths of up to 15 pieces, or 512 pieces of one byte: see [`pieces`].
    pub fn cuts(&mut self) -> Vec<u16> {
        let n = self.u8() % 17;
        if n == 16 { vec![1; 512] } else { (0..n).map(|_| self.u16()).collect() }
    }

    pub fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }
}

/// The bytes in pieces of these lengths, and what is left as the last one.
pub fn pieces<'a>(bytes: &'a [u8], lengths: &[u16]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = Input(bytes);
    let lengths = lengths.iter().map(|length| usize::from(*length)).chain([usize::MAX]);
    lengths.map(move |length| rest.take(length))
}
