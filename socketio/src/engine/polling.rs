//! What waits for the GETs of a session.
