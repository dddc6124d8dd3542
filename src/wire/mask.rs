//! XOR in place, from any offset of the masking key (§5.3). Knows no frame.

/// Bytes per step of the wide loop: two SSE2 or NEON registers, one of AVX2.
const WIDE: usize = 32;

/// Masks or unmasks `bytes`, which begin at byte `offset` of their frame's payload: byte i of a payload is combined
/// with byte i modulo 4 of `key`, which is its own inverse (§5.3).
#[inline]
pub fn apply(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    #[expect(clippy::cast_possible_truncation, reason = "0 to 24")]
    let key = u32::from_le_bytes(key).rotate_right(8 * (offset & 3) as u32).to_le_bytes();
    let word = u32::from_ne_bytes(key);
    let double = u64::from(word) << 32 | u64::from(word);

    // Written over arrays of fixed size, which is what lets the compiler use vector registers without `unsafe`.
    let (wide, rest) = bytes.as_chunks_mut::<WIDE>();
    for chunk in wide {
        let (words, _) = chunk.as_chunks_mut::<8>();
        for bytes in words {
            *bytes = (u64::from_ne_bytes(*bytes) ^ double).to_ne_bytes();
        }
    }
    let (doubles, rest) = rest.as_chunks_mut::<8>();
    for bytes in doubles {
        *bytes = (u64::from_ne_bytes(*bytes) ^ double).to_ne_bytes();
    }
    let (words, rest) = rest.as_chunks_mut::<4>();
    for bytes in words {
        *bytes = (u32::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_section_5_7() {
        let mut bytes = [0x7F, 0x9F, 0x4D, 0x51, 0x58];
        apply(&mut bytes, [0x37, 0xFA, 0x21, 0x3D], 0);
        assert_eq!(&bytes, b"Hello");
    }

    #[test]
    fn an_offset_turns_the_key() {
        let rows: &[(&str, usize, [u8; 5])] = &[
            ("from the start", 0, [1, 2, 3, 4, 1]),
            ("from byte 1", 1, [2, 3, 4, 1, 2]),
            ("from byte 3", 3, [4, 1, 2, 3, 4]),
            ("from byte 6", 6, [3, 4, 1, 2, 3]),
            ("from the last offset there is", usize::MAX, [4, 1, 2, 3, 4]),
        ];
        for (name, offset, expected) in rows {
            let mut bytes = [0; 5];
            apply(&mut bytes, [1, 2, 3, 4], *offset);
            assert_eq!(&bytes, expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn same_as_the_definition(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            key: [u8; 4],
            start in 0..40_usize,
            offset: u32,
        ) {
            let start = start.min(bytes.len());
            let offset = offset as usize;
            let mut ours = bytes.clone();
            apply(&mut ours[start..], key, offset);
            let mut definition = bytes;
            for (i, byte) in definition[start..].iter_mut().enumerate() {
                *byte ^= key[(offset + i) % 4];
            }
            prop_assert_eq!(ours, definition);
        }

        #[test]
        fn any_split_gives_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..200), key: [u8; 4], cut in 0..200_usize) {
            let cut = cut.min(bytes.len());
            let mut whole = bytes.clone();
            apply(&mut whole, key, 0);
            let mut pieces = bytes;
            let (first, second) = pieces.split_at_mut(cut);
            apply(first, key, 0);
            apply(second, key, cut);
            prop_assert_eq!(whole, pieces);
        }
    }
}
