//! What is fixed when a connection opens, in 16 bytes: its path alone, if that is short, or all of it on the heap.

use super::Compression;
use crate::{
    close::Traffic,
    config::{ConnectionConfig, SharedConfig},
};

/// Most paths are short, and few connections have more than that.
#[derive(Debug)]
pub(super) enum Details {
    Path(u8, [u8; INLINE]),
    /// The path was too long to be kept, and there is nothing else.
    TooLong,
    More(Box<More>),
}

#[derive(Debug)]
pub(super) struct More {
    /// `None` if it was too long to be kept.
    path: Option<Box<str>>,
    subprotocol: Option<Box<str>>,
    /// Settings of its own.
    own: Option<SharedConfig>,
    compression: Option<Compression>,
    /// If it is counted.
    traffic: Option<Box<Traffic>>,
}

const INLINE: usize = 14;

impl Default for Details {
    fn default() -> Self {
        Self::Path(0, [0; INLINE])
    }
}

impl Details {
    /// Keeps a path of up to `max_path` bytes. Allocates if it is longer than 14 bytes, or there is anything else.
    pub(super) fn new(
        path: &str,
        max_path: usize,
        subprotocol: Option<&str>,
        own: Option<SharedConfig>,
        compression: Option<Compression>,
    ) -> Self {
        let path = Some(path).filter(|path| path.len() <= max_path);
        if subprotocol.is_none() && own.is_none() && compression.is_none() {
            let Some(path) = path else { return Self::TooLong };
            let mut inline = [0; INLINE];
            if let (Some(space), Ok(len)) = (inline.get_mut(..path.len()), u8::try_from(path.len())) {
                space.copy_from_slice(path.as_bytes());
                return Self::Path(len, inline);
            }
        }
        Self::More(Box::new(More {
            path: path.map(Box::from),
            subprotocol: subprotocol.map(Box::from),
            own,
            compression,
            traffic: None,
        }))
    }

    /// Counts what the connection receives and sends from now on. Allocates.
    pub(super) fn count_traffic(&mut self) {
        let path = self.path().map(Box::from);
        let more = match self {
            Self::More(more) => more,
            Self::Path(..) | Self::TooLong => {
                let more = More { path, subprotocol: None, own: None, compression: None, traffic: None };
                *self = Self::More(Box::new(more));
                return self.count_traffic();
            }
        };
        more.traffic = Some(Box::default());
    }

    /// What was counted, if it is.
    pub(super) fn traffic(&self) -> Option<Traffic> {
        self.more()?.traffic.as_deref().copied()
    }

    #[inline]
    pub(super) fn traffic_mut(&mut self) -> Option<&mut Traffic> {
        match self {
            Self::Path(..) | Self::TooLong => None,
            Self::More(more) => more.traffic.as_deref_mut(),
        }
    }

    /// The path; `None` if it was too long to be kept.
    pub(super) fn path(&self) -> Option<&str> {
        match self {
            Self::TooLong => None,
            Self::Path(len, bytes) => {
                let path = bytes.get(..usize::from(*len)).and_then(|path| str::from_utf8(path).ok());
                debug_assert!(path.is_some(), "it was copied from a path");
                path
            }
            Self::More(more) => more.path.as_deref(),
        }
    }

    fn more(&self) -> Option<&More> {
        match self {
            Self::Path(..) | Self::TooLong => None,
            Self::More(more) => Some(more),
        }
    }

    pub(super) fn subprotocol(&self) -> Option<&str> {
        self.more()?.subprotocol.as_deref()
    }

    /// Its own settings, or those of all.
    #[inline]
    pub(super) fn settings<'c>(&'c self, common: &'c ConnectionConfig) -> &'c ConnectionConfig {
        match self {
            Self::Path(..) | Self::TooLong => common,
            Self::More(more) => more.own.as_deref().unwrap_or(common),
        }
    }

    pub(super) fn compression(&self) -> Option<&Compression> {
        self.more()?.compression.as_ref()
    }

    #[inline]
    pub(super) fn compression_mut(&mut self) -> Option<&mut Compression> {
        match self {
            Self::Path(..) | Self::TooLong => None,
            Self::More(more) => more.compression.as_mut(),
        }
    }

    /// It is not compressed, has no settings of its own, and its traffic is not counted.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        match self {
            Self::Path(..) | Self::TooLong => true,
            Self::More(more) => more.own.is_none() && more.compression.is_none() && more.traffic.is_none(),
        }
    }

    /// Keeps the path, and the settings, which still say how long it lingers.
    pub(super) fn strip(&mut self) {
        if let Self::More(more) = self {
            (more.subprotocol, more.compression, more.traffic) = (None, None, None);
            if more.own.is_some() {
                return;
            }
            *self = match more.path.take() {
                Some(path) => Self::new(&path, usize::MAX, None, None, None),
                None => Self::TooLong,
            };
        }
    }
}

const _: () = assert!(size_of::<Details>() <= 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_paths_up_to_a_length() {
        for path in ["", "/", "/fourteen-byte", "/fifteen--bytes", &"/long".repeat(100)] {
            let less = path.len().checked_sub(1).map(|most| (most, None));
            for (most, kept) in [(path.len(), Some(path)), (usize::MAX, Some(path))].into_iter().chain(less) {
                assert_eq!(Details::new(path, most, None, None, None).path(), kept);
                let mut chatting = Details::new(path, most, Some("chat"), None, None);
                assert_eq!(
                    (chatting.path(), chatting.subprotocol(), chatting.is_plain()),
                    (kept, Some("chat"), true)
                );
                chatting.strip();
                assert_eq!((chatting.path(), chatting.subprotocol()), (kept, None));
            }
        }
    }
}
