//! Section 2: requests, the handshake, packets.

use adjourn_socketio::engine::{EngineConfig, EngineRequest, Refusal, SessionState, Sid, admit};
use adjourn_socketio::packet::Query;

use super::script;
use super::script::Script;

/// `GET transport=polling EIO=4`, `upgrade` for a WebSocket upgrade, `detached`; sessions are named after their state.
fn admission(request: &str, config: &EngineConfig, new_session: Result<(), Refusal>) -> String {
    let words: Vec<_> = request.split(' ').collect();
    let query = words.iter().filter(|word| word.contains('=')).copied().collect::<Vec<_>>().join("&");
    let request = EngineRequest {
        method: words[0],
        query: &Query::parse(&query),
        upgrade: words.contains(&"upgrade"),
        detached: words.contains(&"detached"),
    };
    let session = |sid: &str| match sid {
        "polling" => Some(SessionState::Polling),
        "upgrading" => Some(SessionState::Upgrading),
        "websocket" => Some(SessionState::WebSocket),
        "closing" => Some(SessionState::Closing),
        _ => None,
    };
    match admit(&request, config, session, || new_session) {
        Ok(admission) => format!("{admission:?}"),
        Err(refusal) => format!("{}/{}", refusal.status, refusal.code),
    }
}

#[test]
fn s2_the_table_of_requests() {
    let config = script::config();
    for (request, expected) in [
        // what is accepted
        ("GET EIO=4 transport=polling", "OpenPolling"),
        ("GET EIO=4 transport=polling t=abc b64=1 token=x", "OpenPolling"),
        ("GET EIO=4 transport=websocket upgrade", "OpenWebSocket"),
        ("GET EIO=4 transport=polling sid=polling", "Poll"),
        ("POST EIO=4 transport=polling sid=polling", "Post"),
        ("GET EIO=4 transport=polling sid=upgrading", "Poll"),
        ("POST EIO=4 transport=polling sid=upgrading", "Post"),
        ("GET EIO=4 transport=polling sid=closing", "Poll"),
        ("GET EIO=4 transport=websocket sid=polling upgrade", "Probe"),
        // an upgrade on a session that is not on polling, or is being upgraded: 101, then an empty Close
        ("GET EIO=4 transport=websocket sid=websocket upgrade", "ProbeRefused"),
        ("GET EIO=4 transport=websocket sid=upgrading upgrade", "ProbeRefused"),
        // repeated parameters, JSONP
        ("GET EIO=4 EIO=4 transport=polling", "400/3"),
        ("GET EIO=4 transport=polling transport=polling", "400/3"),
        ("GET EIO=4 transport=polling sid=polling sid=polling", "400/3"),
        ("GET EIO=4 transport=polling j=0", "400/3"),
        ("GET EIO=4 transport=polling a=1 a=2", "OpenPolling"),
        // row 1
        ("GET EIO=4", "400/0"),
        ("GET EIO=4 transport=abc", "400/0"),
        ("GET EIO=4 transport=abc upgrade", "400/0"),
        ("GET EIO=4 transport=", "400/0"),
        ("GET EIO=4 transport=Polling", "400/0"),
        ("GET transport=webtransport sid=nobody", "400/0"),
        // row 2
        ("GET EIO=4 transport=polling sid=nobody", "400/1"),
        ("GET EIO=4 transport=polling sid=", "400/1"),
        ("PUT EIO=3 transport=polling sid=nobody", "400/1"),
        ("GET EIO=4 transport=websocket sid=nobody upgrade", "400/1"),
        ("POST EIO=4 transport=polling sid=closing", "400/1"),
        ("GET EIO=4 transport=websocket sid=closing upgrade", "400/1"),
        // row 3
        ("PUT EIO=4 transport=polling sid=polling", "400/3"),
        ("OPTIONS EIO=4 transport=polling sid=polling", "400/3"),
        ("GET EIO=4 transport=websocket sid=polling", "400/3"),
        ("GET EIO=4 transport=polling sid=websocket", "400/3"),
        ("POST EIO=4 transport=polling sid=websocket", "400/3"),
        // row 4
        ("POST EIO=4 transport=polling", "400/2"),
        ("PUT EIO=4 transport=polling", "400/2"),
        ("OPTIONS EIO=4 transport=polling", "400/2"),
        ("HEAD EIO=4 transport=polling", "400/2"),
        ("POST EIO=3 transport=websocket", "400/2"),
        // row 5
        ("GET EIO=4 transport=websocket", "400/3"),
        ("GET EIO=4 transport=polling upgrade", "400/3"),
        ("GET EIO=4 transport=polling sid=polling upgrade", "400/3"),
        ("GET EIO=3 transport=websocket", "400/3"),
        ("GET EIO=4 transport=websocket upgrade detached", "400/3"),
        // row 6
        ("GET transport=polling", "400/5"),
        ("GET EIO=abc transport=polling", "400/5"),
        ("GET EIO=3 transport=polling", "400/5"),
        ("GET EIO=04 transport=polling", "400/5"),
        ("GET EIO=3 transport=websocket upgrade", "400/5"),
        ("GET transport=websocket upgrade", "400/5"),
        ("POST EIO=3 transport=polling sid=polling", "400/5"),
    ] {
        assert_eq!(admission(request, &config, Ok(())), expected, "{request}");
    }
}

#[test]
fn s2_rows_7_and_8_concern_new_sessions_only_and_come_last() {
    let config = script::config();
    for refusal in [Refusal::unavailable(), Refusal::forbidden(None)] {
        let refused = format!("{}/{}", refusal.status, refusal.code);
        for (request, expected) in [
            ("GET EIO=4 transport=polling", refused.as_str()),
            ("GET EIO=4 transport=websocket upgrade", &refused),
            ("GET EIO=3 transport=polling", "400/5"),
            ("GET EIO=4 transport=polling sid=polling", "Poll"),
            ("POST EIO=4 transport=polling sid=polling", "Post"),
            ("GET EIO=4 transport=websocket sid=polling upgrade", "Probe"),
        ] {
            assert_eq!(admission(request, &config, Err(refusal.clone())), expected, "{request}");
        }
    }
}

#[test]
fn s2_a_transport_that_is_not_served_is_unknown() {
    let websocket = EngineConfig { polling: false, ..script::config() };
    assert_eq!(admission("GET EIO=4 transport=polling", &websocket, Ok(())), "400/0");
    assert_eq!(admission("GET EIO=4 transport=websocket upgrade", &websocket, Ok(())), "OpenWebSocket");
    let polling = EngineConfig { websocket: false, ..script::config() };
    assert_eq!(admission("GET EIO=4 transport=websocket upgrade", &polling, Ok(())), "400/0");
    assert_eq!(admission("GET EIO=4 transport=polling", &polling, Ok(())), "OpenPolling");
}

#[test]
fn s2_refusals_are_json() {
    for (refusal, status, body) in [
        (Refusal::unknown_transport(), 400, r#"{"code":0,"message":"Transport unknown"}"#),
        (Refusal::unknown_session(), 400, r#"{"code":1,"message":"Session ID unknown"}"#),
        (Refusal::bad_method(), 400, r#"{"code":2,"message":"Bad handshake method"}"#),
        (Refusal::bad_request(), 400, r#"{"code":3,"message":"Bad request"}"#),
        (Refusal::forbidden(None), 403, r#"{"code":4,"message":"Forbidden"}"#),
        (Refusal::forbidden(Some("not \"you\"".into())), 403, r#"{"code":4,"message":"not \"you\""}"#),
        (Refusal::unsupported_version(), 400, r#"{"code":5,"message":"Unsupported protocol version"}"#),
        (Refusal::unavailable(), 503, r#"{"code":503,"message":"Service unavailable"}"#),
    ] {
        let response = refusal.response();
        assert_eq!(response.status, status);
        assert_eq!(response.content_type, Some("application/json"));
        assert_eq!(response.body, body);
        assert!(!response.close);
    }
}

#[test]
fn s2_an_upgrade_on_a_detached_connection_closes_it() {
    let query = Query::parse("EIO=4&transport=websocket");
    let request = EngineRequest { method: "GET", query: &query, upgrade: true, detached: true };
    let refusal = admit(&request, &script::config(), |_| None, || Ok(())).expect_err("cannot be served");
    assert!(refusal.response().close);
}

#[test]
fn s2_the_handshake_has_these_keys_in_this_order() {
    let text = |upgrades| {
        format!(
            r#"0{{"sid":"BwcHBwcHBwcHBwcHBwcH","upgrades":[{upgrades}],"pingInterval":300,"pingTimeout":200,"maxPayload":100}}"#
        )
    };
    assert_eq!(Script::polling().links.lines, [format!("1=200 {}", text("\"websocket\""))]);
    assert_eq!(Script::websocket().links.lines, [format!("L1<{}", text(""))]);
}

#[test]
fn s2_a_sid_is_20_url_safe_characters_of_120_bits_and_debug_shows_6() {
    for (bits, text) in [
        ([0; 15], "AAAAAAAAAAAAAAAAAAAA"),
        ([0xff; 15], "____________________"),
        ([0xfb; 15], "-_v7-_v7-_v7-_v7-_v7"),
    ] {
        let sid = Sid::from_random(bits);
        assert_eq!(sid.as_str(), text);
        assert_eq!(format!("{sid:?}"), format!("{}..", &text[..6]));
    }
    let script = Script::websocket();
    assert!(!format!("{:?}", script.engine).contains(script.engine.sid().as_str()), "a credential");
}

#[test]
fn s2_packets_of_an_established_session() {
    for (input, expected) in [
        ("10 ws 1 4hello", "\"hello\""),
        ("10 ws 1 4", "\"\""),
        ("10 bin 1 0102", "<[1, 2]>"),
        ("10 bin 1 ", "<[]>"),
        ("10 ws 1 bAQIDBA==", "<[1, 2, 3, 4]>"),
        ("10 ws 1 3", ""),
        ("10 ws 1 3probe", ""),
        ("10 ws 1 2", "L1 closed, ! transport error"),
        ("10 ws 1 2probe", "L1 closed, ! transport error"),
        ("10 ws 1 1", "L1 closed, ! transport close"),
        ("10 ws 1 0{}", "ignored"),
        ("10 ws 1 5", "ignored"),
        ("10 ws 1 6", "ignored"),
        ("10 ws 1 ", "L1 closed, ! parse error"),
        ("10 ws 1 abc", "L1 closed, ! parse error"),
        ("10 ws 1 b*", "L1 closed, ! parse error"),
        ("10 ws 2 4other", ""),
    ] {
        Script::websocket().run(&[(input, expected)]);
    }
}
