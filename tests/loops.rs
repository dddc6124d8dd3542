//! As many loops as a process can have: alone in its process, because it takes all of them.

use adjourn::{Config, Server, Workers, error::BindError};

#[test]
fn more_loops_than_ids_can_number_are_an_error_that_says_so() {
    let config = Config::default();
    let mut servers: Vec<_> =
        (0..256).map(|_| Server::<()>::outgoing(config.clone()).expect("a number is free")).collect();
    let error = Server::<()>::outgoing(config.clone()).expect_err("all are taken");
    assert!(error.to_string().contains("256 loops"), "{error}");
    assert!(matches!(Server::<()>::bind("127.0.0.1:0", config.clone()), Err(BindError::TooManyLoops)));
    servers.truncate(250);
    assert!(matches!(Workers::<()>::bind("127.0.0.1:0", 7, config.clone()), Err(BindError::TooManyLoops)));
    assert!(Workers::<()>::bind("127.0.0.1:0", 6, config.clone()).is_ok(), "the others gave theirs back");
}
