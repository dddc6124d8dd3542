//! The forms of a limit, and the error that names it.

use std::{
    fmt::{Debug, Display},
    ops::RangeInclusive,
};

use crate::error::ConfigError;

/// `value` has to be in `limits`, both included.
pub(super) fn within<T: PartialOrd + Copy + Display>(
    setting: &'static str,
    value: T,
    limits: RangeInclusive<T>,
) -> Result<(), ConfigError> {
    if limits.contains(&value) {
        return Ok(());
    }
    let limits = format!("from {} to {}", limits.start(), limits.end());
    Err(ConfigError::new(setting, value.to_string(), limits))
}

/// `value` has to be 1 at least.
pub(super) fn positive<T: PartialOrd + Copy + Display + From<u8>>(
    setting: &'static str,
    value: T,
) -> Result<(), ConfigError> {
    if value >= T::from(1) {
        return Ok(());
    }
    Err(ConfigError::new(setting, value.to_string(), "at least 1".into()))
}

/// Says what `value` has to be unless `holds`.
pub(super) fn ensure(
    holds: bool,
    setting: &'static str,
    value: impl Debug,
    limit: impl Into<String>,
) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::new(setting, format!("{value:?}"), limit.into())) }
}
