//! Binary values within arguments: [`Binary`] and [`Raw`].
//!
//! serde has no place for what goes beside the JSON text, so the attachments of the arguments that are being written or read
//! on this thread are in a thread-local variable for as long as that takes.

use std::cell::RefCell;
use std::fmt;
use std::mem;

use bytes::Bytes;
use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use serde::ser::{self, SerializeStruct};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::json;

const NOT_AN_ARGUMENT: &str = "a binary value can only be a part of arguments";

/// A binary argument, also within arrays and objects. Clones share the bytes.
///
/// It can be serialised and deserialised as a part of arguments only ([`super::ToArgs`], [`super::Args`]); elsewhere it is an
/// error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Binary(pub Bytes);

/// Any argument, as the JSON text that came, with the binary values in it.
///
/// As an argument it is sent byte for byte; only the numbers of attachments are changed where they have to be.
#[derive(Clone, Debug)]
pub struct Raw {
    json: Box<RawValue>,
    attachments: Vec<Bytes>,
}

impl Raw {
    /// The JSON text; placeholders stand for attachments.
    pub fn json(&self) -> &str {
        self.json.get()
    }

    /// What the placeholders stand for.
    pub fn attachments(&self) -> &[Bytes] {
        &self.attachments
    }
}

impl Serialize for Binary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let num = attach(&self.0).ok_or_else(|| ser::Error::custom(NOT_AN_ARGUMENT))?;
        let mut placeholder = serializer.serialize_struct("Binary", 2)?;
        placeholder.serialize_field("_placeholder", &true)?;
        placeholder.serialize_field("num", &num)?;
        placeholder.end()
    }
}

impl<'de> Deserialize<'de> for Binary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PlaceholderVisitor)
    }
}

struct PlaceholderVisitor;

impl<'de> Visitor<'de> for PlaceholderVisitor {
    type Value = Binary;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a binary value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Binary, A::Error> {
        let mut is_placeholder = false;
        let mut num = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "_placeholder" => is_placeholder = map.next_value()?,
                "num" => num = Some(map.next_value::<serde_json::Number>()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let index = num.filter(|_| is_placeholder).and_then(|num| json::integer(&num.to_string()));
        index.and_then(attachment).map(Binary).ok_or_else(|| de::Error::custom("no binary value"))
    }
}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.attachments.is_empty() {
            return self.json.serialize(serializer);
        }
        let attachments = |index: usize| self.attachments.get(index).and_then(attach);
        let json =
            renumbered(self.json.get(), attachments).ok_or_else(|| ser::Error::custom(NOT_AN_ARGUMENT))?;
        RawValue::from_string(json).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        let attachments = SCOPE.with_borrow(|scope| match scope {
            Scope::Reading(attachments) => attachments.clone(),
            Scope::Outside | Scope::Writing(_) => Vec::new(),
        });
        Ok(Self { json, attachments })
    }
}

/// A JSON text with other numbers in its placeholders: each attachment is given to `attach` once, which says its new number.
/// `None` if a placeholder is out of range.
pub(super) fn renumbered(json: &str, mut attach: impl FnMut(usize) -> Option<usize>) -> Option<String> {
    let scan = json::scan(json, 0, usize::MAX, true).ok()?;
    let mut numbers: Vec<(usize, usize)> = Vec::new();
    let mut written = String::with_capacity(json.len() + 8);
    let mut copied = 0;
    for placeholder in scan.placeholders {
        let num = placeholder.num?;
        let old = num.index?;
        let new = if let Some((_, new)) = numbers.iter().find(|(known, _)| *known == old) {
            *new
        } else {
            let new = attach(old)?;
            numbers.push((old, new));
            new
        };
        written.push_str(json.get(copied..num.at.start)?);
        written.push_str(&new.to_string());
        copied = num.at.end;
    }
    written.push_str(json.get(copied..)?);
    Some(written)
}

/// Runs `run`, within which binary values are added to `attachments`.
pub(super) fn writing<T>(attachments: &mut Vec<Bytes>, run: impl FnOnce() -> T) -> T {
    let entered = Entered::new(Scope::Writing(mem::take(attachments)));
    let result = run();
    if let Scope::Writing(written) = entered.leave() {
        *attachments = written;
    }
    result
}

/// Runs `run`, within which placeholders stand for `attachments`.
pub(super) fn reading<T>(attachments: &[Bytes], run: impl FnOnce() -> T) -> T {
    let _entered = Entered::new(Scope::Reading(attachments.to_vec()));
    run()
}

thread_local! {
    static SCOPE: RefCell<Scope> = const { RefCell::new(Scope::Outside) };
}

enum Scope {
    Outside,
    Writing(Vec<Bytes>),
    Reading(Vec<Bytes>),
}

/// Puts the scope back that was there before, also after a panic.
struct Entered(Option<Scope>);

impl Entered {
    fn new(scope: Scope) -> Self {
        Self(Some(SCOPE.replace(scope)))
    }

    fn leave(mut self) -> Scope {
        SCOPE.replace(self.0.take().unwrap_or(Scope::Outside))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(before) = self.0.take() {
            SCOPE.set(before);
        }
    }
}

/// Adds an attachment; its number.
fn attach(bytes: &Bytes) -> Option<usize> {
    SCOPE.with_borrow_mut(|scope| match scope {
        Scope::Writing(attachments) => {
            attachments.push(bytes.clone());
            Some(attachments.len() - 1)
        }
        Scope::Outside | Scope::Reading(_) => None,
    })
}

fn attachment(index: usize) -> Option<Bytes> {
    SCOPE.with_borrow(|scope| match scope {
        Scope::Reading(attachments) => attachments.get(index).cloned(),
        Scope::Outside | Scope::Writing(_) => None,
    })
}
