//! Pings, and the pongs that are due (SESSIONS.md 5).
