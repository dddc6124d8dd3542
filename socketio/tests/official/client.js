// The official client, unmodified, against `socketio_lab`: each way to connect does everything. Sections are those of
// the layer's specification.
'use strict';

const assert = require('node:assert/strict');
const { ask, connection, events, main, sleep, test, until, OFFSET } = require('./lab.js');

const WAYS = { 'default options': {}, 'websocket alone': { transports: ['websocket'] }, 'polling alone': { transports: ['polling'] } };

for (const [way, options] of Object.entries(WAYS)) {
  const each = (name, run, ...args) => test(`${name} (${way})`, async (scope) => {
    const lab = await scope.lab('--log', ...args);
    await run(scope, lab, (extra = {}, path = '/') => scope.connected(lab.url + path, { ...options, ...extra }), lab);
  });

  each('7: a client connects and is told who it is', async (scope, lab, connect) => {
    const client = await connect();
    const me = await ask(client, 'whoami');
    assert.equal(me.id, client.id);
    assert.equal(me.recovered, false);
    assert.deepEqual(me.rooms, [client.id]);
    assert.deepEqual(me.data, {});
    assert.match(client.id, /^[A-Za-z0-9_-]{20}$/);
  });

  each('6: echo returns every argument unchanged', async (scope, lab, connect) => {
    const client = await connect();
    const args = [1, 'two', null, true, { three: [3.5, 1e21] }, '\u2028 é 漢 🦀', ['']];
    assert.deepEqual(await new Promise((done) => client.emit('echo', ...args, (...back) => done(back))), args);
    assert.deepEqual(await new Promise((done) => client.emit('echo', (...back) => done(back))), []);
  });

  each('6: a lone surrogate passes', async (scope, lab, connect) => {
    const client = await connect();
    assert.equal(await ask(client, 'echo', '\ud800'), '\ud800');
  });

  each('9: binary arguments pass at any depth, out and in', async (scope, lab, connect) => {
    const client = await connect();
    const bytes = Buffer.from(Array.from({ length: 300 }, (_, i) => i & 255));
    const back = await new Promise((done) => client.emit('echo', bytes, { deep: [{ er: bytes.subarray(5, 9) }] }, Buffer.alloc(0), (...args) => done(args)));
    assert.deepEqual(Buffer.from(back[0]), bytes);
    assert.deepEqual(Buffer.from(back[1].deep[0].er), bytes.subarray(5, 9));
    assert.equal(back[2].length, 0);
  });

  each('10: a burst to a room arrives whole, once, in order, on all its members', async (scope, lab, connect) => {
    const [a, b, c] = [await connect(), await connect(), await connect()];
    assert.deepEqual((await ask(a, 'join', 'r')).sort(), [a.id, 'r'].sort());
    await ask(b, 'join', 'r');
    assert.equal(await ask(c, 'burst', 'r', 500, 'tag', 0), 500);
    for (const client of [a, b]) {
      await until(() => events(client, 'msg').length >= 500, 'the burst');
      assert.deepEqual(events(client, 'msg'), Array.from({ length: 500 }, (_, i) => ['tag', i]));
    }
    assert.equal(events(c, 'msg').length, 0);
    assert.match(a.got.at(-1).at(-1), OFFSET);
  });

  each('10: after leave nothing of the room arrives', async (scope, lab, connect) => {
    const [a, b] = [await connect(), await connect()];
    await ask(a, 'join', 'r');
    assert.deepEqual(await ask(a, 'leave', 'r'), [a.id]);
    await ask(b, 'say', 'r', 'x', [1]);
    await ask(a, 'echo', 1);
    await sleep(50);
    assert.equal(events(a, 'x').length, 0);
  });

  each('9: binary in a broadcast', async (scope, lab, connect) => {
    const [a, b] = [await connect(), await connect()];
    await ask(a, 'join', 'r');
    assert.equal(await ask(b, 'say', 'r', 'x', [Buffer.from('abc'), 'q']), true);
    await until(() => events(a, 'x').length === 1, 'the event');
    assert.deepEqual(Buffer.from(events(a, 'x')[0][0]).toString(), 'abc');
  });

  each('9: ask gathers the answers of a room', async (scope, lab, connect) => {
    const [a, b, c] = [await connect(), await connect(), await connect()];
    await ask(a, 'join', 'r');
    await ask(b, 'join', 'r');
    a.on('q', (n, answer) => answer(`a${n}`));
    b.on('q', (n, answer) => answer(`b${n}`));
    const [all, answers] = await new Promise((done) => c.emit('ask', 'r', 'q', [7], 3000, (...back) => done(back)));
    assert.equal(all, true);
    assert.deepEqual(answers.sort(), ['a7', 'b7']);
    const [late, some] = await new Promise((done) => { b.off('q'); c.emit('ask', 'r', 'q', [8], 300, (...back) => done(back)); });
    assert.equal(late, false);
    assert.deepEqual(some, ['a8']);
    assert.deepEqual(await new Promise((done) => c.emit('ask', 'nobody', 'q', [8], 300, (...back) => done(back))), [true, []]);
  });

  each('6: an unknown event and one with wrong types are not acked', async (scope, lab, connect) => {
    const client = await connect();
    let acked = 0;
    client.emit('no such event', () => { acked += 1; });
    client.emit('join', 5, () => { acked += 1; });
    client.emit('burst', 'r', 'x', 1, () => { acked += 1; });
    await ask(client, 'echo', 1);
    assert.equal(acked, 0);
  });

  each('11: kick(false): io server disconnect, no reconnection', async (scope, lab, connect) => {
    const [a, b] = [await connect(), await connect()];
    const id = a.id;
    a.emit('kick', false);
    await until(() => a.reasons.length === 1, 'the disconnect');
    assert.equal(a.reasons[0].reason, 'io server disconnect');
    assert.equal(await ask(b, 'reason-of', id), 'server namespace disconnect');
    await sleep(300);
    assert.equal(a.connects.length, 1);
    a.connect();
    await connection(a, 2);
    assert.notEqual(a.id, id);
    assert.equal(a.recovered, false);
  });

  each('11: kick(true) ends every namespace and the connection', async (scope, lab, connect) => {
    const [a, b] = [await connect(), await connect()];
    const plain = a.io.socket('/plain');
    const reasons = [];
    // It connects by itself; `plain.connect()` would send a second CONNECT.
    plain.on('disconnect', (reason) => reasons.push(reason));
    await until(() => plain.connected, 'the second namespace');
    const ids = [a.id, plain.id];
    a.emit('kick', true);
    await until(() => a.reasons.length === 1 && reasons.length === 1, 'both disconnects');
    assert.deepEqual([a.reasons[0].reason, reasons[0]], ['io server disconnect', 'io server disconnect']);
    for (const id of ids) assert.equal(await ask(b, 'reason-of', id), 'server namespace disconnect');
  });

  each('11: client disconnect: client namespace disconnect', async (scope, lab, connect) => {
    const [a, b] = [await connect(), await connect()];
    const id = a.id;
    a.disconnect();
    for (let reason = null; reason !== 'client namespace disconnect';) {
      reason = await ask(b, 'reason-of', id);
      assert.ok(reason === null || reason === 'client namespace disconnect', reason);
    }
    a.connect();
    await connection(a, 2);
    assert.notEqual(a.id, id);
    assert.equal(a.recovered, false);
  });

  each('11: engine-close: transport close at the client, forced close here, resumed', async (scope, lab, connect) => {
    const [a, b] = [await connect(), await connect()];
    const id = a.id;
    a.emit('engine-close');
    await connection(a, 2);
    assert.equal(a.reasons[0].reason, 'transport close');
    assert.equal(a.id, id);
    assert.equal(a.recovered, true);
    assert.equal(await ask(b, 'reason-of', id), 'forced close');
  });

  each('11: warn-then-kick: the warning comes before the end', async (scope, lab, connect) => {
    const client = await connect();
    client.emit('warn-then-kick', 'bye', 50);
    await until(() => client.reasons.length === 1, 'the disconnect');
    assert.deepEqual(events(client, 'warning'), [['bye']]);
    assert.equal(client.reasons[0].reason, 'io server disconnect');
  });

  each('11: kick-room', async (scope, lab, connect) => {
    const [a, b, c] = [await connect(), await connect(), await connect()];
    await ask(a, 'join', 'r');
    await ask(b, 'join', 'r');
    assert.equal(await ask(c, 'kick-room', 'r', false), true);
    await until(() => a.reasons.length + b.reasons.length === 2, 'both disconnects');
    assert.equal(a.reasons[0].reason, 'io server disconnect');
    assert.equal(c.connected, true);
  });

  each('7: namespaces', async (scope, lab, connect) => {
    const plain = await connect({}, '/plain');
    assert.equal(await ask(plain, 'echo', 1), 1);
    const made = await connect({}, '/dyn-17');
    assert.equal(await ask(made, 'echo', 2), 2);
    for (const name of ['/nope', '/dyn-', '/dyn-1x']) {
      const refused = scope.client(lab.url + name, options);
      await until(() => refused.error, 'the refusal');
      assert.equal(refused.error.message, 'Invalid namespace');
    }
  });

  each('7: a middleware refuses with message and data, and accepts by auth and by query', async (scope, lab, connect) => {
    const refused = scope.client(`${lab.url}/auth`, options);
    await until(() => refused.error, 'the refusal');
    assert.equal(refused.error.message, 'unauthorized');
    assert.deepEqual(refused.error.data, { code: 401 });
    const byAuth = await connect({ auth: { token: 'good' } }, '/auth');
    assert.equal(await ask(byAuth, 'echo', 1), 1);
    const byQuery = await connect({ query: { token: 'good' } }, '/auth');
    assert.equal(await ask(byQuery, 'echo', 1), 1);
  });

  each('5: a client that only listens lives by its pongs', async (scope, lab, connect) => {
    const client = await connect();
    await sleep(1200);
    assert.equal(client.connected, true);
    assert.equal(client.reasons.length, 0);
  }, '--ping-interval=200', '--ping-timeout=150');

  each('11: a handler that panics costs its ack alone', async (scope, lab, connect) => {
    const client = await connect();
    client.emit('panic', () => assert.fail('acked'));
    assert.equal(await ask(client, 'echo', 1), 1);
  });

  each('19: shutdown is within its bound and says that it drained', async (scope, lab, connect) => {
    const client = await connect();
    const begun = Date.now();
    client.emit('shutdown');
    const { code } = await lab.exited;
    assert.equal(code, 0);
    assert.ok(Date.now() - begun < 1000 + 2500, 'in time');
    assert.equal(lab.lines.at(-1).event, 'drained');
    await until(() => client.reasons.length === 1, 'the disconnect');
    assert.equal(client.reasons[0].reason, 'transport close');
  });

  // Sections 13 and 15.
  each('13: cut; events meanwhile; back: same id, rooms, data, each event once and in order', async (scope, lab, connect) => {
    const [a, b] = [await connect(), await connect()];
    const id = a.id;
    await ask(a, 'join', 'r');
    assert.equal(await ask(a, 'set-data', { name: 'n' }), true);
    await ask(b, 'burst', 'r', 3, 'before', 0);
    await until(() => events(a, 'msg').length === 3, 'the events before');
    a.io.reconnectionDelay(300);
    a.emit('cut');
    await until(() => a.reasons.length === 1, 'the cut');
    assert.ok(['transport close', 'transport error'].includes(a.reasons[0].reason));
    await ask(b, 'burst', 'r', 5, 'away', 0);
    await connection(a, 2);
    await ask(b, 'burst', 'r', 2, 'after', 0);
    await until(() => events(a, 'msg').length >= 10, 'all events');
    assert.deepEqual(events(a, 'msg').map(([tag, i]) => `${tag}${i}`), ['before0', 'before1', 'before2', 'away0', 'away1', 'away2', 'away3', 'away4', 'after0', 'after1']);
    assert.equal(a.id, id);
    assert.equal(a.recovered, true);
    const me = await ask(a, 'whoami');
    assert.equal(me.recovered, true);
    assert.deepEqual(me.rooms.sort(), [id, 'r'].sort());
    assert.deepEqual(me.data, { name: 'n' });
  });

  each('13: no event received before the cut', async (scope, lab, connect) => {
    const [a, b] = [await connect(), await connect()];
    await ask(a, 'join', 'r');
    a.io.reconnectionDelay(200);
    a.emit('cut');
    await until(() => a.reasons.length === 1, 'the cut');
    await ask(b, 'burst', 'r', 4, 't', 0);
    await connection(a, 2);
    assert.equal(a.recovered, true);
    await until(() => events(a, 'msg').length >= 4, 'the events');
    assert.deepEqual(events(a, 'msg').map(([, i]) => i), [0, 1, 2, 3]);
  });

  each('13: volatile event ending in a string, or without arguments', async (scope, lab, connect) => {
    const [a, b] = [await connect(), await connect()];
    await ask(a, 'join', 'r');
    await ask(b, 'burst', 'r', 2, 't', 0);
    await until(() => {
      b.emit('say-volatile', 'r', 'typing', []);
      b.emit('say-volatile', 'r', 'typing', ['someone']);
      return events(a, 'typing').length > 3;
    }, 'the volatile events');
    a.io.reconnectionDelay(200);
    a.emit('cut');
    await until(() => a.reasons.length === 1, 'the cut');
    await ask(b, 'burst', 'r', 2, 'u', 0);
    await connection(a, 2);
    assert.equal(a.recovered, true);
    await until(() => events(a, 'msg').length >= 4, 'the events');
    assert.deepEqual(events(a, 'msg').map(([tag, i]) => tag + i), ['t0', 't1', 'u0', 'u1']);
  });

  each('13: cut under steady traffic, many times: nothing twice, nothing missed', async (scope, lab, connect) => {
    const [a, b] = [await connect(), await connect()];
    const id = a.id;
    await ask(a, 'join', 'r');
    const count = 400;
    const done = new Promise((end) => b.emit('burst', 'r', count, 't', 5, end));
    for (let n = 1; n <= 8; n++) {
      await sleep(120);
      a.emit('cut');
      await connection(a, n + 1);
      assert.equal(a.recovered, true);
    }
    await done;
    await until(() => events(a, 'msg').length >= count, 'all events');
    assert.deepEqual(events(a, 'msg').map(([, i]) => i), Array.from({ length: count }, (_, i) => i));
    assert.equal(a.id, id);
  });

  each('13: away longer than the window: fresh', async (scope, lab, connect) => {
    const a = await connect();
    const id = a.id;
    a.io.reconnectionDelay(1500);
    a.io.reconnectionDelayMax(1500);
    a.io.randomizationFactor(0);
    a.emit('cut');
    await connection(a, 2);
    assert.equal(a.recovered, false);
    assert.notEqual(a.id, id);
    const info = await ask(a, 'resume-info');
    assert.ok(['Expired', 'UnknownSession', 'expired', 'unknown_session'].includes(info.outcome), info.outcome);
  }, '--recovery=600');

  each('13: log trimmed beyond the start: fresh, and told', async (scope, lab, connect) => {
    const [a, b] = [await connect(), await connect()];
    await ask(a, 'join', 'r');
    await ask(b, 'burst', 'r', 2, 't', 0);
    a.io.reconnectionDelay(2500);
    a.io.reconnectionDelayMax(2500);
    a.io.randomizationFactor(0);
    a.emit('cut');
    await until(() => a.reasons.length === 1, 'the cut');
    await ask(b, 'burst', 'r', 3000, 'x', 0);
    await connection(a, 2);
    assert.equal(a.recovered, false);
    await until(() => events(a, 'gap').length === 1, 'the failed event');
  }, '--log-entries=100', '--failed-event=gap');

  each('15: store: once, whatever is repeated', async (scope, lab, connect) => {
    const client = await connect({ auth: { serverOffset: 0 } });
    const first = await ask(client, 'store', { clientOffset: 'k1', content: 'c' });
    assert.deepEqual(first, { id: 1, duplicate: false, attempt: 1 });
    assert.deepEqual(await ask(client, 'store', { clientOffset: 'k1', content: 'c' }), { id: 1, duplicate: true, attempt: 2 });
    assert.deepEqual(await ask(client, 'rows', 'k'), [{ id: 1, client_offset: 'k1', content: 'c' }]);
    await until(() => events(client, 'row').length >= 1, 'the row');
    assert.deepEqual(events(client, 'row'), [['c', 1]]);
  });

  for (const fault of ['cut-before-store', 'cut-after-store', 'late-ack', 'ignore']) {
    each(`15: retries of the client and ${fault}: stored once, acked once`, async (scope, lab, connect) => {
      const client = await connect({ auth: { serverOffset: 0 }, ackTimeout: 400, retries: 5 });
      const answer = await client.emitWithAck('store', { clientOffset: `k-${fault}`, content: 'c', fault, lateMs: 900 });
      assert.equal(answer.id, 1);
      assert.equal((await ask(client, 'rows', 'k')).length, 1);
      await until(() => events(client, 'row').length >= 1, 'the row');
      await sleep(100);
      assert.deepEqual(events(client, 'row'), [['c', 1]]);
    });
  }
}

main();
