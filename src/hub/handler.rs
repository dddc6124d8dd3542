//! What an application is to the loop: someone who decides on upgrades and hears of events.

use super::{
    clients::Clients,
    decision::{Upgrade, UpgradeRequest},
};
use crate::event::Event;

/// An application. Its callbacks run on the loop's thread, one at a time; what they ask for happens when they return.
///
/// Every call of [`Clients`] is legal inside every callback and in every state; none panics.
pub trait Handler {
    /// What the application keeps for each connection, made in [`Handler::on_upgrade`] or given to
    /// [`Clients::connect`], and dropped after `Close`.
    type Data;

    /// A complete head of an HTTP request: of a valid upgrade, or of a plain request, which the application may answer or
    /// [detach](Upgrade::detach). A decision that takes time can be [deferred](Upgrade::Defer).
    ///
    /// A plain request may have any method and a body, see [`Request::body_length`](crate::http::Request::body_length). One that is accepted nevertheless is
    /// refused with 426, and one with a body that is not detached with 400. An upgrade that is detached nevertheless is refused with 400.
    /// An invalid upgrade never gets here, and neither does a request whose body has no certain length.
    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, Self::Data>;

    /// Something happened.
    fn on_event(&mut self, clients: &mut Clients<'_, Self::Data>, event: Event<'_>);
}
