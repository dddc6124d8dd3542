"""The rules that are broken: a name, and edits of files below `socketio/src` (file, text that is there once, text instead)."""

RULES = [
    (
        "a replay leaves an entry out",
        [
            (
                "core/replay.rs",
                "                EntryKind::Event => concerned && !sent,\n",
                "                EntryKind::Event => concerned && !sent && entry.position.number % 7 != 3,\n",
            )
        ],
    ),
    (
        "a socket that catches up is sent what is dispatched, too",
        [
            (
                "core/dispatch.rs",
                "if !matches!(socket.progress, Progress::Live) || entry.position <= socket.start {",
                "if matches!(socket.progress, Progress::Ended(_)) || entry.position <= socket.start {",
            )
        ],
    ),
    (
        "a socket is live before its replay is read",
        [
            (
                "core/replay.rs",
                "        if asked_again && position >= self.dispatched(space) {\n",
                "        if asked_again && (position >= self.dispatched(space) || position.number % 5 == 4) {\n",
            )
        ],
    ),
    (
        "the holder of an older generation is not fenced",
        [
            (
                "core/connect.rs",
                "        if let Some(holder) = holder {\n            self.take_over(holder);\n        }\n",
                "        let _ = holder;\n",
            )
        ],
    ),
    (
        "the checkpoint counts without `last`",
        [
            (
                "store/resume.rs",
                "pairs.filter(|(_, last)| received >= (*last).min(log.tail))",
                "pairs.filter(|(_, last)| received >= (*last).min(Position::START))",
            )
        ],
    ),
    (
        "a session that catches up is saved as if it had all",
        [
            (
                "core/sessions.rs",
                "            Progress::CatchingUp(replay) => replay.position,\n",
                "            Progress::CatchingUp(_) => dispatched,\n",
            )
        ],
    ),
    (
        "earlier pairs of checkpoint and last are not kept",
        [
            (
                "store/resume.rs",
                "std::iter::once(&newest).chain(&session.earlier)",
                "std::iter::once(&newest).chain(&session.earlier[..0])",
            )
        ],
    ),
    (
        "what a replay reached is not kept when the socket is live",
        [
            (
                "core/replay.rs",
                "            self.go_live(key, conn, position);\n            self.keep_caught_up(session);\n",
                "            self.go_live(key, conn, position);\n",
            )
        ],
    ),
    (
        "a replay asks for no rooms",
        [
            (
                "core/replay.rs",
                "(new.rooms.is_empty() || new.rooms.iter().any(is_in)) && !",
                "(new.rooms.is_empty() || new.rooms.iter().any(is_in) || true) && !",
            )
        ],
    ),
    (
        "a replay asks for no exceptions",
        [("core/replay.rs", "&& !new.except.iter().any(is_in)", "&& !new.except.iter().any(|_| false)")],
    ),
    (
        "rooms as they are now, not as they were at the position",
        [
            (
                "core/sessions.rs",
                "any(|member| member.from < at && member.to.is_none_or(|to| at <= to))",
                "any(|member| at >= Position::START && member.to.is_none())",
            )
        ],
    ),
    (
        "join and leave entries are read from the start alone",
        [
            ("core/replay.rs", "        resume.start.min(resume.applied.max(floor))\n", "        resume.start.max(floor)\n"),
            ("core/replay.rs", "        let position = start.min(applied);\n", "        let position = start;\n"),
        ],
    ),
    (
        "a change of rooms overtakes the events before it",
        [
            (
                "core/sessions.rs",
                "let waits = self.state.queue.undelivered > 0 && self.log(space).is_some();",
                "let waits = self.state.queue.undelivered > usize::MAX - 1 && self.log(space).is_some();",
            )
        ],
    ),
    (
        "changes of rooms are not saved",
        [
            (
                "core/sessions.rs",
                "        if change_membership(&mut session.record.memberships, room, join, position, how) {\n"
                "            self.mark_unsaved(key);\n        }\n    }\n\n    /// Who gets",
                "        change_membership(&mut session.record.memberships, room, join, position, how);\n    }\n\n    /// Who gets",
            )
        ],
    ),
    (
        "a save does not ask for the generation",
        [
            (
                "store/memory.rs",
                "            (Some(stored), _) => stored.generation == generation,\n",
                "            (Some(_), _) => true,\n",
            )
        ],
    ),
    (
        "a log that was trimmed is no reason to refuse",
        [
            ("store/resume.rs", "if start < log.floor { Err", "if start < Position::START { Err"),
            ("core/replay.rs", "if trimmed.is_none_or(|floor| floor <= resume.start)", "if trimmed.is_none_or(|_| true)"),
            ("core/replay.rs", "&& trimmed.is_none_or(|floor| floor <= known)", "&& trimmed.is_none_or(|_| known >= position)"),
        ],
    ),
    (
        "an offset of an earlier epoch is not clamped to its end",
        [("store/resume.rs", "offset.position.min(end).min(log.tail)", "offset.position.max(end).min(log.tail)")],
    ),
    (
        "a key that is done runs again",
        [
            (
                "store/memory.rs",
                "            if let Some(ack) = once.look(key, settings, now).result()? {\n",
                "            if let Some(ack) = once.look(key, settings, now).result()?.filter(|_| false) {\n",
            )
        ],
    ),
    (
        "a key that is done gives no ack",
        [
            (
                "core/once.rs",
                "            if let (Ok(done), Some(ack)) = (done, ack) {\n",
                "            if let (Ok(done), Some(ack)) = (done, ack)\n                && !done.repeat\n            {\n",
            )
        ],
    ),
    (
        "an ack does not wait for the effects of its call",
        [
            (
                "core/commits.rs",
                "                Item::Ack { .. } | Item::Saved { .. } if changes => break,\n",
                "                Item::Ack { .. } | Item::Saved { .. } if changes && early => break,\n",
            )
        ],
    ),
    (
        "an ack that waits is lost",
        [
            (
                "core/commits.rs",
                "            Item::Ack { socket, frames, .. } => self.send_ack(socket, &frames),\n",
                "            Item::Ack { .. } => {}\n",
            )
        ],
    ),
    (
        "the application's error keeps the key",
        [
            (
                "store/memory.rs",
                "        let (ack, effects) = Tx::new(context).run(run)?;\n        let mut state = self.lock();\n",
                "        let failed = AckValue { json: Arc::from(\"[]\"), attachments: Arc::new([]) };\n"
                "        if let Some(key) = key {\n            self.lock().once.finish(key, Some(&failed), now);\n        }\n"
                "        let (ack, effects) = Tx::new(context).run(run)?;\n        let mut state = self.lock();\n",
            )
        ],
    ),
    (
        "a log that is new begins at 0, whatever was dropped",
        [("store/memory.rs", "Trimmed::nothing(state.base)", "Trimmed::nothing(0)")],
    ),
    (
        "logs of names that nobody uses stay",
        [
            (
                "core/replies.rs",
                "(InFlight::DropLog(name), StoreReply::DropLog(_)) => self.state.drop_again.push_back(name),",
                "(InFlight::DropLog(_), StoreReply::DropLog(_)) => {}",
            )
        ],
    ),
    (
        "memberships are in no order",
        [
            (
                "core/sessions.rs",
                "    list.insert(place, new);\n",
                "    list.insert(place.min(0), new);\n",
            )
        ],
    ),
    (
        "a resume that another one overtook begins anew",
        [
            (
                "core/replay.rs",
                "            return self.cut_conn(conn);\n",
                "            return self.resume_refused(key, ResumeRefusal::UnknownSession);\n",
            )
        ],
    ),
    (
        "a node that does not read a log goes on with those who connect",
        [
            (
                "core/cluster.rs",
                "self.state.cluster.is_some() && self.log(space).is_some_and(|log| log.epoch.is_none())",
                "self.state.cluster.is_some() && self.log(space).is_none()",
            )
        ],
    ),
]
