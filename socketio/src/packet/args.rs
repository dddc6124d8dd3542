//! Arguments of events and acks: [`Args`] as they came, [`ToArgs`] as they go out.

use std::ops::Range;

use bytes::Bytes;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{DeserializeSeed, SeqAccess};
use serde::{Deserialize, Serialize};

use super::error::{ArgsError, EncodeError};
use super::{binary, json};

/// Official clients refuse packets with more attachments.
const MAX_ATTACHMENTS: usize = 10;

/// The arguments of an event (without its name) or of an ack, as they came. A view.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    json: &'a str,
    elements: &'a [Range<usize>],
    attachments: &'a [Bytes],
}

/// Arguments that are owned: `Send`, and as they are stored.
#[derive(Clone, Debug, Default)]
pub struct ArgsBuf {
    json: String,
    elements: Vec<Range<usize>>,
    attachments: Vec<Bytes>,
}

/// What can be sent as arguments: tuples of `Serialize` (with [`super::Binary`] in them), slices, [`Args`], [`ArgsBuf`].
pub trait ToArgs {
    /// Writes each argument.
    fn to_args(&self, out: &mut ArgsEncoder) -> Result<(), EncodeError>;
}

/// Writes arguments as the elements of a JSON array.
#[derive(Debug)]
pub struct ArgsEncoder {
    /// What stands before the first argument, then the arguments.
    json: Vec<u8>,
    elements: Vec<Range<usize>>,
    attachments: Vec<Bytes>,
}

/// What an [`ArgsEncoder`] has written.
pub(super) struct Written {
    /// With the closing bracket.
    pub(super) text: String,
    /// Where the arguments are in it.
    pub(super) elements: Vec<Range<usize>>,
    pub(super) attachments: Vec<Bytes>,
}

impl<'a> Args<'a> {
    pub(super) const fn new(json: &'a str, elements: &'a [Range<usize>], attachments: &'a [Bytes]) -> Self {
        Self { json, elements, attachments }
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.elements.len()
    }

    /// Are there none?
    pub const fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// The argument at `index`, from 0.
    pub fn get<T: Deserialize<'a>>(&self, index: usize) -> Result<T, ArgsError> {
        let json = self.raw(index).ok_or(ArgsError::Missing { index, length: self.len() })?;
        binary::reading(self.attachments, || serde_json::from_str(json))
            .map_err(|source| ArgsError::Type { index, source })
    }

    /// All of them as a tuple; more than it has elements are ignored.
    pub fn parse<T: Deserialize<'a>>(&self) -> Result<T, ArgsError> {
        let mut elements = Elements { args: *self, index: 0 };
        binary::reading(self.attachments, || T::deserialize(SeqAccessDeserializer::new(&mut elements)))
            .map_err(|source| ArgsError::Type { index: elements.index.saturating_sub(1), source })
    }

    /// The JSON text of the argument at `index`; placeholders stand for attachments.
    pub fn raw(&self, index: usize) -> Option<&'a str> {
        self.json.get(self.elements.get(index)?.clone())
    }

    /// What the placeholders stand for.
    pub const fn attachments(&self) -> &'a [Bytes] {
        self.attachments
    }
}

impl ArgsBuf {
    /// Encodes arguments.
    pub fn new(args: &(impl ToArgs + ?Sized)) -> Result<Self, EncodeError> {
        let mut out = ArgsEncoder::new(String::from("["));
        args.to_args(&mut out)?;
        let Written { text: json, elements, attachments } = out.finish()?;
        Ok(Self { json, elements, attachments })
    }

    /// From a JSON array and its attachments, as a store keeps them. `None`: the text is no array.
    pub fn from_json(json: impl Into<String>, attachments: Vec<Bytes>) -> Option<Self> {
        let json = json.into();
        let scan =
            json::scan(&json, 0, usize::MAX, false).ok().filter(|scan| scan.kind == json::Kind::Array)?;
        Some(Self { json, elements: scan.elements, attachments })
    }

    /// A view of them.
    pub fn as_args(&self) -> Args<'_> {
        Args { json: &self.json, elements: &self.elements, attachments: &self.attachments }
    }

    /// The JSON array; placeholders stand for attachments.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// What the placeholders stand for.
    pub fn attachments(&self) -> &[Bytes] {
        &self.attachments
    }
}

impl ArgsEncoder {
    /// `start`: what stands before the first argument: a bracket, or more.
    pub(super) fn new(start: String) -> Self {
        Self { json: start.into_bytes(), elements: Vec::new(), attachments: Vec::new() }
    }

    /// Writes one argument.
    pub fn push(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), EncodeError> {
        let start = self.begin();
        let json = &mut self.json;
        binary::writing(&mut self.attachments, || serde_json::to_writer(json, value))?;
        self.elements.push(start..self.json.len());
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Written, EncodeError> {
        let count = self.attachments.len();
        if count > MAX_ATTACHMENTS {
            return Err(EncodeError::TooManyAttachments { count, limit: MAX_ATTACHMENTS });
        }
        self.json.push(b']');
        let text = String::from_utf8(self.json).expect("made of strings, and by serde_json");
        if count > 0 {
            check_placeholders(&text, &self.elements, count)?;
        }
        Ok(Written { text, elements: self.elements, attachments: self.attachments })
    }

    /// Where the next element begins.
    fn begin(&mut self) -> usize {
        if self.json.last() != Some(&b'[') {
            self.json.push(b',');
        }
        self.json.len()
    }

    /// Writes an argument that is JSON text.
    fn push_json(&mut self, json: &str) {
        let start = self.begin();
        self.json.extend_from_slice(json.as_bytes());
        self.elements.push(start..self.json.len());
    }
}

/// Text of a client that looks like a placeholder, sent on together with other attachments, must not make the receivers fail.
fn check_placeholders(json: &str, elements: &[Range<usize>], attachments: usize) -> Result<(), EncodeError> {
    for element in elements {
        let text = json.get(element.clone()).unwrap_or_default();
        let scan = json::scan(text, 0, usize::MAX, true).map_err(|_| EncodeError::Placeholder)?;
        let index = |placeholder: &json::Placeholder| placeholder.num.as_ref()?.index;
        if !scan.placeholders.iter().all(|found| index(found).is_some_and(|index| index < attachments)) {
            return Err(EncodeError::Placeholder);
        }
    }
    Ok(())
}

/// The elements that are left, for [`Args::parse`].
struct Elements<'a> {
    args: Args<'a>,
    index: usize,
}

impl<'a> SeqAccess<'a> for &mut Elements<'a> {
    type Error = serde_json::Error;

    fn next_element_seed<T: DeserializeSeed<'a>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Self::Error> {
        let Some(json) = self.args.raw(self.index) else {
            return Ok(None);
        };
        self.index += 1;
        seed.deserialize(&mut serde_json::Deserializer::from_str(json)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.args.len() - self.index.min(self.args.len()))
    }
}

impl ToArgs for Args<'_> {
    fn to_args(&self, out: &mut ArgsEncoder) -> Result<(), EncodeError> {
        let before = out.attachments.len();
        let renumber = before > 0 && !self.attachments.is_empty();
        out.attachments.extend_from_slice(self.attachments);
        for json in (0..self.len()).filter_map(|index| self.raw(index)) {
            if renumber {
                let json =
                    binary::renumbered(json, |old| Some(before + old)).ok_or(EncodeError::Placeholder)?;
                out.push_json(&json);
            } else {
                out.push_json(json);
            }
        }
        Ok(())
    }
}

impl ToArgs for ArgsBuf {
    fn to_args(&self, out: &mut ArgsEncoder) -> Result<(), EncodeError> {
        self.as_args().to_args(out)
    }
}

impl<T: ToArgs + ?Sized> ToArgs for &T {
    fn to_args(&self, out: &mut ArgsEncoder) -> Result<(), EncodeError> {
        (**self).to_args(out)
    }
}

impl<T: Serialize> ToArgs for [T] {
    fn to_args(&self, out: &mut ArgsEncoder) -> Result<(), EncodeError> {
        self.iter().try_for_each(|value| out.push(value))
    }
}

impl<T: Serialize> ToArgs for Vec<T> {
    fn to_args(&self, out: &mut ArgsEncoder) -> Result<(), EncodeError> {
        self.as_slice().to_args(out)
    }
}

macro_rules! tuples {
    ($($name:ident)*) => {
        impl<$($name: Serialize),*> ToArgs for ($($name,)*) {
            #[allow(non_snake_case, unused_variables)]
            fn to_args(&self, out: &mut ArgsEncoder) -> Result<(), EncodeError> {
                let ($($name,)*) = self;
                $(out.push($name)?;)*
                Ok(())
            }
        }
    };
}

tuples!();
tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);
