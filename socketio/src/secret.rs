//! How credentials are shown (specification 2.7). Depends on nothing.

use std::fmt;

/// A name that lets its owner in: `Debug` shows six characters of it.
pub(crate) struct Secret<'s>(pub(crate) &'s str);

impl fmt::Debug for Secret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..", self.0.get(..6).unwrap_or_default())
    }
}
