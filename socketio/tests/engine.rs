//! Sections 2 to 5 of specification: admission, transports, upgrade, heartbeat. Virtual time; bytes literal in and out.

#[path = "support/engine_script.rs"]
mod script;

use std::time::Duration;

use adjourn_socketio::engine::{
    Context, Engine, EngineConfig, EngineRequest, Message, Outcome, PostBody, Refusal, SessionState, Sid,
    admit,
};
use adjourn_socketio::links::RequestId;
use adjourn_socketio::packet::Query;
use adjourn_socketio::reason::Reason;
use script::Script;

// ---- section 2: requests

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

// ---- section 3: WebSocket

#[test]
fn s3_how_a_link_is_closed_for_each_reason() {
    for (input, expected) in [
        ("1 close forced close", "L1 closed"),
        ("1 close server namespace disconnect", "L1 closed"),
        ("1 close server shutting down", "L1 closed"),
        ("1 close session taken over", "L1 quick"),
        ("1 close slow consumer", "L1 1013"),
        ("1 cut", "L1 cut"),
    ] {
        Script::websocket().run(&[
            (input, expected),
            // It is over: repeated and late inputs do nothing.
            (input, "no-op"),
            ("2 ws 1 4late", ""),
            ("2 send 4late", ""),
            ("2 ended 1", ""),
            ("900 tick", ""),
            ("900 get 5", "5=400/1"),
            ("900 probe 6", "L6 closed"),
        ]);
    }
}

#[test]
fn s3_the_end_of_the_link_ends_the_session_once() {
    Script::websocket().run(&[("1 ended 2", ""), ("1 ended 1", "! transport close"), ("1 ended 1", "")]);
}

#[test]
fn s3_an_event_that_does_not_fit_closes_a_slow_consumer() {
    Script::websocket().run(&[
        ("1 send 4a 4b", "L1<4a, L1<4b"),
        ("1 full", ""),
        ("1 send 4c", "L1 1013, ! slow consumer"),
        ("1 send 4d", ""),
    ]);
    Script::websocket().run(&[("1 full", ""), ("300 tick", "L1 1013, ! slow consumer")]);
}

#[test]
fn s9_when_a_volatile_event_is_sent() {
    let mut script = Script::websocket();
    for (unsent, expected) in [(0, true), (10, true), (11, false)] {
        script.links.unsent = unsent;
        assert_eq!(script.with(|engine, cx| engine.takes_volatile(10, cx)), expected, "{unsent}");
        assert_eq!(script.with(|engine, cx| engine.unsent(cx)), unsent);
    }
    let mut script = Script::polling();
    assert!(!script.with(|engine, cx| engine.takes_volatile(10, cx)), "no GET is held");
    script.input("1 get 2");
    assert!(script.with(|engine, cx| engine.takes_volatile(10, cx)));
    script.input("1 send 4a");
    assert!(!script.with(|engine, cx| engine.takes_volatile(10, cx)), "it has been answered");
    script.input("1 close forced close");
    assert!(!script.with(|engine, cx| engine.takes_volatile(10, cx)), "closing");
}

// ---- section 4: polling

#[test]
fn s4_a_get_is_answered_at_once_or_held() {
    Script::polling().run(&[
        ("1 get 2", ""),
        ("2 send 4a 4b", "2=200 4a|4b"),
        ("3 send 4c", ""),
        ("3 send 4d", ""),
        ("4 get 3", "3=200 4c|4d"),
        ("5 send-bin 01020304", ""),
        ("5 send 4e", ""),
        ("6 get 4", "4=200 bAQIDBA==|4e"),
        ("7 get 5", ""),
    ]);
}

#[test]
fn s4_an_answer_has_at_most_max_poll_response_but_one_packet() {
    Script::polling().run(&[
        ("1 send 4aaaaaaaaa 4bbbbbbbbb 4ccccccccc", ""),
        ("2 get 2", "2=200 4aaaaaaaaa|4bbbbbbbbb"),
        ("2 get 3", "3=200 4ccccccccc"),
        ("3 send 4ddddddddddddddddddddddddddddddddddddddddd 4e", ""),
        ("4 get 4", "4=200 4ddddddddddddddddddddddddddddddddddddddddd"),
        ("4 get 5", "5=200 4e"),
        // 30 bytes, 31 bytes
        ("4 send 4aaaaaaaaaaaaaa 4bbbbbbbbbbbbb", ""),
        ("4 get 8", "8=200 4aaaaaaaaaaaaaa|4bbbbbbbbbbbbb"),
        ("4 send 4aaaaaaaaaaaaaa 4bbbbbbbbbbbbbb", ""),
        ("4 get 9", "9=200 4aaaaaaaaaaaaaa"),
        ("4 get 10", "10=200 4bbbbbbbbbbbbbb"),
        ("5 get 6", ""),
        // an event's attachments follow in later ones if they must
        ("6 send 452-................. 4bbbbbbbbb 4ccccccccc", "6=200 452-................."),
        ("6 get 7", "7=200 4bbbbbbbbb|4ccccccccc"),
    ]);
}

#[test]
fn s4_the_packets_of_a_post_are_handled_in_order_then_it_is_answered() {
    Script::polling().run(&[
        ("1 post 2 4a|bAQI=|4b", "\"a\", <[1, 2]>, \"b\", 2=200 ok"),
        ("2 begin 3", ""),
        ("3 body 3 4c", "\"c\", 3=200 ok"),
        ("3 body 3 4again", ""),
        ("4 post 4 4d|6|4e", "\"d\", ignored, \"e\", 4=200 ok"),
    ]);
}

#[test]
fn s4_a_bad_packet_ends_it_behind_those_before_it() {
    for (post, expected) in [
        ("5 post 3 4a|abc|4b", "\"a\", 2=200 1, 3=400/3, ! parse error"),
        ("5 post 3 ", "2=200 1, 3=400/3, ! parse error"),
        ("5 post 3 4a||4b", "\"a\", 2=200 1, 3=400/3, ! parse error"),
        ("5 post 3 4a|b*", "\"a\", 2=200 1, 3=400/3, ! parse error"),
        ("5 post 3 4a|2|4b", "\"a\", 2=200 1, 3=400/3, ! transport error"),
    ] {
        Script::polling().run(&[("1 get 2", ""), (post, expected), ("6 get 4", "4=400/1")]);
    }
}

#[test]
fn s4_bodies_over_max_payload_are_413_and_the_session_is_kept() {
    let long = "4".repeat(101);
    Script::polling().run(&[
        ("1 begin 2 101", "2=413"),
        ("1 begin 3 100", ""),
        ("2 large 3", "3=413"),
        (&format!("3 post 4 {long}"), "4=413"),
        (&format!("3 post 7 {}", &long[1..]), &format!("\"{}\", 7=200 ok", "4".repeat(99))),
        ("3 begin 5 18446744073709551615", "5=413"),
        ("4 post 6 4a", "\"a\", 6=200 ok"),
    ]);
}

#[test]
fn s4_content_that_is_no_text_is_a_transport_error() {
    for content_type in ["application/octet-stream", "Application/Octet-Stream; x=y"] {
        let begin = format!("1 begin 2 {content_type}");
        Script::polling().run(&[(&begin, "2=400/3, ! transport error"), ("2 get 3", "3=400/1")]);
    }
    Script::polling().run(&[
        ("1 begin 2 text/plain;charset=UTF-8", ""),
        ("2 raw 2 34ff", "2=400/3, ! transport error"),
        ("3 get 3", "3=400/1"),
    ]);
}

#[test]
fn s4_one_get_and_one_post_at_a_time() {
    Script::polling().run(&[
        ("1 get 2", ""),
        ("2 get 3", "3=400/3, 2=200 1, ! transport error"),
        ("3 get 4", "4=400/1"),
    ]);
    Script::polling().run(&[
        ("1 get 2", ""),
        ("1 begin 3", ""),
        ("2 begin 4", "4=400/3, 3=400/1, 2=200 1, ! transport error"),
        ("3 body 3 4a", ""),
        ("3 begin 5", "5=400/1"),
    ]);
    Script::polling().run(&[("1 get 2", ""), ("1 begin 3", ""), ("2 body 3 4a", "\"a\", 3=200 ok")]);
}

#[test]
fn s4_a_request_that_dies_before_its_answer_is_a_transport_error() {
    Script::polling().run(&[
        ("1 get 2", ""),
        ("2 gone 2", "! transport error"),
        ("2 gone 2", ""),
        ("3 get 3", "3=400/1"),
    ]);
    Script::polling().run(&[
        ("1 get 2", ""),
        ("1 begin 3", ""),
        ("2 gone 3", "2=200 1, ! transport error"),
        ("3 get 4", "4=400/1"),
    ]);
    Script::polling().run(&[
        ("1 get 2", ""),
        ("1 send 4a", "2=200 4a"),
        ("2 gone 2", ""),
        ("2 post 3 4a", "\"a\", 3=200 ok"),
        ("2 gone 3", ""),
        ("2 gone 77", ""),
    ]);
}

#[test]
fn s2_close_by_the_client_on_polling() {
    Script::polling().run(&[
        ("1 get 2", ""),
        ("2 post 3 4a|1|4b", "\"a\", 2=200 6, ! transport close, 3=200 ok"),
        ("3 get 4", "4=400/1"),
    ]);
    Script::polling().run(&[("2 post 3 1", "! transport close, 3=200 ok"), ("3 get 4", "4=400/1")]);
}

#[test]
fn s4_an_orderly_close_sends_what_is_queued_then_1_alone() {
    for close in ["forced close", "server namespace disconnect", "session taken over", "server shutting down"]
    {
        let close = format!("5 close {close}");
        // Nothing queued: the held or the next one.
        Script::polling().run(&[("1 get 2", ""), (&close, "2=200 1"), ("6 get 3", "3=400/1")]);
        Script::polling().run(&[(&close, ""), ("6 get 3", "3=200 1"), ("6 get 4", "4=400/1")]);
        // Something queued: the next one, then the one after it.
        Script::polling().run(&[
            ("1 send 4a", ""),
            (&close, ""),
            ("6 begin 2", "2=400/1"),
            ("6 get 3", "3=200 4a"),
            ("7 get 4", "4=200 1"),
            ("8 get 5", "5=400/1"),
        ]);
        // The GET that is held takes what is sent at last.
        Script::polling().run(&[
            ("1 get 2", ""),
            ("5 send 441", "2=200 441"),
            (&close, ""),
            ("6 get 3", "3=200 1"),
        ]);
        // In as many answers as it needs, within close_timeout.
        Script::polling().run(&[
            ("1 send 4aaaaaaaaaaaaaaaaaaaa 4bbbbbbbbbbbbbbbbbbbb", ""),
            (&close, ""),
            ("6 get 3", "3=200 4aaaaaaaaaaaaaaaaaaaa"),
            ("504 get 4", "4=200 4bbbbbbbbbbbbbbbbbbbb"),
            ("505 get 5", "5=400/1"),
        ]);
        // A POST whose body is under way comes too late.
        Script::polling().run(&[("1 begin 2", ""), (&close, "2=400/1"), ("6 body 2 4a", "")]);
    }
}

#[test]
fn s4_what_is_sent_after_a_close_goes_nowhere() {
    Script::polling().run(&[
        ("1 send 4a", ""),
        ("5 close forced close", ""),
        ("5 send 4late", ""),
        ("5 close forced close", "no-op"),
        ("5 cut", "no-op"),
        ("6 get 3", "3=200 4a"),
        ("6 get 4", "4=200 1"),
    ]);
}

#[test]
fn s11_a_cut_ends_the_requests_without_an_answer() {
    Script::polling().run(&[
        ("1 get 2", ""),
        ("1 begin 3", ""),
        ("1 probe 9", ""),
        ("5 cut", "3 aborted, L9 cut, 2 aborted"),
        ("6 get 4", "4=400/1"),
    ]);
}

#[test]
fn s11_a_cut_ends_a_post_that_is_under_way_since_before_the_switch() {
    Script::polling().run(&[
        ("1 probe 9", ""),
        ("2 ws 9 2probe", "L9<3probe"),
        ("3 begin 2", ""),
        ("4 ws 9 5", "upgraded"),
        ("5 cut", "2 aborted, L9 cut"),
        ("6 body 2 4a", ""),
    ]);
}

#[test]
fn s11_a_cut_or_a_close_by_the_handler_of_a_message_stops_the_payload() {
    for (close, expected) in [
        (Engine::cut as fn(&mut Engine, &mut Context<'_>) -> bool, "2 aborted"),
        (|engine, cx| engine.close(Reason::ForcedClose, cx), "2=200 ok"),
    ] {
        let mut script = Script::polling();
        script.input("1 begin 2");
        let body = PostBody::Complete(b"4a\x1e4b");
        let mut packets = script.with(|engine, cx| engine.post(RequestId(2), body, cx)).expect("open");
        let first = script.with(|engine, cx| engine.next_packet(&mut packets, cx));
        assert_eq!(first, Some(Outcome::Message(Message::Text("a"))));
        assert!(script.with(close));
        script.links.lines.clear();
        assert_eq!(script.with(|engine, cx| engine.next_packet(&mut packets, cx)), None);
        assert_eq!(script.with(|engine, cx| engine.next_packet(&mut packets, cx)), None);
        assert_eq!(script.links.lines, [expected]);
    }
}

#[test]
fn sending_nothing_answers_no_get() {
    let mut script = Script::polling();
    script.input("1 get 2");
    assert_eq!(script.with(|engine, cx| engine.send(&[], cx)), Ok(()));
    assert_eq!(script.input("2 send 4a"), "2=200 4a");
}

#[test]
fn s3_a_full_queue_on_polling_is_a_slow_consumer_too() {
    let long = "4".repeat(60);
    Script::polling().run(&[
        (&format!("1 send {long}"), ""),
        (&format!("2 send {long}"), "! slow consumer"),
        ("3 get 2", &format!("2=200 {long}")),
        ("4 get 3", "3=200 1"),
    ]);
}

#[test]
fn s4_a_request_sees_every_deadline_that_has_passed() {
    Script::polling().run(&[("300 tick", ""), ("500 get 2", "2=400/1, ! ping timeout")]);
    Script::polling().run(&[
        ("300 tick", ""),
        ("499 get 2", "2=200 2"),
        ("500 begin 3", "3=400/1, ! ping timeout"),
    ]);
    Script::websocket().run(&[("300 tick", "L1<2"), ("500 ws 1 3", "L1 quick, ! ping timeout")]);
}

// ---- section 4: upgrade

#[test]
fn s4_upgrade() {
    Script::polling().run(&[
        ("1 get 2", ""),
        ("2 probe 9", ""),
        ("3 ws 9 2probe", "L9<3probe, 2=200 6"),
        ("4 send 4a", ""),
        ("5 ws 9 5", "L9<4a, upgraded"),
        ("6 send 4b", "L9<4b"),
        ("6 ws 9 4c", "\"c\""),
        ("7 get 3", "3=400/3"),
        ("7 begin 4", "4=400/3"),
        ("7 probe 10", "L10 closed"),
        ("8 ended 9", "! transport close"),
    ]);
}

#[test]
fn s4_a_held_get_is_answered_6_when_the_transport_is_switched() {
    Script::polling().run(&[
        ("1 probe 9", ""),
        ("2 ws 9 2probe", "L9<3probe"),
        ("3 get 2", "2=200 6"),
        ("4 get 3", ""),
        ("5 ws 9 5", "3=200 6, upgraded"),
    ]);
}

#[test]
fn s4_gets_during_a_probe_are_answered_after_at_most_100_ms() {
    let script = Script::polling().run(&[
        ("1 get 2", ""),
        ("2 probe 9", ""),
        // Not before 2probe.
        ("3 tick", ""),
        ("4 ws 9 2probe", "L9<3probe, 2=200 6"),
        ("5 get 3", ""),
        ("103 tick", ""),
    ]);
    assert_eq!(script.engine.next_timeout(), Some(Duration::from_millis(104)));
    script.run(&[
        ("104 tick", "3=200 6"),
        // Queued packets go out instead.
        ("105 get 4", ""),
        ("106 send 4a", "4=200 4a"),
        ("107 send 4b", ""),
        ("108 get 5", "5=200 4b"),
        ("210 get 6", "6=200 6"),
    ]);
}

#[test]
fn s4_what_is_no_upgrade_closes_the_probe_alone() {
    for message in ["9 5", "9 4a", "9 2", "9 2probes", "9 3", "9 1", "9 6", "9 abc", "9 "] {
        let row = format!("2 ws {message}");
        Script::polling().run(&[
            ("1 probe 9", ""),
            (&row, "L9 closed, probe failed"),
            ("3 ws 9 2probe", ""),
            ("3 post 3 4a", "\"a\", 3=200 ok"),
            ("4 probe 10", ""),
            ("4 ws 10 2probe", "L10<3probe"),
            ("4 ws 10 4a", "L10 closed, probe failed"),
            ("5 get 4", ""),
        ]);
    }
    Script::polling().run(&[("1 probe 9", ""), ("2 bin 9 01", "L9 closed, probe failed")]);
    Script::polling().run(&[
        ("1 probe 9", ""),
        ("2 ws 9 2probe", "L9<3probe"),
        ("3 ended 9", "probe failed"),
        ("4 get 2", ""),
        ("4 ended 9", ""),
    ]);
}

#[test]
fn s4_a_probe_has_upgrade_timeout() {
    let script = Script::polling().run(&[
        ("1 probe 9", ""),
        ("300 get 2", "2=200 2"),
        ("300 post 3 3", "3=200 ok"),
        ("600 get 4", "4=200 2"),
        ("600 post 5 3", "5=200 ok"),
        ("900 get 6", "6=200 2"),
        ("900 post 7 3", "7=200 ok"),
        ("1000 tick", ""),
    ]);
    assert_eq!(script.engine.next_timeout(), Some(Duration::from_millis(1001)));
    script.run(&[("1001 tick", "L9 closed, probe failed"), ("1002 get 8", "")]);
}

#[test]
fn s4_upgrade_timeout_does_not_wait_for_the_next_noop() {
    let mut script = Script::polling();
    script.config.upgrade_timeout = Duration::from_millis(50);
    let script = script.run(&[
        ("1 get 2", ""),
        ("1 probe 9", ""),
        ("2 ws 9 2probe", "L9<3probe, 2=200 6"),
        ("3 get 3", ""),
    ]);
    assert_eq!(script.engine.next_timeout(), Some(Duration::from_millis(51)));
    script.run(&[("51 tick", "L9 closed, probe failed"), ("150 tick", ""), ("151 send 4a", "3=200 4a")]);
}

#[test]
fn s4_one_probe_at_a_time() {
    Script::polling().run(&[
        ("1 probe 9", ""),
        ("2 probe 10", "L10 closed"),
        ("3 ws 9 2probe", "L9<3probe"),
        ("3 ws 10 2probe", ""),
        ("3 get 2", "2=200 6"),
        // Asked twice, it answers twice; the GETs keep their pace.
        ("4 ws 9 2probe", "L9<3probe"),
        ("4 get 3", ""),
        ("4 post 4 4a", "\"a\", 4=200 ok"),
        ("5 ws 9 5", "3=200 6, upgraded"),
    ]);
}

#[test]
fn s4_a_pong_that_is_due_stays_due_across_the_switch() {
    let upgrade =
        [("1 get 2", ""), ("2 probe 9", ""), ("300 tick", "2=200 2"), ("310 ws 9 2probe", "L9<3probe")];
    Script::polling().run(&upgrade).run(&[
        ("320 ws 9 5", "upgraded"),
        ("499 tick", ""),
        ("500 tick", "L9 quick, ! ping timeout"),
    ]);
    Script::polling().run(&upgrade).run(&[
        ("320 ws 9 5", "upgraded"),
        ("499 ws 9 3", ""),
        ("798 tick", ""),
        ("799 tick", "L9<2"),
    ]);
    // The ping itself, still queued, goes over WebSocket.
    Script::polling().run(&[
        ("1 probe 9", ""),
        ("2 ws 9 2probe", "L9<3probe"),
        ("300 tick", ""),
        ("310 ws 9 5", "L9<2, upgraded"),
    ]);
}

#[test]
fn s4_a_session_that_ends_during_its_probe_closes_the_probe() {
    for (end, expected) in [
        ("500 tick", "L9 closed, ! ping timeout"),
        ("350 post 3 1", "L9 closed, ! transport close, 3=200 ok"),
        ("350 post 3 x", "L9 closed, 3=400/3, ! parse error"),
        ("350 close forced close", "L9 closed"),
    ] {
        Script::polling().run(&[("300 probe 9", ""), ("300 tick", ""), (end, expected), ("501 ws 9 5", "")]);
    }
}

#[test]
fn s4_a_post_that_is_under_way_at_the_switch_is_handled() {
    Script::polling().run(&[
        ("1 probe 9", ""),
        ("2 ws 9 2probe", "L9<3probe"),
        ("3 begin 2", ""),
        ("4 ws 9 5", "upgraded"),
        ("5 body 2 4a", "\"a\", 2=200 ok"),
    ]);
    Script::polling().run(&[
        ("1 probe 9", ""),
        ("2 ws 9 2probe", "L9<3probe"),
        ("3 begin 2", ""),
        ("4 ws 9 5", "upgraded"),
        ("5 gone 2", ""),
        ("6 ws 9 4a", "\"a\""),
    ]);
}

#[test]
fn s4_a_queue_that_the_link_does_not_take_is_a_slow_consumer() {
    Script::polling().run(&[
        ("1 probe 9", ""),
        ("2 ws 9 2probe", "L9<3probe"),
        ("3 send 4a", ""),
        ("3 full", ""),
        ("4 ws 9 5", "L9 1013, ! slow consumer"),
    ]);
}

// ---- section 5: heartbeat

#[test]
fn s5_pings_come_at_the_interval_after_the_open_and_after_each_pong() {
    Script::websocket().run(&[
        ("299 tick", ""),
        ("300 tick", "L1<2"),
        ("450 ws 1 3", ""),
        ("749 tick", ""),
        ("750 tick", "L1<2"),
        ("750 ws 1 3", ""),
        ("1050 tick", "L1<2"),
        // A second pong changes nothing.
        ("1060 ws 1 3", ""),
        ("1200 ws 1 3", ""),
        ("1360 tick", "L1<2"),
    ]);
}

#[test]
fn s5_a_pong_is_due_ping_timeout_after_the_ping_was_due() {
    let ends = "L1 quick, ! ping timeout";
    Script::websocket().run(&[("300 tick", "L1<2"), ("499 tick", ""), ("500 tick", ends)]);
    Script::websocket().run(&[("350 tick", "L1<2"), ("499 tick", ""), ("500 tick", ends)]);
    // After it was sent, if it went out more than 50 ms late.
    Script::websocket().run(&[("351 tick", "L1<2"), ("550 tick", ""), ("551 tick", ends)]);
    Script::websocket().run(&[
        ("300 tick", "L1<2"),
        ("500 tick", ends),
        ("501 tick", ""),
        ("501 ended 1", ""),
    ]);
}

#[test]
fn s5_the_first_packet_while_a_pong_is_due_restarts_the_timeout_once() {
    let ends = "L1 quick, ! ping timeout";
    for (packet, expected) in [("ws 1 4a", "\"a\""), ("bin 1 01", "<[1]>"), ("ws 1 6", "ignored")] {
        let packet = |time: u64| format!("{time} {packet}");
        Script::websocket().run(&[
            // Before the ping it means nothing.
            (&packet(200), expected),
            ("300 tick", "L1<2"),
            (&packet(490), expected),
            (&packet(600), expected),
            ("689 tick", ""),
            ("690 tick", ends),
        ]);
        // Anew after each pong.
        Script::websocket().run(&[
            ("300 tick", "L1<2"),
            (&packet(400), expected),
            ("590 ws 1 3", ""),
            ("890 tick", "L1<2"),
            (&packet(1080), expected),
            ("1279 tick", ""),
            ("1280 tick", ends),
        ]);
    }
}

#[test]
fn s5_a_client_that_talks_and_never_pongs_lives_ping_interval_and_two_timeouts() {
    for first in 300..500 {
        let mut script = Script::websocket();
        script.input("300 tick");
        let ended =
            (first..1000).find(|now| script.input(&format!("{now} ws 1 4a")).contains("ping timeout"));
        assert_eq!(ended, Some(first + 200));
    }
}

#[test]
fn s5_2probe_and_3probe_are_no_heartbeat() {
    Script::websocket().run(&[
        ("300 tick", "L1<2"),
        ("310 ws 1 3probe", ""),
        ("500 tick", "L1 quick, ! ping timeout"),
    ]);
    Script::polling().run(&[
        ("290 probe 9", ""),
        ("300 tick", ""),
        ("310 ws 9 2probe", "L9<3probe"),
        ("500 tick", "L9 closed, ! ping timeout"),
    ]);
}

#[test]
fn s5_on_polling_the_ping_is_queued_and_the_clock_runs() {
    Script::polling().run(&[
        ("300 tick", ""),
        ("400 get 2", "2=200 2"),
        ("401 get 3", ""),
        ("450 post 4 3", "4=200 ok"),
        ("750 tick", "3=200 2"),
        ("760 get 5", ""),
        ("950 tick", "5=200 1, ! ping timeout"),
        ("951 get 6", "6=400/1"),
    ]);
}

#[test]
fn s5_the_next_timeout_is_that_of_the_heartbeat() {
    let mut script = Script::websocket();
    let due = |script: &Script| script.engine.next_timeout().map(|due| due.as_millis());
    assert_eq!(due(&script), Some(300));
    script.input("310 tick");
    assert_eq!(due(&script), Some(500));
    script.input("400 ws 1 3");
    assert_eq!(due(&script), Some(700));
    script.input("400 close forced close");
    assert_eq!(due(&script), None);
    let mut script = Script::polling();
    script.input("10 close forced close");
    assert_eq!(due(&script), Some(510));
    script.input("510 tick");
    assert_eq!((due(&script), script.engine.state()), (None, None));
}

// ---- the cases of the official Engine.IO protocol suite, as rows of our own

#[test]
fn suite_messages_over_polling() {
    Script::polling().echoing().run(&[
        ("1 post 2 4hello", "\"hello\", 2=200 ok"),
        ("2 get 3", "3=200 4hello"),
        ("3 post 4 4test1|4test2|4test3", "\"test1\", \"test2\", \"test3\", 4=200 ok"),
        ("4 get 5", "5=200 4test1|4test2|4test3"),
        ("5 post 6 4hello|bAQIDBA==", "\"hello\", <[1, 2, 3, 4]>, 6=200 ok"),
        ("6 get 7", "7=200 4hello|bAQIDBA=="),
    ]);
}

#[test]
fn suite_messages_over_websocket() {
    Script::websocket().echoing().run(&[
        ("1 ws 1 4hello", "\"hello\", L1<4hello"),
        ("2 bin 1 01020304", "<[1, 2, 3, 4]>, L1<[1, 2, 3, 4]"),
        ("3 ws 1 abc", "L1 closed, ! parse error"),
    ]);
}

#[test]
fn suite_failures_over_polling() {
    Script::polling().run(&[("1 post 2 abc", "2=400/3, ! parse error"), ("2 get 3", "3=400/1")]);
    Script::polling().run(&[
        ("1 get 2", ""),
        ("6 get 3", "3=400/3, 2=200 1, ! transport error"),
        ("7 get 4", "4=400/1"),
    ]);
    Script::polling().run(&[("1 get 2", ""), ("6 gone 2", "! transport error"), ("7 get 3", "3=400/1")]);
    Script::polling().run(&[("300 tick", ""), ("500 tick", "! ping timeout"), ("501 get 2", "2=400/1")]);
    Script::polling().run(&[
        ("1 get 2", ""),
        ("1 post 3 1", "2=200 6, ! transport close, 3=200 ok"),
        ("2 get 4", "4=400/1"),
    ]);
}

#[test]
fn suite_heartbeat_over_polling_and_websocket() {
    let (mut polling, mut websocket) = (Script::polling(), Script::websocket());
    polling.links.lines.clear();
    websocket.links.lines.clear();
    for round in 0..3 {
        let (held, ping, pong) = (round * 310 + 1, (round + 1) * 310 - 10, (round + 1) * 310);
        assert_eq!(polling.input(&format!("{held} get 2")), "");
        assert_eq!(polling.input(&format!("{ping} tick")), "2=200 2");
        assert_eq!(polling.input(&format!("{pong} post 3 3")), "3=200 ok");
        assert_eq!(websocket.input(&format!("{ping} tick")), "L1<2");
        assert_eq!(websocket.input(&format!("{pong} ws 1 3")), "");
    }
}

#[test]
fn suite_upgrade() {
    Script::polling().echoing().run(&[
        ("1 probe 9", ""),
        ("2 ws 9 2probe", "L9<3probe"),
        ("3 get 2", "2=200 6"),
        ("4 ws 9 5", "upgraded"),
        ("5 get 3", "3=400/3"),
        ("6 probe 10", "L10 closed"),
        ("7 ws 9 4hello", "\"hello\", L9<4hello"),
    ]);
}
