//! The turn, in virtual time. Where a test was a bug once, the comment above it says what was wrong. Numbers in comments
//! are rules of `docs/specification.md`.

mod app;
mod bounds;
mod callbacks;
mod deadlines;
mod panics;
mod shutdown;
mod slots;
mod timers;
