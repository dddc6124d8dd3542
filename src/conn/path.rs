//! A request's path in 16 bytes: short ones inline, longer ones on the heap.

/// Most paths are short, and a connection keeps its own for as long as it lives.
#[derive(Debug)]
pub(crate) enum Path {
    Inline(u8, [u8; INLINE]),
    Heap(Box<Box<str>>),
}

const INLINE: usize = 14;

impl Default for Path {
    fn default() -> Self {
        Self::Inline(0, [0; INLINE])
    }
}

impl Path {
    /// Allocates if the path is longer than 14 bytes.
    pub(crate) fn new(path: &str) -> Self {
        let mut inline = [0; INLINE];
        match (inline.get_mut(..path.len()), u8::try_from(path.len())) {
            (Some(space), Ok(len)) => {
                space.copy_from_slice(path.as_bytes());
                Self::Inline(len, inline)
            }
            _ => Self::Heap(Box::new(path.into())),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Inline(len, bytes) => {
                str::from_utf8(bytes.get(..usize::from(*len)).unwrap_or_default()).unwrap_or_default()
            }
            Self::Heap(path) => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_paths_of_any_length() {
        for path in ["", "/", "/fourteen-byte", "/fifteen--bytes", &"/long".repeat(100)] {
            assert_eq!(Path::new(path).as_str(), path);
        }
        assert_eq!(size_of::<Path>(), 16);
    }
}
