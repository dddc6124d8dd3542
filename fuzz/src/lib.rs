//! The targets of `adjourn-socketio`, whose bodies its own tests run, too. Those of `adjourn` are in `testkit`.

pub mod socketio;
