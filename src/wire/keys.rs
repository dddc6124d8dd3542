//! Masking keys and nonces for the client's role (§5.3, §4.1), from a seed that is handed in.
//!
//! "The masking key needs to be unpredictable [...] derived from a strong source of entropy", and one must not lead to the
//! next. So they are SHA-1 of the seed and a counter: keys reveal nothing about the seed, and a test that knows the seed
//! knows the keys.

use sha1::{Digest as _, Sha1};

/// A source of keys. The same seed gives the same keys.
pub struct MaskKeys {
    seed: u64,
    counter: u64,
    /// Keys that are not handed out yet, the next one last.
    block: [[u8; 4]; 5],
    left: usize,
}

impl MaskKeys {
    /// Keys from that seed. For unpredictable ones take it from the system's entropy.
    pub const fn new(seed: u64) -> Self {
        Self { seed, counter: 0, block: [[0; 4]; 5], left: 0 }
    }

    /// A masking key for one frame.
    pub fn mask(&mut self) -> [u8; 4] {
        if self.left == 0 {
            self.refill();
        }
        self.left -= 1;
        self.block.get(self.left).copied().unwrap_or_default()
    }

    /// 16 bytes for one opening handshake.
    pub fn nonce(&mut self) -> [u8; 16] {
        let mut nonce = [0; 16];
        let (words, _) = nonce.as_chunks_mut::<4>();
        words.fill_with(|| self.mask());
        nonce
    }

    fn refill(&mut self) {
        let hash = Sha1::new().chain_update(self.seed.to_be_bytes()).chain_update(self.counter.to_be_bytes());
        let digest: [u8; 20] = hash.finalize().into();
        let (words, _) = digest.as_chunks::<4>();
        self.counter += 1;
        for (key, word) in self.block.iter_mut().zip(words) {
            *key = *word;
            self.left += 1;
        }
    }
}

/// Without the seed, from which every mask could be predicted.
impl std::fmt::Debug for MaskKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MaskKeys").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_keys_and_another_seed_others() {
        let keys = |seed| {
            let mut keys = MaskKeys::new(seed);
            (keys.nonce(), keys.mask(), keys.mask(), keys.nonce())
        };
        assert_eq!(keys(7), keys(7));
        assert_ne!(keys(7), keys(8));
    }

    #[test]
    fn keys_do_not_repeat() {
        let mut keys = MaskKeys::new(1);
        let distinct: HashSet<_> = (0..10_000).map(|_| keys.mask()).collect();
        assert!(distinct.len() > 9_990, "{} of 10,000", distinct.len());
    }
}
