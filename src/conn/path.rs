//! A request's path in 16 bytes: short ones inline, longer ones on the heap, and none that is too long to be kept.

/// Most paths are short, and a connection keeps its own for as long as it lives.
#[derive(Debug)]
pub(crate) enum Path {
    Inline(u8, [u8; INLINE]),
    Heap(Box<Box<str>>),
    NotKept,
}

const INLINE: usize = 14;

impl Default for Path {
    fn default() -> Self {
        Self::Inline(0, [0; INLINE])
    }
}

impl Path {
    /// Keeps a path of up to `most` bytes. Allocates if it is longer than 14 bytes.
    pub(crate) fn new(path: &str, most: usize) -> Self {
        if path.len() > most {
            return Self::NotKept;
        }
        let mut inline = [0; INLINE];
        match (inline.get_mut(..path.len()), u8::try_from(path.len())) {
            (Some(space), Ok(len)) => {
                space.copy_from_slice(path.as_bytes());
                Self::Inline(len, inline)
            }
            _ => Self::Heap(Box::new(path.into())),
        }
    }

    /// `None` if it was too long to be kept.
    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Inline(len, bytes) => str::from_utf8(bytes.get(..usize::from(*len))?).ok(),
            Self::Heap(path) => Some(path),
            Self::NotKept => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_paths_up_to_a_length() {
        for path in ["", "/", "/fourteen-byte", "/fifteen--bytes", &"/long".repeat(100)] {
            for most in [path.len(), path.len() + 1, usize::MAX] {
                assert_eq!(Path::new(path, most).as_str(), Some(path));
            }
            if let Some(less) = path.len().checked_sub(1) {
                assert_eq!(Path::new(path, less).as_str(), None, "{path}");
            }
        }
        assert_eq!(size_of::<Path>(), 16);
    }
}
