//! The guide: what cannot be said at one item. The pages lie in `docs/`.

/// A page of `docs/`. Its links lead to files; of two definitions the first one wins, so these lead to the modules.
macro_rules! page {
    ($name:ident, $summary:literal) => {
        page!($name, $summary, include_str!(concat!("../docs/", stringify!($name), ".md")));
    };
    ($name:ident, $summary:literal, $text:expr) => {
        #[doc = $summary]
        ///
        /// [architecture]: crate::guide::architecture
        /// [attacks]: crate::guide::attacks
        /// [autobahn]: crate::guide::autobahn
        /// [coming_from]: crate::guide::coming_from
        /// [how_a_connection_ends]: crate::guide::how_a_connection_ends
        /// [in_production]: crate::guide::in_production
        /// [performance]: crate::guide::performance
        /// [rules_and_tests]: crate::guide::rules_and_tests
        /// [shutting_down]: crate::guide::shutting_down
        /// [specification]: crate::guide::specification
        /// [transitions]: crate::guide::transitions
        /// [what_others_do]: crate::guide::what_others_do
        /// [which_example]: crate::guide::which_example
        ///
        #[doc = $text]
        pub mod $name {}
    };
}

page!(
    which_example,
    "Which example to read.",
    concat!(
        "[example_echo]: https://docs.rs/crate/adjourn/latest/source/examples/echo.rs\n",
        "[example_wss_echo]: https://docs.rs/crate/adjourn/latest/source/examples/wss_echo.rs\n",
        "[example_activated]: https://docs.rs/crate/adjourn/latest/source/examples/activated.rs\n",
        "[example_restart]: https://docs.rs/crate/adjourn/latest/source/examples/restart.rs\n",
        "[example_broadcast]: https://docs.rs/crate/adjourn/latest/source/examples/broadcast.rs\n",
        "[example_rooms]: https://docs.rs/crate/adjourn/latest/source/examples/rooms.rs\n",
        "[example_kick]: https://docs.rs/crate/adjourn/latest/source/examples/kick.rs\n",
        "[example_client]: https://docs.rs/crate/adjourn/latest/source/examples/client.rs\n",
        "[example_nested]: https://docs.rs/crate/adjourn/latest/source/examples/nested.rs\n",
        "[example_own_sources]: https://docs.rs/crate/adjourn/latest/source/examples/own_sources.rs\n",
        "[example_own_loop]: https://docs.rs/crate/adjourn/latest/source/examples/own_loop.rs\n",
        "[example_pull]: https://docs.rs/crate/adjourn/latest/source/examples/pull.rs\n",
        "[example_http_and_ws]: https://docs.rs/crate/adjourn/latest/source/examples/http_and_ws.rs\n",
        "[example_adopt]: https://docs.rs/crate/adjourn/latest/source/examples/adopt.rs\n",
        "[example_deferred_upgrade]: https://docs.rs/crate/adjourn/latest/source/examples/deferred_upgrade.rs\n",
        "[example_relay]: https://docs.rs/crate/adjourn/latest/source/examples/relay.rs\n",
        "[example_graceful_shutdown]: https://docs.rs/crate/adjourn/latest/source/examples/graceful_shutdown.rs\n",
        "[example_console]: https://docs.rs/crate/adjourn/latest/source/examples/console/main.rs\n",
        "[example_close_lab]: https://docs.rs/crate/adjourn/latest/source/examples/close_lab/main.rs\n",
        "[example_bench_server]: https://docs.rs/crate/adjourn/latest/source/examples/bench_server.rs\n",
        "[example_autobahn_server]: https://docs.rs/crate/adjourn/latest/source/examples/autobahn_server.rs\n",
        "[example_autobahn_client]: https://docs.rs/crate/adjourn/latest/source/examples/autobahn_client.rs\n",
        include_str!("../docs/which_example.md")
    )
);
page!(coming_from, "The same tasks in npm ws, tungstenite, uWebSockets and here.");
page!(
    how_a_connection_ends,
    "How a connection ends, an introduction: the idea, the states, the life of a close, the report, points of interpretation."
);
page!(
    specification,
    "The closing specification: the rules, numbered, and which of them are not implemented yet."
);
page!(rules_and_tests, "Which test stands for which rule of the specification.");
page!(architecture, "Where things live, the longest path of a byte and of a close.");
page!(transitions, "The transition table, as the tests read it.");
page!(
    attacks,
    "Known attacks on WebSocket servers: what each does, what happens, and what it costs, measured."
);
page!(what_others_do, "What other servers do where peers lose data or hang, with versions.");
#[cfg(feature = "signals")]
page!(shutting_down, "How to take a server down under an orchestrator.");
#[cfg(not(feature = "signals"))]
page!(
    shutting_down,
    "How to take a server down under an orchestrator.",
    "This page needs the feature `signals`."
);
page!(
    in_production,
    "What an operator sees: metrics, logs, a console. Proxies, socket activation, a restart that refuses nobody."
);
page!(autobahn, "The verdicts of the Autobahn test suite on both roles, and the command that asks for them.");
page!(performance, "This crate beside its peers, and where the time goes.");
