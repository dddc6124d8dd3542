//! Names of keys. All keys of a namespace have its hash tag, so that a cluster keeps them on one server.

use std::fmt::Write as _;
use std::sync::Arc;

/// Slots of a cluster.
const SLOTS: u16 = 16_384;

/// Names of keys with one prefix.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: Arc<str>,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: escape(prefix).into() }
    }

    /// The log of a namespace. Scripts derive the other names from it.
    pub(super) fn log(&self, namespace: &str) -> String {
        format!("{{{}:{}}}:log", self.prefix, escape(namespace))
    }

    /// Another key of the namespace.
    pub(super) fn of(&self, namespace: &str, name: &str) -> String {
        format!("{{{}:{}}}:{name}", self.prefix, escape(namespace))
    }

    /// The set of namespaces.
    pub(super) fn namespaces(&self) -> String {
        format!("{}:namespaces", self.prefix)
    }

    /// The nodes by heartbeat.
    pub(super) fn nodes(&self) -> String {
        format!("{}:nodes", self.prefix)
    }

    /// The channel of one node, or of all.
    pub(super) fn channel(&self, node: Option<&str>) -> String {
        match node {
            None => format!("{}:req", self.prefix),
            Some(node) => format!("{}:req:{node}", self.prefix),
        }
    }

    /// How often the store was opened (tests).
    pub(super) fn lives(&self) -> String {
        format!("{}:lives", self.prefix)
    }
}

/// Nothing in a name ends its hash tag.
fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '{' | '}' | '%' => {
                let _ = write!(out, "%{:02X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// The slot of a key in a cluster: CRC16 (XMODEM) of its hash tag.
pub(super) fn slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let tag = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    let crc = tag.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_cluster_specification() {
        assert_eq!(slot("123456789"), 0x31C3);
        assert_eq!(slot("{123456789}:log"), 0x31C3);
        assert_eq!(slot("foo"), 12_182);
    }

    #[test]
    fn nothing_in_a_name_ends_its_hash_tag() {
        let keys = Keys::new("p");
        assert_eq!(keys.log("/a}b{%"), "{p:/a%7Db%7B%25}:log");
        assert_eq!(slot(&keys.log("/a}b")), slot(&keys.of("/a}b", "s:1")));
    }
}
