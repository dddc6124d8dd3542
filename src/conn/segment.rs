//! Memory for the backlogs of slow readers, mapped from the operating system. An allocator would keep much of it after it is freed,
//! since small allocations lie above it on the heap; a mapping is returned when it is dropped. No connection enters.

use memmap2::MmapMut;

/// Bytes that are appended to one mapping. Its pages cost nothing before they are written.
#[derive(Debug)]
pub(super) struct Segment {
    map: MmapMut,
    len: usize,
}

impl Segment {
    pub(super) const SIZE: usize = 256 << 10;

    /// `None` if the system denies it: then the allocator has to serve.
    pub(super) fn new() -> Option<Self> {
        Self::with_size(Self::SIZE)
    }

    /// The same with room for `size` bytes.
    pub(super) fn with_size(size: usize) -> Option<Self> {
        MmapMut::map_anon(size).ok().map(|map| Self { map, len: 0 })
    }

    /// Appends `bytes`; says whether there was room.
    pub(super) fn append(&mut self, bytes: &[u8]) -> bool {
        let end = self.len + bytes.len();
        let place = self.map.get_mut(self.len..end);
        let fits = place.is_some();
        if let Some(place) = place {
            place.copy_from_slice(bytes);
            self.len = end;
        }
        fits
    }

    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        bytes <= self.map.len() - self.len
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.map.get(..self.len).unwrap_or_default()
    }

    /// Forgets what was appended.
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }
}
