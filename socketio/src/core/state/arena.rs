//! Slots with keys that are never used twice.

use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::marker::PhantomData;

use slab::Slab;

/// Values under keys that name nothing any more once the value is removed.
pub(crate) struct Arena<T> {
    slots: Slab<(u32, T)>,
    /// Of the next value. It wraps after 2^32 values; a key that old names another one only if the slot is the same, too.
    generation: u32,
}

/// Names a value of an [`Arena`].
pub(crate) struct Key<T> {
    pub(crate) index: u32,
    generation: u32,
    _type: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// Slot and generation in one number.
    pub(crate) const fn as_u64(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }
}

impl<T> Arena<T> {
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn insert(&mut self, value: T) -> Key<T> {
        self.generation = self.generation.wrapping_add(1);
        let index = self.slots.insert((self.generation, value));
        let index = u32::try_from(index).expect("fewer than 2^32 values are in memory");
        Key { index, generation: self.generation, _type: PhantomData }
    }

    #[inline]
    pub(crate) fn get(&self, key: Key<T>) -> Option<&T> {
        self.slots.get(key.index as usize).filter(|slot| slot.0 == key.generation).map(|slot| &slot.1)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key<T>) -> Option<&mut T> {
        self.slots.get_mut(key.index as usize).filter(|slot| slot.0 == key.generation).map(|slot| &mut slot.1)
    }

    pub(crate) fn remove(&mut self, key: Key<T>) -> Option<T> {
        self.get(key)?;
        self.slots.try_remove(key.index as usize).map(|slot| slot.1)
    }

    /// Each value with its key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key<T>, &T)> {
        self.slots.iter().filter_map(|(index, (generation, value))| {
            let index = u32::try_from(index).ok()?;
            Some((Key { index, generation: *generation, _type: PhantomData }, value))
        })
    }

    /// The key of the value in a slot, if there is one. Slots are numbered from 0 to below [`Arena::slots`].
    pub(crate) fn key_at(&self, index: usize) -> Option<Key<T>> {
        let (generation, _) = self.slots.get(index)?;
        Some(Key { index: u32::try_from(index).ok()?, generation: *generation, _type: PhantomData })
    }

    pub(crate) fn slots(&self) -> usize {
        self.slots.capacity()
    }
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { slots: Slab::new(), generation: 0 }
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Key<T> {}

impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.index, self.generation) == (other.index, other.generation)
    }
}

impl<T> Eq for Key<T> {}

impl<T> PartialOrd for Key<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Key<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.index, self.generation).cmp(&(other.index, other.generation))
    }
}

impl<T> std::hash::Hash for Key<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.generation) << 32 | u64::from(self.index));
    }
}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

/// A map by numbers that we gave ourselves, or that are random: a client cannot choose them.
pub(crate) type NumberMap<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Multiplies by an odd constant: our numbers differ in their low bits, the map looks at the high ones too.
#[derive(Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }
}
