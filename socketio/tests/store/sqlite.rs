//! What the SQLite store alone promises: one process a file, the application's rows, a damaged, locked or full file.

use std::time::Duration;

use adjourn_socketio::store::{
    AttachError, Batch, NodeId, RunError, SqliteStore, Store as _, StoreError, TransactError, Tx,
};

use crate::disk::{Disk as _, SqliteFile, ack, ask, at, context, event, fill, key, save, session, settings};

fn rows(file: &SqliteFile) -> i64 {
    let connection = rusqlite::Connection::open(file.path()).expect("opens");
    connection.query_row("SELECT count(*) FROM messages", [], |row| row.get(0)).expect("counts")
}

fn with_messages(file: &SqliteFile) -> adjourn_socketio::store::Parts {
    let store = file.sqlite().expect("opens");
    store.connection().execute_batch("CREATE TABLE IF NOT EXISTS messages (content TEXT)").expect("creates");
    Box::new(store).open(NodeId("a".into()), &settings(), 0).expect("opens")
}

fn insert(tx: &mut Tx<'_>) -> Result<(), RunError> {
    let sql = tx.sql()?;
    sql.execute("INSERT INTO messages VALUES ('hello')", [])?;
    tx.append(event("/", "row"));
    Ok(())
}

#[test]
fn rows_of_the_application_are_in_the_same_transaction() {
    let file = SqliteFile::new("rows");
    let mut parts = with_messages(&file);
    let failing = |tx: &mut Tx<'_>| insert(tx).and(Err("no".into()));
    let panicking = |tx: &mut Tx<'_>| -> Result<_, RunError> {
        insert(tx)?;
        panic!("in the application's code")
    };
    assert!(parts.writer.transact(None, &context(None), Box::new(failing), 0).is_err());
    assert!(parts.writer.transact(None, &context(None), Box::new(panicking), 0).is_err());
    assert_eq!(rows(&file), 0);
    let working = |tx: &mut Tx<'_>| insert(tx).map(|()| ack("[]"));
    let done = parts.writer.transact(None, &context(None), Box::new(working), 0).expect("commits");
    assert_eq!((rows(&file), done.effects[0].1), (1, at(1)));
}

#[test]
fn code_that_ends_the_transaction_is_refused() {
    let file = SqliteFile::new("commit-inside");
    let mut parts = with_messages(&file);
    let code = |tx: &mut Tx<'_>| {
        insert(tx)?;
        tx.sql()?.execute_batch("COMMIT")?;
        Ok(ack("[]"))
    };
    let result = parts.writer.transact(Some(&key("k")), &context(None), Box::new(code), 0);
    assert!(matches!(result, Err(TransactError::Run(_))));
    fill(&mut parts, "/", 1, 0);
}

#[test]
fn a_memory_store_has_no_sql() {
    let mut parts = crate::disk::Memory::default().open(0);
    let code = |tx: &mut Tx<'_>| insert(tx).map(|()| ack("[]"));
    let result = parts.writer.transact(None, &context(None), Box::new(code), 0);
    assert!(matches!(result, Err(TransactError::Run(error)) if error.to_string().contains("SqliteStore")));
}

#[test]
fn a_second_process_is_refused_until_the_first_has_ended() {
    let file = SqliteFile::new("in-use");
    let store = file.sqlite().expect("opens");
    assert!(matches!(SqliteStore::open(file.path()), Err(StoreError::InUse)));
    let link = file.path().with_file_name("link.db");
    std::os::unix::fs::symlink(file.path(), &link).expect("a link");
    assert!(matches!(SqliteStore::open(link), Err(StoreError::InUse)));
    let parts = Box::new(store).open(NodeId("a".into()), &settings(), 0).expect("opens");
    assert!(matches!(file.store().err(), Some(StoreError::InUse)));
    drop(parts);
    file.open(0);
}

#[test]
fn files_of_others_and_of_newer_versions_are_refused() {
    let file = SqliteFile::new("schema");
    drop(file.open(0));
    let connection = rusqlite::Connection::open(file.path()).expect("opens");
    connection.execute("UPDATE sio_meta SET value = 2 WHERE key = 'schema_version'", []).expect("updates");
    assert!(matches!(file.store().err(), Some(StoreError::Schema { found: 2, known: 1 })));
    let other = SqliteFile::new("other");
    std::fs::write(other.path(), "a text that is long enough to be no header of a database".repeat(40))
        .expect("writes");
    assert!(matches!(other.store().err(), Some(StoreError::Failed(_))));
    let nowhere = SqliteStore::open("/nonexistent/test.db");
    assert!(matches!(nowhere.err(), Some(StoreError::Failed(_))));
}

#[test]
fn a_locked_file_fails_the_calls_and_then_works_again() {
    let file = SqliteFile::new("locked");
    let store = file.sqlite().expect("opens").busy_timeout(Duration::from_millis(50));
    let mut parts = Box::new(store).open(NodeId("a".into()), &settings(), 0).expect("opens");
    fill(&mut parts, "/", 2, 0);
    assert!(save(&mut parts, session("p"), 0));
    let other = rusqlite::Connection::open(file.path()).expect("opens");
    other.execute_batch("BEGIN EXCLUSIVE").expect("locks");
    let batch = Batch { entries: vec![event("/", "e")], ..Batch::default() };
    assert!(matches!(parts.writer.commit(&batch, 0), Err(StoreError::Failed(_))));
    assert!(matches!(parts.writer.attach(&ask("p", None), 0), Err(AttachError::Store(_))));
    assert_eq!(parts.reader.page("/", at(0)..at(9), 1000).expect("reads go on").entries.len(), 2);
    other.execute_batch("ROLLBACK").expect("unlocks");
    assert_eq!(parts.writer.commit(&batch, 0).expect("commits").positions, [at(3)]);
}

#[test]
fn a_full_disk_fails_the_commit_and_leaves_no_gap() {
    let file = SqliteFile::new("full");
    let store = file.sqlite().expect("opens");
    let pages: i64 = store.connection().query_row("PRAGMA page_count", [], |row| row.get(0)).expect("counts");
    store.connection().pragma_update(None, "max_page_count", pages + 4).expect("limits");
    let mut parts = Box::new(store).open(NodeId("a".into()), &settings(), 0).expect("opens");
    fill(&mut parts, "/", 1, 0);
    let big = Batch { entries: vec![event("/", &"x".repeat(100_000))], ..Batch::default() };
    assert!(matches!(parts.writer.commit(&big, 0), Err(StoreError::Failed(_))));
    let small = Batch { entries: vec![event("/", "e")], ..Batch::default() };
    assert_eq!(parts.writer.commit(&small, 0).expect("commits").positions, [at(2)]);
    assert_eq!(parts.reader.page("/", at(0)..at(9), 1000).expect("reads go on").entries.len(), 2);
}

/// What a power failure can leave with `Synchronous::Normal`: an earlier state of the file, of the same epoch.
#[test]
fn offsets_beyond_a_file_that_was_rolled_back_are_clamped() {
    let file = SqliteFile::new("rolled-back");
    let mut parts = file.open(0);
    fill(&mut parts, "/", 5, 0);
    assert!(save(&mut parts, session("p"), 0));
    let copy = file.path().with_file_name("copy.db");
    let connection = rusqlite::Connection::open(file.path()).expect("opens");
    connection.execute("VACUUM INTO ?1", [copy.to_str()]).expect("copies");
    drop(connection);
    fill(&mut parts, "/", 5, 0);
    drop(parts);
    let mut parts = Box::new(SqliteStore::open(copy).expect("opens"))
        .open(NodeId("a".into()), &settings(), 0)
        .expect("opens");
    fill(&mut parts, "/", 9, 0);
    let attached = parts.writer.attach(&ask("p", Some("1-10")), 0).expect("attaches");
    assert_eq!((attached.start, attached.tail), (at(5), at(14)));
}

#[test]
fn a_file_in_memory_serves_reader_and_writer() {
    let store = SqliteStore::open(":memory:").expect("opens");
    let mut parts = Box::new(store).open(NodeId("a".into()), &settings(), 0).expect("opens");
    fill(&mut parts, "/", 3, 0);
    assert_eq!(parts.reader.page("/", at(1)..at(3), 1000).expect("a page").entries.len(), 2);
}
