CREATE TABLE sio_meta    (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
-- The last position of each earlier epoch.
CREATE TABLE sio_epoch   (nsp TEXT, epoch INTEGER, last INTEGER, PRIMARY KEY (nsp, epoch)) WITHOUT ROWID;
CREATE TABLE sio_log     (nsp TEXT, pos INTEGER, at_ms INTEGER NOT NULL, kind INTEGER NOT NULL, rooms BLOB,
  except_rooms BLOB, packet BLOB, attachments BLOB, ack INTEGER, until_ms INTEGER, PRIMARY KEY (nsp, pos));
CREATE TABLE sio_floor   (nsp TEXT PRIMARY KEY, floor INTEGER NOT NULL, entries INTEGER NOT NULL, bytes INTEGER);
-- away_ms NULL: connected.
CREATE TABLE sio_session (pid TEXT PRIMARY KEY, nsp TEXT NOT NULL, sid TEXT NOT NULL, principal TEXT NOT NULL,
  generation INTEGER NOT NULL, first INTEGER NOT NULL, checkpoint INTEGER NOT NULL, last INTEGER NOT NULL, data BLOB,
  answered BLOB, away_ms INTEGER, earlier BLOB, UNIQUE (nsp, sid)) WITHOUT ROWID;
CREATE TABLE sio_member  (pid TEXT, room TEXT, from_pos INTEGER, to_pos INTEGER,
  PRIMARY KEY (pid, room, from_pos)) WITHOUT ROWID;
-- state 0: running, until at_ms; 1: done at at_ms.
CREATE TABLE sio_once    (scope TEXT, key TEXT, state INTEGER NOT NULL, ack BLOB, at_ms INTEGER NOT NULL,
  PRIMARY KEY (scope, key)) WITHOUT ROWID;
CREATE INDEX sio_away ON sio_session (away_ms) WHERE away_ms IS NOT NULL;
CREATE INDEX sio_ask ON sio_log (nsp, until_ms) WHERE until_ms IS NOT NULL;
CREATE INDEX sio_once_at ON sio_once (at_ms);
