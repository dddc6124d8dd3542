//! Several loops, shut down as one.
