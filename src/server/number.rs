//! Numbers of loops, unique in the process: they are part of the ids of connections.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::BindError;

/// As many loops as 8 bits can number.
const LOOPS: usize = 256;

static NUMBERS: Mutex<Numbers> = Mutex::new(Numbers { taken: [false; LOOPS], generations: [0; LOOPS] });

struct Numbers {
    taken: [bool; LOOPS],
    /// The last generation that a loop of each number has used.
    generations: [u32; LOOPS],
}

fn numbers() -> MutexGuard<'static, Numbers> {
    // Nothing is done under the lock that could leave it half done.
    NUMBERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number that no other loop of the process has. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct LoopNumber {
    number: u8,
    generation: u32,
}

impl LoopNumber {
    /// Takes the lowest number that is free.
    ///
    /// # Errors
    /// [`BindError::TooManyLoops`].
    pub(super) fn take() -> Result<Self, BindError> {
        let mut numbers = numbers();
        let Numbers { taken, generations } = &mut *numbers;
        let free = (0..=u8::MAX).zip(taken).zip(generations).find(|((_, taken), _)| !**taken);
        let ((number, taken), generation) = free.ok_or(BindError::TooManyLoops)?;
        *taken = true;
        Ok(Self { number, generation: *generation })
    }

    pub(super) const fn get(&self) -> u8 {
        self.number
    }

    /// The last generation that was used with this number: the loop continues after it.
    pub(super) const fn generation(&self) -> u32 {
        self.generation
    }

    /// What [`LoopNumber::generation`] says to the next owner.
    pub(super) const fn set_generation(&mut self, generation: u32) {
        self.generation = generation;
    }
}

impl Drop for LoopNumber {
    fn drop(&mut self) {
        let mut numbers = numbers();
        let at = usize::from(self.number);
        if let (Some(taken), generation) = (numbers.taken.get_mut(at), self.generation) {
            *taken = false;
            if let Some(last) = numbers.generations.get_mut(at) {
                *last = generation;
            }
        }
    }
}
