//! What the backlogs of a loop have in common: frames that several of them wait for, kept once, and how much they hold
//! together. No connection enters.
//!
//! Such frames are copied into blocks, one after the other. A backlog refers to its part of a block by a [`Piece`], and the
//! block counts its users. Frames that follow each other in a block are one piece, so a backlog that waits for a thousand
//! broadcasts has few of them.

use slab::Slab;

use super::{
    broken::{Broken, broken, part},
    segment::Segment,
};

/// Small frames are joined in blocks of this size. A backlog that waits for one frame keeps its whole block, so blocks are
/// small, too.
const BLOCK: usize = 16 << 10;
/// Segments that are kept when no backlog has them: a megabyte.
const SPARE: usize = 4;
/// From here on a frame that waits has a block to itself. Less than half a block.
pub(super) const OWN_BLOCK: usize = 4 << 10;
/// A smaller frame is not worth a reference: each backlog has its own copy.
pub(super) const WORTH_SHARING: usize = 64;

/// See above.
#[derive(Debug)]
pub(crate) struct Backlogs {
    blocks: Slab<Block>,
    /// The block that takes the next small frames.
    open: Option<usize>,
    /// Bytes of all blocks.
    shared: usize,
    /// Unwritten bytes that backlogs own.
    owned: usize,
    /// What both may be together.
    limit: usize,
    /// Segments for the next backlogs, a few: to map and unmap one for each would be page faults.
    spare: Vec<Segment>,
    /// Blocks of large frames that the allocator has: of this turn, and of the turn before. `None`: there are none.
    unmapped: Option<Box<[Vec<usize>; 2]>>,
}

#[derive(Debug)]
struct Block {
    bytes: Bytes,
    users: usize,
}

/// Where the bytes of a block are. What is written soon is the allocator's; what waits for a slow reader is mapped.
#[derive(Debug)]
enum Bytes {
    Allocated(Vec<u8>),
    Mapped(Segment),
}

impl Bytes {
    fn get(&self) -> &[u8] {
        match self {
            Self::Allocated(bytes) => bytes,
            Self::Mapped(segment) => segment.bytes(),
        }
    }

    fn append(&mut self, frame: &[u8]) {
        match self {
            Self::Allocated(bytes) => bytes.extend_from_slice(frame),
            Self::Mapped(segment) => {
                let appended = segment.append(frame);
                debug_assert!(appended, "there was room");
            }
        }
    }
}

/// Whole frames of a block. Its owner counts as a user of the block, from [`Backlogs::freeze`] or [`Backlogs::add_user`] until
/// [`Backlogs::release`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    block: usize,
    start: usize,
    end: usize,
}

impl Piece {
    pub(super) const fn len(self) -> usize {
        self.end - self.start
    }

    /// Adds a piece that follows this one in its block; says whether it does.
    pub(super) fn extend(&mut self, piece: Self) -> bool {
        let follows = self.block == piece.block && self.end == piece.start;
        if follows {
            self.end = piece.end;
        }
        follows
    }
}

impl Backlogs {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            blocks: Slab::new(),
            open: None,
            shared: 0,
            owned: 0,
            limit,
            spare: Vec::new(),
            unmapped: None,
        }
    }

    /// Bytes of all backlogs: what they own, and what they share counted once.
    pub(crate) const fn total(&self) -> usize {
        self.shared + self.owned
    }

    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// A backlog owns `n` bytes more.
    pub(super) const fn grow(&mut self, n: usize) {
        self.owned += n;
    }

    /// A backlog owns `n` bytes less.
    pub(super) fn shrink(&mut self, n: usize) {
        debug_assert!(n <= self.owned, "it was counted before");
        self.owned = self.owned.saturating_sub(n);
    }

    /// An empty segment for a backlog. `None` if the system has none.
    pub(super) fn segment(&mut self) -> Option<Segment> {
        self.spare.pop().or_else(Segment::new)
    }

    /// A backlog needs its segment no longer.
    pub(super) fn take_back(&mut self, mut segment: Segment) {
        if self.spare.len() < SPARE {
            segment.clear();
            self.spare.push(segment);
        }
    }

    /// Copies a frame of less than half a block. The caller is the first user of it.
    pub(super) fn freeze(&mut self, frame: &[u8]) -> Piece {
        self.shared += frame.len();
        let open = self.open.filter(|number| {
            let block = self.blocks.get(*number);
            block.is_some_and(|block| block.bytes.get().len() + frame.len() <= BLOCK)
        });
        let number = open.unwrap_or_else(|| {
            let mapped = Segment::with_size(BLOCK).map(Bytes::Mapped);
            let bytes = mapped.unwrap_or_else(|| Bytes::Allocated(Vec::with_capacity(BLOCK)));
            self.blocks.insert(Block { bytes, users: 0 })
        });
        self.open = Some(number);
        let Some(block) = self.blocks.get_mut(number) else { unreachable!("it was just found or inserted") };
        let start = block.bytes.get().len();
        block.bytes.append(frame);
        block.users += 1;
        Piece { block: number, start, end: start + frame.len() }
    }

    /// The same for a large frame, which has a block to itself and is not copied.
    pub(super) fn freeze_owned(&mut self, frame: Vec<u8>) -> Piece {
        self.shared += frame.len();
        let end = frame.len();
        let block = self.blocks.insert(Block { bytes: Bytes::Allocated(frame), users: 1 });
        if end >= BLOCK {
            self.unmapped.get_or_insert_default()[0].push(block);
        }
        Piece { block, start: 0, end }
    }

    /// Whether there are large frames for [`Backlogs::map_waiting`].
    #[inline]
    pub(super) const fn has_unmapped(&self) -> bool {
        self.unmapped.is_some()
    }

    /// A turn has ended. Large frames that were made in the turn before it and are still waited for are copied to mappings, which
    /// go back to the system when they are freed. Earlier would be too early: most are written in their turn or the next one,
    /// and a mapping of its own costs a frame more than all the rest.
    #[inline(never)]
    pub(super) fn map_waiting(&mut self) {
        let Some(unmapped) = self.unmapped.as_deref_mut() else { return };
        let [young, old] = unmapped;
        for block in old.drain(..) {
            // It may be free, and even another frame's since.
            if let Some(Block { bytes, .. }) = self.blocks.get_mut(block)
                && let Bytes::Allocated(frame) = bytes
                && frame.len() >= BLOCK
                && let Some(mut segment) = Segment::with_size(frame.len())
                && segment.append(frame)
            {
                *bytes = Bytes::Mapped(segment);
            }
        }
        std::mem::swap(young, old);
        if old.is_empty() {
            self.unmapped = None;
        }
    }

    pub(super) fn add_user(&mut self, piece: Piece) {
        if let Some(block) = self.blocks.get_mut(piece.block) {
            block.users += 1;
        }
    }

    /// A user needs its piece no longer. The last one frees the block.
    pub(super) fn release(&mut self, piece: Piece) {
        let Some(block) = self.blocks.get_mut(piece.block) else {
            broken();
            return;
        };
        block.users -= 1;
        if block.users == 0 {
            self.shared -= block.bytes.get().len();
            self.blocks.remove(piece.block);
            self.open = self.open.filter(|open| *open != piece.block);
            if self.blocks.is_empty() {
                self.blocks = Slab::new();
            }
        }
    }

    pub(super) fn bytes(&self, piece: Piece) -> Result<&[u8], Broken> {
        let block = self.blocks.get(piece.block).ok_or_else(broken)?;
        part(block.bytes.get(), piece.start..piece.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_follow_each_other_are_one_piece_and_go_with_their_last_user() {
        let mut backlogs = Backlogs::new(usize::MAX);
        let (first, second) = (backlogs.freeze(&[1; 100]), backlogs.freeze(&[2; 200]));
        let mut both = first;
        assert!(both.extend(second));
        backlogs.add_user(both);
        assert_eq!(backlogs.bytes(both).expect("it is there"), [vec![1; 100], vec![2; 200]].concat());
        backlogs.release(first);
        backlogs.release(second);
        assert_eq!(backlogs.total(), 300, "a block goes as a whole");
        backlogs.release(both);
        assert_eq!((backlogs.total(), backlogs.blocks.len(), backlogs.open), (0, 0, None));
    }

    #[test]
    fn a_large_frame_is_mapped_when_it_has_waited_for_a_whole_turn() {
        let mut backlogs = Backlogs::new(usize::MAX);
        let is_mapped = |backlogs: &Backlogs, piece: Piece| {
            matches!(backlogs.blocks.get(piece.block).map(|block| &block.bytes), Some(Bytes::Mapped(_)))
        };
        let waits = backlogs.freeze_owned(vec![1; 100_000]);
        let written = backlogs.freeze_owned(vec![2; 100_000]);
        backlogs.map_waiting();
        assert!(!is_mapped(&backlogs, waits));
        backlogs.release(written);
        let newer = backlogs.freeze_owned(vec![3; 50_000]);
        assert_eq!(newer.block, written.block, "the block is used again");
        backlogs.map_waiting();
        assert!(is_mapped(&backlogs, waits));
        assert_eq!(backlogs.bytes(waits).expect("it is there"), vec![1; 100_000]);
        backlogs.map_waiting();
        assert!(is_mapped(&backlogs, newer));
        for piece in [waits, newer] {
            backlogs.release(piece);
        }
        backlogs.map_waiting();
        assert!(!backlogs.has_unmapped());
        assert_eq!(backlogs.total(), 0);
    }

    #[test]
    fn a_full_block_is_followed_by_another_one() {
        let mut backlogs = Backlogs::new(usize::MAX);
        let pieces: Vec<_> = (0..40).map(|n| backlogs.freeze(&[n; 1004])).collect();
        assert_eq!(backlogs.blocks.len(), 3, "16 of them in each");
        let large = backlogs.freeze_owned(vec![9; 100_000]);
        assert_eq!((backlogs.blocks.len(), large.start), (4, 0));
        let small = backlogs.freeze(&[9; 100]);
        assert_eq!(small.block, pieces[39].block, "a large one does not close the block of the small ones");
        for piece in pieces.into_iter().chain([large, small]) {
            backlogs.release(piece);
        }
        assert_eq!(backlogs.total(), 0);
    }
}
