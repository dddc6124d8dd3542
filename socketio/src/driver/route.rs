//! Whose request it is, by its path (specification 2). Pure.

/// Who serves a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// The engine.
    Engine,
    /// The application's HTTP service; 404 without one.
    Application,
}

/// `engine` is the configured path, with or without its last slash.
pub(super) fn route(engine: &str, path: &str, query: Option<&str>) -> Route {
    let engine = engine.strip_suffix('/').unwrap_or(engine);
    match path.strip_prefix(engine) {
        Some("" | "/") => Route::Engine,
        // A name under the path, such as `socket.io.js`, unless it says a transport.
        Some(rest) if rest.starts_with('/') && has_transport(query) => Route::Engine,
        _ => Route::Application,
    }
}

fn has_transport(query: Option<&str>) -> bool {
    query.is_some_and(|query| query.split('&').any(|pair| pair.split('=').next() == Some("transport")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_matched_with_and_without_its_last_slash_and_as_a_prefix() {
        for engine in ["/socket.io/", "/socket.io"] {
            for (path, query, expected) in [
                ("/socket.io/", Some("EIO=4&transport=polling"), Route::Engine),
                ("/socket.io", Some("EIO=4&transport=polling"), Route::Engine),
                ("/socket.io/", None, Route::Engine),
                ("/socket.io/default/", Some("EIO=4&transport=polling"), Route::Engine),
                ("/socket.io/socket.io.js", None, Route::Application),
                ("/socket.io/socket.io.js", Some("v=1&mytransport=x"), Route::Application),
                ("/socket.io.js", Some("transport=polling"), Route::Application),
                ("/socket.iox/", Some("transport=polling"), Route::Application),
                ("/", Some("transport=polling"), Route::Application),
            ] {
                assert_eq!(route(engine, path, query), expected, "{engine} {path} {query:?}");
            }
        }
    }
}
