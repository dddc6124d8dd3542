//! What may go to another thread. That this compiles is the test.

use adjourn::{CloseReport, Handle, Payload, Server, Workers, WorkersHandle, shutdown::ShutdownReport};

/// Application data that may go to another thread, and not be shared.
type Data = std::cell::Cell<u8>;

fn goes<T: Send>() {}
fn is_shared<T: Send + Sync>() {}

#[test]
fn a_server_goes_to_another_thread_if_its_data_does() {
    goes::<Server<Data>>();
    goes::<Workers<Data>>();
    is_shared::<Handle<Data>>();
    is_shared::<WorkersHandle<Data>>();
    is_shared::<(Payload<'static>, CloseReport, ShutdownReport)>();
}
