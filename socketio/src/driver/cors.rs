//! Cross-origin requests: which headers an answer gets (specification 4). Pure.

use crate::config::{Cors, CorsOrigin};

/// What of a request decides about it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CorsRequest<'r> {
    /// `Origin`.
    pub(super) origin: Option<&'r str>,
    /// `Access-Control-Request-Headers`.
    pub(super) request_headers: Option<&'r str>,
    /// Is it an `OPTIONS`?
    pub(super) preflight: bool,
}

/// The headers of the answer, in the order of the official server.
pub(super) fn headers(cors: &Cors, request: CorsRequest<'_>) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    match &cors.origin {
        CorsOrigin::Any => headers.push(("access-control-allow-origin", "*".to_owned())),
        CorsOrigin::List(list) => {
            if let Some(origin) = request.origin.filter(|origin| list.iter().any(|one| one == origin)) {
                headers.push(("access-control-allow-origin", origin.to_owned()));
            }
            headers.push(("vary", "Origin".to_owned()));
        }
    }
    if cors.credentials {
        headers.push(("access-control-allow-credentials", "true".to_owned()));
    }
    if !cors.exposed_headers.is_empty() {
        headers.push(("access-control-expose-headers", cors.exposed_headers.join(",")));
    }
    if request.preflight {
        headers.push(("access-control-allow-methods", cors.methods.join(",")));
        if cors.allowed_headers.is_empty() {
            headers.push(("vary", "Access-Control-Request-Headers".to_owned()));
            if let Some(asked) = request.request_headers {
                headers.push(("access-control-allow-headers", asked.to_owned()));
            }
        } else {
            headers.push(("access-control-allow-headers", cors.allowed_headers.join(",")));
        }
        if let Some(seconds) = cors.max_age {
            headers.push(("access-control-max-age", seconds.to_string()));
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: &str = "https://a.example";

    fn texts(cors: &Cors, request: CorsRequest<'_>) -> Vec<String> {
        headers(cors, request).into_iter().map(|(name, value)| format!("{name}: {value}")).collect()
    }

    #[test]
    fn any_origin_is_a_star() {
        let request = CorsRequest { origin: Some(ORIGIN), ..CorsRequest::default() };
        assert_eq!(texts(&Cors::default(), request), ["access-control-allow-origin: *"]);
    }

    #[test]
    fn a_listed_origin_is_mirrored_and_another_gets_no_header() {
        let cors = Cors {
            origin: CorsOrigin::List(vec!["https://b.example".to_owned(), ORIGIN.to_owned()]),
            credentials: true,
            ..Cors::default()
        };
        let listed = CorsRequest { origin: Some(ORIGIN), ..CorsRequest::default() };
        let mirrored = [
            "access-control-allow-origin: https://a.example",
            "vary: Origin",
            "access-control-allow-credentials: true",
        ];
        assert_eq!(texts(&cors, listed), mirrored);
        for origin in [Some("https://c.example"), Some("null"), None] {
            let other = CorsRequest { origin, ..CorsRequest::default() };
            assert_eq!(texts(&cors, other), ["vary: Origin", "access-control-allow-credentials: true"]);
        }
    }

    #[test]
    fn a_preflight_mirrors_the_headers_that_it_asks_for() {
        let request = CorsRequest { origin: Some(ORIGIN), request_headers: Some("x-a,x-b"), preflight: true };
        assert_eq!(
            texts(&Cors::default(), request),
            [
                "access-control-allow-origin: *",
                "access-control-allow-methods: GET,HEAD,PUT,PATCH,POST,DELETE",
                "vary: Access-Control-Request-Headers",
                "access-control-allow-headers: x-a,x-b",
            ]
        );
        let cors = Cors {
            exposed_headers: vec!["x-e".to_owned()],
            methods: vec!["GET".to_owned(), "POST".to_owned()],
            allowed_headers: vec!["x-c".to_owned(), "x-d".to_owned()],
            max_age: Some(600),
            ..Cors::default()
        };
        assert_eq!(
            texts(&cors, request),
            [
                "access-control-allow-origin: *",
                "access-control-expose-headers: x-e",
                "access-control-allow-methods: GET,POST",
                "access-control-allow-headers: x-c,x-d",
                "access-control-max-age: 600",
            ]
        );
    }
}
