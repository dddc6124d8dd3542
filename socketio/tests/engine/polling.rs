//! Section 4: the polling transport.

use adjourn_socketio::engine::{Context, Engine, Message, Outcome, PostBody};
use adjourn_socketio::links::RequestId;
use adjourn_socketio::reason::Reason;

use super::script::Script;

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
