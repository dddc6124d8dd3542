// The official client with default options against `socketio_lab`, through networks and processes that fail: what
// sections 13, 14, 15, 17 and 19 of the layer's specification require.
'use strict';

const assert = require('node:assert/strict');
const { ask, connection, events, main, sleep, test, until } = require('./lab.js');

const numbers = (n) => Array.from({ length: n }, (_, i) => i);

test('13: the network resets the connection again and again: nothing lost, nothing twice', async (scope) => {
  const lab = await scope.lab();
  const proxy = await scope.proxy(lab.port);
  const a = await scope.connected(proxy.url);
  const b = await scope.connected(lab.url);
  const id = a.id;
  await ask(a, 'join', 'r');
  const done = new Promise((end) => b.emit('burst', 'r', 300, 't', 5, end));
  for (let n = 1; n <= 6; n++) {
    await sleep(150);
    proxy.cut();
    await connection(a, n + 1);
    assert.equal(a.recovered, true);
    assert.equal(a.id, id);
  }
  await done;
  await until(() => events(a, 'msg').length >= 300, 'all events');
  assert.deepEqual(events(a, 'msg').map(([, i]) => i), numbers(300));
});

test('13: half open: the client is back before the server noticed; the old connection is fenced', async (scope) => {
  const lab = await scope.lab('--log', '--ping-interval=20000', '--ping-timeout=20000');
  const proxy = await scope.proxy(lab.port);
  const a = await scope.connected(proxy.url);
  const b = await scope.connected(lab.url);
  const id = a.id;
  await ask(a, 'join', 'r');
  await ask(b, 'burst', 'r', 2, 't', 0);
  proxy.halve();
  await connection(a, 2);
  assert.equal(a.recovered, true);
  assert.equal(a.id, id);
  assert.equal(await ask(b, 'reason-of', id), 'session taken over');
  await ask(b, 'burst', 'r', 2, 'u', 0);
  await until(() => events(a, 'msg').length >= 4, 'the events');
  // The older connection dies after the resume: the new socket keeps everything.
  for (const half of proxy.halves) half.destroy();
  await sleep(200);
  await ask(b, 'burst', 'r', 2, 'v', 0);
  await until(() => events(a, 'msg').length >= 6, 'the events');
  assert.deepEqual(events(a, 'msg').map(([tag, i]) => tag + i), ['t0', 't1', 'u0', 'u1', 'v0', 'v1']);
  assert.equal(lab.lines.filter((line) => line.event === 'disconnected' && line.id === id).length, 1);
});

test('13: forged or strange pid and offset: fresh, no error', async (scope) => {
  const lab = await scope.lab();
  for (const auth of [{ pid: 'x'.repeat(20), offset: '1-1' }, { pid: 5, offset: {} }, { pid: 'nonsense' }, { pid: '', offset: '' }]) {
    const client = await scope.connected(lab.url, { auth });
    assert.equal(client.recovered, false);
    assert.equal(await ask(client, 'echo', 1), 1);
  }
});

for (const [name, signal] of [['SIGKILL', 'SIGKILL'], ['SIGTERM', 'SIGTERM']]) {
  test(`14: ${name} and restart on the same file: the same session, each event once`, async (scope) => {
    const file = scope.file('lab.db');
    let lab = await scope.lab(`--store=sqlite:${file}`, '--grace=300');
    const proxy = await scope.proxy(lab.port);
    const [a, b] = [await scope.connected(proxy.url), await scope.connected(proxy.url)];
    const ids = [a.id, b.id];
    await ask(a, 'join', 'r');
    await ask(a, 'set-data', { kept: 1 });
    for (let round = 0; round < 3; round++) {
      assert.equal(await ask(b, 'burst', 'r', 20, `t${round}-`, 0), 20);
      proxy.refuses = true;
      await lab.kill(signal);
      await until(() => !a.connected && !b.connected, 'both disconnects');
      lab = await scope.lab(`--store=sqlite:${file}`, '--grace=300');
      proxy.target = lab.port;
      proxy.refuses = false;
      await connection(a, round + 2);
      await connection(b, round + 2);
      assert.deepEqual([a.recovered, b.recovered], [true, true]);
      assert.deepEqual([a.id, b.id], ids);
    }
    assert.equal(await ask(b, 'burst', 'r', 1, 'end', 0), 1);
    await until(() => events(a, 'msg').length >= 61, 'all events');
    assert.deepEqual(events(a, 'msg').map(([tag, i]) => tag + i), [...[0, 1, 2].flatMap((round) => numbers(20).map((i) => `t${round}-${i}`)), 'end0']);
    assert.deepEqual((await ask(a, 'whoami')).data, { kept: 1 });
  });
}

test('15: stored once across a SIGKILL, by the client\'s own retries', async (scope) => {
  const file = scope.file('lab.db');
  let lab = await scope.lab(`--store=sqlite:${file}`);
  const proxy = await scope.proxy(lab.port);
  const client = await scope.connected(proxy.url, { auth: { serverOffset: 0 }, ackTimeout: 500, retries: 20 });
  const answers = numbers(60).map((i) => client.emitWithAck('store', { clientOffset: `k${i}`, content: `c${i}` }));
  for (let round = 0; round < 2; round++) {
    await sleep(30);
    proxy.refuses = true;
    await lab.kill('SIGKILL');
    lab = await scope.lab(`--store=sqlite:${file}`);
    proxy.target = lab.port;
    proxy.refuses = false;
    await connection(client, round + 2);
  }
  const ids = (await Promise.all(answers)).map((answer) => answer.id);
  const rows = await ask(client, 'rows', 'k');
  assert.deepEqual(rows.map((row) => row.client_offset), numbers(60).map((i) => `k${i}`));
  assert.deepEqual(ids, rows.map((row) => row.id));
  await until(() => events(client, 'row').length >= 60, 'the rows');
  assert.deepEqual(events(client, 'row').map(([, id]) => id), rows.map((row) => row.id));
});

test('15: server delivery by the application\'s offset, after the window too', async (scope) => {
  const file = scope.file('lab.db');
  const lab = await scope.lab(`--store=sqlite:${file}`, '--recovery=500');
  const writer = await scope.connected(lab.url, { auth: { serverOffset: 0 } });
  const reader = scope.client(lab.url, { auth: { serverOffset: 0 } });
  reader.on('row', (content, id) => { reader.auth.serverOffset = id; });
  await connection(reader, 1);
  for (let i = 0; i < 5; i++) await ask(writer, 'store', { clientOffset: `a${i}`, content: `a${i}` });
  await until(() => events(reader, 'row').length >= 5, 'the first rows');
  reader.io.reconnectionDelay(1500);
  reader.io.reconnectionDelayMax(1500);
  reader.io.randomizationFactor(0);
  reader.emit('cut');
  await until(() => reader.reasons.length === 1, 'the cut');
  for (let i = 5; i < 10; i++) await ask(writer, 'store', { clientOffset: `a${i}`, content: `a${i}` });
  await connection(reader, 2);
  assert.equal(reader.recovered, false);
  await ask(writer, 'store', { clientOffset: 'a10', content: 'a10' });
  await until(() => events(reader, 'row').length >= 11, 'all rows');
  await sleep(100);
  assert.deepEqual(events(reader, 'row').map(([content]) => content), numbers(11).map((i) => `a${i}`));
});

test('13: a slow reader is closed by 1013, resumes, and misses nothing', async (scope) => {
  const lab = await scope.lab('--log', '--queue=300000', '--ping-timeout=20000', '--replay-page=65536');
  const proxy = await scope.proxy(lab.port);
  const a = await scope.connected(proxy.url, { transports: ['websocket'] });
  const b = await scope.connected(lab.url);
  const id = a.id;
  await ask(a, 'join', 'r');
  proxy.freeze();
  const big = 'x'.repeat(20000);
  const count = 1200;
  for (let i = 0; i < count; i++) await ask(b, 'say', 'r', 'big', [i, big]);
  await until(() => lab.lines.some((line) => line.event === 'disconnected' && line.id === id), 'the end');
  assert.equal(lab.lines.find((line) => line.event === 'disconnected' && line.id === id).reason, 'slow consumer');
  proxy.thaw();
  await connection(a, 2);
  assert.equal(a.recovered, true);
  await until(() => events(a, 'big').length >= count, 'all events', 60000);
  assert.deepEqual(events(a, 'big').map(([i]) => i), numbers(count));
});

test('17: a store that another process locks: durable emits are refused, the rest goes on, and it comes back', async (scope) => {
  const file = scope.file('lab.db');
  const lab = await scope.lab('--log', `--store=sqlite:${file}`);
  const [a, b] = [await scope.connected(lab.url), await scope.connected(lab.url)];
  await ask(a, 'join', 'r');
  const locker = await scope.program('python3', ['-c', `
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN EXCLUSIVE")
print('{"event":"locked"}', flush=True)
time.sleep(4)
db.execute("COMMIT")
`, file]);
  await locker.line('locked');
  let acked = false;
  b.emit('burst', 'r', 1, 'lost', 0, () => { acked = true; });
  for (let i = 0; i < 50; i++) {
    assert.equal(await ask(b, 'echo', i), i);
    b.emit('say-volatile', 'r', 'v', [i]);
    await sleep(20);
  }
  await until(() => events(a, 'v').length === 50, 'the volatile events');
  assert.equal(acked, false);
  await locker.exited;
  await until(() => lab.lines.some((line) => line.event === 'store' && line.state === 'up') || acked, 'the store is back');
  assert.equal(await ask(b, 'burst', 'r', 1, 'back', 0), 1);
  await until(() => events(a, 'msg').some(([tag]) => tag === 'back'), 'the event');
});

test('19: SIGTERM ends within its bound whatever the clients do', async (scope) => {
  const lab = await scope.lab('--grace=500', '--ping-timeout=60000');
  const proxy = await scope.proxy(lab.port);
  await scope.connected(proxy.url, { transports: ['websocket'] });
  await scope.connected(lab.url, { transports: ['polling'] });
  proxy.freeze();
  const begun = Date.now();
  lab.child.kill('SIGTERM');
  const { code } = await lab.exited;
  assert.equal(code, 0);
  assert.ok(Date.now() - begun < 500 + 2500, 'in time');
});

test('4: the upgrade happens under traffic: nothing lost, doubled or out of order', async (scope) => {
  const lab = await scope.lab();
  const b = await scope.connected(lab.url);
  const all = numbers(8).map(() => scope.client(lab.url));
  await Promise.all(all.map(async (client) => {
    client.on('connect', () => {
      client.emit('join', `r-${client.id}`);
      for (let i = 0; i < 100; i++) client.emit('echo', i, (back) => { (client.back ??= []).push(back); });
    });
    await connection(client, 1);
    b.emit('burst', client.id, 300, 't', 1);
  }));
  for (const client of all) {
    await until(() => events(client, 'msg').length >= 300 && client.back?.length >= 100, 'the burst');
    assert.deepEqual(events(client, 'msg').map(([, i]) => i), numbers(300));
    assert.deepEqual(client.back, numbers(100));
    await until(() => client.io.engine.transport.name === 'websocket', 'the upgrade');
    assert.equal(client.reasons.length, 0);
  }
});

test('13: several namespaces on one connection resume each by itself', async (scope) => {
  const lab = await scope.lab();
  const a = await scope.connected(lab.url);
  const plain = a.io.socket('/plain');
  plain.got = []; plain.connects = []; plain.reasons = [];
  plain.onAny((...event) => plain.got.push(event));
  plain.on('connect', () => plain.connects.push(plain.id));
  plain.connect();
  await connection(plain, 1);
  const [b, c] = [await scope.connected(lab.url), await scope.connected(`${lab.url}/plain`)];
  await ask(a, 'join', 'r');
  await ask(plain, 'join', 'r');
  a.io.reconnectionDelay(200);
  const ids = [a.id, plain.id];
  a.emit('cut');
  await until(() => !a.connected, 'the cut');
  await ask(b, 'burst', 'r', 3, 'root', 0);
  await ask(c, 'burst', 'r', 3, 'plain', 0);
  await connection(a, 2);
  await connection(plain, 2);
  assert.deepEqual([a.id, plain.id], ids);
  await until(() => events(a, 'msg').length >= 3 && events(plain, 'msg').length >= 3, 'the events');
  assert.deepEqual(events(a, 'msg').map(([tag]) => tag), ['root', 'root', 'root']);
  assert.deepEqual(events(plain, 'msg').map(([tag]) => tag), ['plain', 'plain', 'plain']);
});

main();
