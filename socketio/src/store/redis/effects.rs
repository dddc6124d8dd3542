//! What a transaction did: what is of its own namespace, what is posted to others, and at which positions it is. No calls.

use super::values;
use crate::offset::Position;
use crate::store::{StoreError, TransactContext, TxEffect, encoding};

/// The entries for other namespaces, each as it lies in the list behind its number.
pub(super) fn posted(effects: &[TxEffect], context: &TransactContext) -> Vec<Vec<u8>> {
    let post = |effect: &TxEffect| match effect {
        TxEffect::Emit(new) if context.logged && new.namespace != context.namespace => {
            let mut parts = vec![new.namespace.as_bytes().to_vec()];
            values::push_entry(&mut parts, new);
            Some(encoding::chunks(parts.iter().map(Vec::as_slice)))
        }
        TxEffect::Emit(_) | TxEffect::Join(_) => None,
    };
    effects.iter().filter_map(post).collect()
}

/// Is an effect of the transaction's own namespace?
pub(super) fn is_of(effect: &TxEffect, context: &TransactContext) -> bool {
    match effect {
        TxEffect::Emit(new) => context.logged && new.namespace == context.namespace,
        TxEffect::Join(_) => true,
    }
}

/// The position of each effect. Those of other namespaces are the last of `others`; where they are not known, nobody asks for them.
pub(super) fn placed(
    effects: &[TxEffect],
    context: &TransactContext,
    own: &[Position],
    others: &[Position],
) -> Result<Vec<Position>, StoreError> {
    let is_posted = |effect: &&TxEffect| context.logged && !is_of(effect, context);
    let posted = effects.iter().filter(is_posted).count();
    let (mut own, mut others) = (own.iter(), others.iter().skip(others.len().saturating_sub(posted)));
    let place = |effect: &TxEffect| match effect {
        TxEffect::Emit(_) if !context.logged => Ok(Position::START),
        effect if is_posted(&effect) => Ok(others.next().copied().unwrap_or_default()),
        _ => own.next().copied().ok_or_else(values::damaged),
    };
    effects.iter().map(place).collect()
}
