//! Binary values within arguments: [`Binary`] and [`Raw`].

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A binary argument, also within arrays and objects. Clones share the bytes.
///
/// It can be serialised and deserialised as a part of arguments only ([`super::ToArgs`], [`super::Args`]); elsewhere it is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Binary(pub Bytes);

/// Any argument, as the JSON text that came, with the binary values in it.
///
/// As an argument it is sent byte for byte; only the numbers of attachments are changed where they have to be.
#[derive(Clone, Debug)]
pub struct Raw {
    json: Box<str>,
    attachments: Vec<Bytes>,
}

impl Raw {
    /// The JSON text; placeholders stand for attachments.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// What the placeholders stand for.
    pub fn attachments(&self) -> &[Bytes] {
        &self.attachments
    }
}

impl Serialize for Binary {
    fn serialize<S: Serializer>(&self, _serializer: S) -> Result<S::Ok, S::Error> {
        todo!()
    }
}

impl<'de> Deserialize<'de> for Binary {
    fn deserialize<D: Deserializer<'de>>(_deserializer: D) -> Result<Self, D::Error> {
        todo!()
    }
}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, _serializer: S) -> Result<S::Ok, S::Error> {
        todo!()
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(_deserializer: D) -> Result<Self, D::Error> {
        todo!()
    }
}
