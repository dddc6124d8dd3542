//! Arguments of events and acks: [`Args`] as they came, [`ToArgs`] as they go out.

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::{ArgsError, EncodeError};

/// The arguments of an event (without its name) or of an ack, as they came. A view.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    pub(super) json: &'a str,
    pub(super) elements: &'a [Range<usize>],
    pub(super) attachments: &'a [Bytes],
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
#[derive(Debug, Default)]
pub struct ArgsEncoder {
    pub(super) json: Vec<u8>,
    pub(super) attachments: Vec<Bytes>,
}

impl<'a> Args<'a> {
    /// How many there are.
    pub const fn len(&self) -> usize {
        self.elements.len()
    }

    /// Are there none?
    pub const fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// The argument at `index`, from 0.
    pub fn get<T: Deserialize<'a>>(&self, _index: usize) -> Result<T, ArgsError> {
        todo!()
    }

    /// All of them as a tuple; more than it has elements are ignored.
    pub fn parse<T: Deserialize<'a>>(&self) -> Result<T, ArgsError> {
        todo!()
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
    pub fn new(_args: &(impl ToArgs + ?Sized)) -> Result<Self, EncodeError> {
        todo!()
    }

    /// From a JSON array and its attachments, as a store keeps them.
    pub fn from_json(_json: &str, _attachments: Vec<Bytes>) -> Result<Self, ArgsError> {
        todo!()
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
    /// Writes one argument.
    pub fn push(&mut self, _value: &(impl Serialize + ?Sized)) -> Result<(), EncodeError> {
        todo!()
    }
}

impl ToArgs for Args<'_> {
    fn to_args(&self, _out: &mut ArgsEncoder) -> Result<(), EncodeError> {
        todo!()
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
