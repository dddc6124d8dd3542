// The official client with default options against several nodes of `socketio_lab` on one Redis (specification 15 to 17).
// RUNS: how many times two nodes with roaming clients are run; KILLS: how many times the node of a client is killed;
// LINKS: how many times a link to Redis is bad.
'use strict';

const assert = require('node:assert/strict');
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { ask, connection, events, main, sleep, test, until } = require('./lab.js');

const RUNS = Number(process.env.RUNS ?? 10);
const KILLS = Number(process.env.KILLS ?? 3);
const LINKS = Number(process.env.LINKS ?? 12);
// Valkey, if that is what is tested.
const SERVER = process.env.REDIS_SERVER ?? 'redis-server';
const numbers = (n) => Array.from({ length: n }, (_, i) => i);

// A Redis server of a test's own, on a port of its own.
class Redis {
  static async start(scope, ...args) {
    const redis = new Redis();
    redis.folder = fs.mkdtempSync(path.join(os.tmpdir(), 'sio-redis-'));
    redis.args = args;
    scope.ends.push(() => redis.stop());
    // A port that was free may be another test's by now.
    for (let n = 0; n < 5; n++) {
      redis.port = await freePort();
      redis.url = `redis://127.0.0.1:${redis.port}`;
      if (await redis.run()) return redis;
    }
    throw new Error(`${SERVER} does not start`);
  }

  async run() {
    const args = ['--port', this.port, '--bind', '127.0.0.1', '--save', '', '--dir', this.folder, ...this.args];
    this.child = spawn(SERVER, args.map(String), { stdio: 'ignore' });
    let ended = false;
    this.exited = new Promise((done) => { this.child.on('close', done); this.child.on('error', done); });
    this.exited.then(() => { ended = true; });
    for (let n = 0; n < 1000 && !ended; n++) {
      if (await this.ready()) return true;
      await sleep(10);
    }
    return false;
  }

  // It answers, and no other server does.
  async ready() {
    try { return (await this.ask('INFO server')).includes(`process_id:${this.child.pid}\r`); } catch { return false; }
  }

  // One inline command over a connection of its own.
  ask(command) {
    return new Promise((done, fail) => {
      const socket = net.connect(this.port, '127.0.0.1', () => socket.write(`${command}\r\n`));
      socket.once('data', (data) => { socket.destroy(); done(data.toString()); });
      socket.once('error', fail);
      socket.setTimeout(2000, () => { socket.destroy(); fail(new Error(`no answer to ${command}`)); });
    });
  }

  signal(name) { this.child.kill(name); }

  async kill() {
    this.child.kill('SIGKILL');
    await this.exited;
  }

  async stop() {
    await this.kill();
    fs.rmSync(this.folder, { recursive: true, force: true });
  }
}

function freePort() {
  return new Promise((done) => {
    const server = net.createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}

// Three Sentinels that watch a server under the name `t`, and its URL by them.
async function sentinels(scope, master) {
  const ports = [];
  for (let i = 0; i < 3; i++) {
    const sentinel = new Redis();
    sentinel.folder = fs.mkdtempSync(path.join(os.tmpdir(), 'sio-sentinel-'));
    sentinel.port = await freePort();
    const file = path.join(sentinel.folder, 'sentinel.conf');
    fs.writeFileSync(file, `port ${sentinel.port}\nbind 127.0.0.1\ndir ${sentinel.folder}\nsentinel monitor t 127.0.0.1 ${master.port} 2\n`
      + 'sentinel down-after-milliseconds t 700\nsentinel failover-timeout t 5000\n');
    sentinel.child = spawn(SERVER, [file, '--sentinel'], { stdio: 'ignore' });
    sentinel.exited = new Promise((done) => { sentinel.child.on('close', done); sentinel.child.on('error', done); });
    scope.ends.push(() => sentinel.stop());
    ports.push(sentinel);
  }
  const knows = async (sentinel) => (await sentinel.ask('SENTINEL CKQUORUM t').catch(() => '')).includes('OK 3')
    && (await sentinel.ask('SENTINEL REPLICAS t')).length > 10;
  for (let n = 0; n < 1000; n++) {
    if ((await Promise.all(ports.map(knows))).every(Boolean)) break;
    await sleep(20);
  }
  return { url: `redis+sentinel://${ports.map(({ port }) => `127.0.0.1:${port}`).join(',')}/t` };
}

async function replicaOf(scope, port) {
  const replica = await Redis.start(scope, '--repl-diskless-sync-delay', 0);
  await replica.ask(`REPLICAOF 127.0.0.1 ${port}`);
  for (let n = 0; n < 500 && !(await replica.ask('INFO replication')).includes('master_link_status:up'); n++) await sleep(20);
  return replica;
}

// A heartbeat that a loaded machine does not miss: what these tests end, they end otherwise. Its timeout is below that of any wait:
// a client whose WebSocket ends between `3probe` and the last answer to its GETs polls no more, and finds its end by that alone.
const nodeArgs = (redis, ...args) => [`--store=redis:${redis.url}`, '--stream=t', '--ping-interval=2000', '--ping-timeout=8000', ...args];
const node = (scope, redis, ...args) => scope.lab(...nodeArgs(redis, ...args));

const stats = async (lab) => (await fetch(`${lab.url}/stats`)).json();

// Each node has heard the heartbeats of all of them, which come once a second.
async function acquainted(labs) {
  for (const lab of labs) {
    for (let n = 0; n < 150 && (await stats(lab)).nodes < labs.length; n++) await sleep(100);
    assert.equal((await stats(lab)).nodes, labs.length);
  }
}

// Each client's events as the texts that their senders numbered.
const texts = (client) => events(client, 'msg').map(([tag, i]) => `${tag}${i}`);

// Nothing missing, nothing twice, each sender's events in their order, one order on all clients.
function assertOneOrder(clients, sent) {
  const first = texts(clients[0]);
  assert.equal(new Set(first).size, first.length, `twice: ${first.filter((text, i) => first.indexOf(text) !== i)}`);
  assert.deepEqual([...first].sort(), [...sent].sort());
  for (const client of clients.slice(1)) assert.deepEqual(texts(client), first);
}

test('one node on Redis: resumed, nothing lost, nothing twice', async (scope) => {
  const redis = await Redis.start(scope);
  const lab = await node(scope, redis);
  const proxy = await scope.proxy(lab.port);
  const [a, b] = [await scope.connected(proxy.url), await scope.connected(lab.url)];
  const id = a.id;
  await ask(a, 'join', 'r');
  const done = ask(b, 'burst', 'r', 100, 't', 5);
  for (let n = 1; n <= 3; n++) {
    await sleep(100);
    proxy.cut();
    await connection(a, n + 1);
    assert.deepEqual([a.recovered, a.id], [true, id]);
  }
  await done;
  await until(() => texts(a).length >= 100, 'all events');
  assert.deepEqual(texts(a), numbers(100).map((i) => `t${i}`));
});

async function roamingRun(scope, redis, run, given) {
  const labs = given ?? [await node(scope, redis), await node(scope, redis)];
  const proxies = [await scope.proxy(labs[0].port), await scope.proxy(labs[1].port)];
  const senders = [await scope.connected(labs[0].url), await scope.connected(labs[1].url)];
  const roamers = [await scope.connected(proxies[0].url), await scope.connected(proxies[1].url)];
  const ids = roamers.map((roamer) => roamer.id);
  const room = `r${run}`;
  for (const client of [...senders, ...roamers]) await ask(client, 'join', room);
  const count = 120;
  const done = senders.map((sender, i) => ask(sender, 'burst', room, count, `s${i}-`, 4));
  done.forEach((burst) => burst.catch(() => {})); // a test that has failed does not wait for them
  for (let roam = 1; roam <= 4; roam++) {
    await sleep(60 + ((run * 37 + roam * 53) % 70));
    // Each proxy leads to the other node from now on.
    proxies.forEach((proxy, i) => { proxy.target = labs[(i + roam) % 2].port; proxy.cut(); });
    for (const roamer of roamers) await connection(roamer, roam + 1);
    roamers.forEach((roamer, i) => assert.deepEqual([roamer.recovered, roamer.id], [true, ids[i]]));
  }
  await Promise.all(done);
  const sent = [0, 1].flatMap((i) => numbers(count).map((n) => `s${i}-${n}`));
  const all = [...senders, ...roamers];
  await until(() => all.every((client) => texts(client).length >= sent.length), 'all events').catch(() => {});
  assertOneOrder(all, sent);
}

for (let run = 0; run < RUNS; run++) {
  test(`roam ${run}: two nodes, traffic from both, 4 roams`, async (scope) => {
    await roamingRun(scope, await Redis.start(scope), run);
  });
}

for (let run = 0; run < KILLS; run++) {
  test(`kill ${run}: SIGKILL of the node that a client is on`, async (scope) => {
    const redis = await Redis.start(scope);
    const labs = [await node(scope, redis), await node(scope, redis)];
    const proxy = await scope.proxy(labs[0].port);
    const sender = await scope.connected(labs[1].url);
    const client = await scope.connected(proxy.url);
    const id = client.id;
    for (const one of [sender, client]) await ask(one, 'join', 'r');
    await ask(client, 'set-data', { kept: run });
    const done = ask(sender, 'burst', 'r', 150, 't', 4);
    done.catch(() => {});
    await sleep(50 + ((run * 41) % 200));
    proxy.target = labs[1].port;
    await labs[0].kill('SIGKILL');
    proxy.cut();
    await connection(client, 2);
    assert.deepEqual([client.recovered, client.id], [true, id]);
    await done;
    await until(() => texts(client).length >= 150, 'all events').catch(() => {});
    assertOneOrder([sender, client], numbers(150).map((i) => `t${i}`));
    assert.deepEqual((await ask(client, 'whoami')).data, { kept: run });
  });
}

test('a session that is resumed on another node is taken from the old one', async (scope) => {
  const redis = await Redis.start(scope);
  const labs = [await node(scope, redis, '--ping-interval=20000'), await node(scope, redis)];
  const proxy = await scope.proxy(labs[0].port);
  const a = await scope.connected(proxy.url);
  const b = await scope.connected(labs[0].url);
  const id = a.id;
  await ask(a, 'join', 'r');
  await ask(b, 'burst', 'r', 2, 't', 0);
  await until(() => texts(a).length >= 2, 'the first events');
  proxy.target = labs[1].port;
  proxy.halve();
  await connection(a, 2);
  assert.deepEqual([a.recovered, a.id], [true, id]);
  await until(() => a.connected, 'the client');
  let reason;
  for (let n = 0; n < 200 && reason !== 'session taken over'; n++) reason = await ask(b, 'reason-of', id);
  assert.equal(reason, 'session taken over');
  await ask(b, 'burst', 'r', 2, 'u', 0);
  await until(() => texts(a).length >= 4, 'the events');
  assert.deepEqual(texts(a), ['t0', 't1', 'u0', 'u1']);
});

test('stored once, by retries over two nodes; rows are one sequence', async (scope) => {
  const redis = await Redis.start(scope);
  const labs = [await node(scope, redis), await node(scope, redis)];
  const clients = [];
  for (const lab of labs) clients.push(await scope.connected(lab.url, { auth: { serverOffset: 0 } }));
  const keys = numbers(30).map((i) => `k${i}`);
  const answers = await Promise.all(keys.flatMap((key) => clients.map((client) =>
    ask(client, 'store', { clientOffset: key, content: key }))));
  const firsts = answers.filter((answer) => !answer.duplicate);
  assert.equal(firsts.length, 30);
  keys.forEach((_, i) => assert.equal(answers[2 * i].id, answers[2 * i + 1].id));
  await until(() => clients.every((client) => events(client, 'row').length >= 30), 'the rows');
  for (const client of clients) assert.deepEqual(events(client, 'row').map(([, id]) => id), numbers(30).map((i) => i + 1));
  const late = await scope.connected(labs[1].url, { auth: { serverOffset: 10 } });
  await until(() => events(late, 'row').length >= 20, 'the rows of a late client');
  assert.deepEqual(events(late, 'row').map(([, id]) => id), numbers(20).map((i) => i + 11));
});

test('rooms, fetch, broadcasts with acks, volatile events and disconnects reach all nodes', async (scope) => {
  const redis = await Redis.start(scope);
  const labs = [await node(scope, redis), await node(scope, redis)];
  const a = await scope.connected(labs[0].url);
  const b = await scope.connected(labs[1].url);
  const c = await scope.connected(labs[1].url);
  await acquainted(labs);
  for (const client of [a, b]) await ask(client, 'join', 'r');
  assert.deepEqual((await ask(a, 'sockets', 'r')).sort(), [a.id, b.id].sort());
  assert.deepEqual((await ask(c, 'sockets', 'r')).sort(), [a.id, b.id].sort());
  a.on('question', (x, answer) => answer(`a${x}`));
  b.on('question', (x, answer) => answer(`b${x}`));
  for (const asker of [a, b, c]) {
    const [complete, answers] = await new Promise((done) => asker.emit('ask', 'r', 'question', [7], 3000, (...all) => done(all)));
    assert.equal(complete, true);
    assert.deepEqual([...answers].sort(), ['a7', 'b7']);
  }
  assert.equal(await ask(a, 'say-volatile', 'r', 'msg', ['v', 0]), true);
  await until(() => texts(b).includes('v0'), 'the volatile event');
  await ask(c, 'kick-room', 'r', false);
  await until(() => !a.connected && !b.connected, 'the end of both');
  assert.ok(c.connected);
  assert.deepEqual(await ask(c, 'sockets', 'r'), []);
});

test('an admin page sees what happens on another node', async (scope) => {
  const redis = await Redis.start(scope);
  const labs = [await node(scope, redis, '--admin=secret'), await node(scope, redis, '--admin=secret')];
  const before = await scope.connected(labs[1].url);
  await acquainted(labs);
  const page = await scope.connected(`${labs[0].url}/admin`, { auth: { username: 'admin', password: 'secret' } });
  await until(() => events(page, 'all_sockets').some(([sockets]) => sockets.some(({ id }) => id === before.id)), 'all sockets');
  const client = await scope.connected(labs[1].url);
  const { id } = client;
  await ask(client, 'echo', 'hello');
  await ask(client, 'join', 'lobby');
  client.disconnect();
  const of = (name) => events(page, name).filter((args) => args.some((arg) => arg === id || arg?.id === id));
  await until(() => of('socket_disconnected').length > 0, 'the end');
  assert.equal(of('socket_connected').length, 1);
  assert.ok(of('event_received').some(([nsp, , args]) => nsp === '/' && args[0] === 'echo' && args[1] === 'hello'));
  assert.ok(of('room_joined').some(([, room]) => room === 'lobby'));
  assert.equal(of('socket_disconnected')[0][2], 'client namespace disconnect');
});

test('a dead node delays a request once, and is named', async (scope) => {
  const redis = await Redis.start(scope);
  const labs = [await node(scope, redis), await node(scope, redis)];
  const a = await scope.connected(labs[0].url);
  const b = await scope.connected(labs[1].url);
  await acquainted(labs);
  for (const client of [a, b]) await ask(client, 'join', 'r');
  await labs[1].kill('SIGKILL');
  const start = Date.now();
  assert.deepEqual(await ask(a, 'sockets', 'r'), [a.id]);
  const first = Date.now() - start;
  assert.ok(first < 6500, `${first} ms`);
  await sleep(Math.max(0, 6500 - first));
  const again = Date.now();
  assert.deepEqual(await ask(a, 'sockets', 'r'), [a.id]);
  assert.ok(Date.now() - again < 1000);
});

// ---- faults of the store (specification 17): docs/several_nodes.md says what is seen.

// Emits through `say` every few milliseconds until told to stop; notes which were acked.
function traffic(sender, tag) {
  const sent = { acked: [], tried: 0, going: true };
  sent.done = (async () => {
    for (let i = 0; sent.going; i++) {
      sent.tried = i + 1;
      const number = i;
      sender.timeout(8000).emit('say', 'r', 'msg', [tag, number], (error) => { if (!error) sent.acked.push(`${tag}${number}`); });
      await sleep(5);
    }
  })();
  return sent;
}

// What was acked has come, once, in one order, to all of them; what was not acked may have come, once.
function assertAcked(clients, sent) {
  for (const client of clients) {
    const got = texts(client);
    assert.equal(new Set(got).size, got.length, 'twice');
    const missing = sent.acked.filter((text) => !got.includes(text));
    assert.deepEqual(missing, []);
    assert.deepEqual(got, texts(clients[0]));
  }
}

async function faultRun(scope, args, fault, { redisArgs = [] } = {}) {
  const redis = await Redis.start(scope, ...redisArgs);
  const labs = [await node(scope, redis, '--log', ...args), await node(scope, redis, '--log', ...args)];
  const proxy = await scope.proxy(labs[0].port);
  const [a, b] = [await scope.connected(proxy.url), await scope.connected(labs[1].url)];
  for (const client of [a, b]) await ask(client, 'join', 'r');
  const sent = traffic(b, 't');
  await sleep(300);
  await fault({ redis, labs, proxy, a, b, sent });
  const before = sent.acked.length;
  await until(() => sent.acked.length > before + 20, 'acks after the fault');
  sent.going = false;
  await sent.done;
  await sleep(500);
  return { redis, labs, a, b, sent };
}

test('fault: Redis stopped for 3 s (SIGSTOP): declared down, others untouched, recovers', async (scope) => {
  const { a, b, sent, labs } = await faultRun(scope, [], async ({ redis, labs, a, b }) => {
    redis.signal('SIGSTOP');
    await until(() => labs[1].lines.some((line) => line.event === 'store' && line.state === 'down'), 'down', 4000);
    assert.equal(await ask(a, 'echo', 1), 1);
    const pings = Date.now();
    await sleep(1500);
    assert.ok(a.connected && b.connected, `connected after ${Date.now() - pings} ms`);
    redis.signal('SIGCONT');
    await until(() => labs[1].lines.some((line) => line.event === 'store' && line.state === 'up'), 'up');
  });
  assertAcked([a, b], sent);
  assert.equal((await stats(labs[0])).fell_behind, 0);
});

test('fault: a client comes while Redis is stopped: fresh and without pid after its patience', async (scope) => {
  const redis = await Redis.start(scope);
  const lab = await node(scope, redis, '--on-connect-store-down=wait:1000');
  await scope.connected(lab.url);
  redis.signal('SIGSTOP');
  const start = Date.now();
  const late = await scope.connected(lab.url);
  assert.ok(Date.now() - start < 4000);
  assert.equal(late.io.opts.auth, undefined);
  assert.equal(late._pid, undefined);
  assert.equal(await ask(late, 'echo', 2), 2);
  redis.signal('SIGCONT');
});

test('fault: CLIENT PAUSE for 2.5 s', async (scope) => {
  const { a, b, sent } = await faultRun(scope, [], async ({ redis }) => {
    await redis.ask('CLIENT PAUSE 2500 ALL');
    await sleep(2600);
  });
  assertAcked([a, b], sent);
});

test('fault: Redis killed and started again with its data (AOF, always)', async (scope) => {
  const redisArgs = ['--appendonly', 'yes', '--appendfsync', 'always'];
  const { a, b, sent, labs } = await faultRun(scope, [], async ({ redis }) => {
    await redis.kill();
    await sleep(700);
    await redis.run();
  }, { redisArgs });
  assertAcked([a, b], sent);
  assert.equal((await stats(labs[0])).fell_behind, 0);
  assert.equal(a.connects.length, 1);
});

test('fault: the same with queued emits and a client that resumes meanwhile', async (scope) => {
  const redisArgs = ['--appendonly', 'yes', '--appendfsync', 'always'];
  const { a, b, sent } = await faultRun(scope, ['--on-store-down=queue', '--on-connect-store-down=wait:9000'],
    async ({ redis, proxy, labs, a }) => {
      await redis.kill();
      proxy.target = labs[1].port;
      proxy.cut();
      await sleep(700);
      await redis.run();
      await connection(a, 2);
      assert.equal(a.recovered, true);
    }, { redisArgs });
  assertAcked([a, b], sent);
});

test('fault: Redis killed and started again without data: sockets are cut, fresh sessions, told', async (scope) => {
  const { a, b, sent, labs } = await faultRun(scope, ['--failed-event=lost'], async ({ redis, a, b }) => {
    await redis.kill();
    await sleep(300);
    await redis.run();
    await connection(a, 2);
    await connection(b, 2);
    assert.deepEqual([a.recovered, b.recovered], [false, false]);
    await until(() => events(a, 'lost').length > 0, 'failed_event');
    for (const client of [a, b]) await ask(client, 'join', 'r');
  });
  assert.ok((await stats(labs[0])).fell_behind >= 1);
  const got = texts(b);
  assert.equal(new Set(got).size, got.length, 'twice');
});

test('fault: FLUSHALL under traffic', async (scope) => {
  const { b } = await faultRun(scope, [], async ({ redis, a, b }) => {
    await redis.ask('FLUSHALL');
    await connection(a, 2);
    await connection(b, 2);
    for (const client of [a, b]) await ask(client, 'join', 'r');
  });
  const got = texts(b);
  assert.equal(new Set(got).size, got.length, 'twice');
});

test('fault: Redis is full (maxmemory, noeviction): emits fail, nothing hangs; room again, they pass', async (scope) => {
  const { a, b, sent } = await faultRun(scope, [], async ({ redis, b, sent }) => {
    await redis.ask('CONFIG SET maxmemory 1');
    await sleep(200);
    const before = sent.acked.length;
    await sleep(500);
    assert.ok(sent.acked.length <= before + 2, 'acked while full');
    assert.equal(await ask(b, 'echo', 3), 3);
    await redis.ask('CONFIG SET maxmemory 0');
  }, { redisArgs: ['--maxmemory-policy', 'noeviction'] });
  assertAcked([a, b], sent);
});

test('fault: a node that is stopped while the log is trimmed cuts its sockets; they resume or are told', async (scope) => {
  const redis = await Redis.start(scope);
  const args = ['--log-entries=50', '--failed-event=lost', '--ping-interval=20000'];
  const labs = [await node(scope, redis, ...args), await node(scope, redis, ...args)];
  const [a, b] = [await scope.connected(labs[0].url), await scope.connected(labs[1].url)];
  for (const client of [a, b]) await ask(client, 'join', 'r');
  labs[0].child.kill('SIGSTOP');
  await ask(b, 'burst', 'r', 2000, 't', 0);
  await sleep(1500);
  labs[0].child.kill('SIGCONT');
  await connection(a, 2);
  assert.equal(a.recovered, false);
  await until(() => events(a, 'lost').length > 0, 'failed_event');
  assert.equal((await stats(labs[0])).fell_behind, 1);
  const got = texts(a);
  assert.equal(new Set(got).size, got.length, 'twice');
});

test('fault: failover to a replica that lacks the tail: resumed in a new epoch, nothing twice', async (scope) => {
  const master = await Redis.start(scope);
  const link = await scope.proxy(master.port);
  const replica = await replicaOf(scope, new URL(link.url).port);
  const front = await scope.proxy(master.port);
  const redis = { url: front.url.replace('http', 'redis') };
  const labs = [await node(scope, redis), await node(scope, redis)];
  const [a, b] = [await scope.connected(labs[0].url), await scope.connected(labs[1].url)];
  const ids = [a.id, b.id];
  for (const client of [a, b]) await ask(client, 'join', 'r');
  await ask(b, 'burst', 'r', 20, 'kept', 0);
  await until(() => texts(a).length === 20 && texts(b).length === 20, 'the first events');
  await master.ask('WAIT 1 1000');
  link.refuses = true;
  link.cut();
  await ask(b, 'burst', 'r', 10, 'lost', 0);
  await until(() => texts(a).length === 30 && texts(b).length === 30, 'the tail');
  await master.kill();
  await replica.ask('REPLICAOF NO ONE');
  front.target = replica.port;
  front.cut();
  await connection(a, 2);
  await connection(b, 2);
  assert.deepEqual([a.recovered, b.recovered, a.id, b.id], [true, true, ...ids]);
  await ask(b, 'burst', 'r', 20, 'new', 0);
  await until(() => texts(a).length >= 50 && texts(b).length >= 50, 'the events of the new primary');
  for (const client of [a, b]) {
    assert.deepEqual(texts(client), [...numbers(20).map((i) => `kept${i}`), ...numbers(10).map((i) => `lost${i}`), ...numbers(20).map((i) => `new${i}`)]);
  }
});

test('Redis Cluster, three masters: two nodes, traffic from both, 4 roams; other namespaces on other masters', async (scope) => {
  const masters = [];
  for (let i = 0; i < 3; i++) {
    masters.push(await Redis.start(scope, '--cluster-enabled', 'yes', '--cluster-config-file', 'nodes.conf'));
  }
  const addresses = masters.map(({ port }) => `127.0.0.1:${port}`);
  const create = spawn('redis-cli', ['--cluster', 'create', ...addresses, '--cluster-yes'], { stdio: 'ignore' });
  assert.equal(await new Promise((done) => create.on('close', done)), 0);
  for (let n = 0; n < 500; n++) {
    const states = await Promise.all(masters.map((master) => master.ask('CLUSTER INFO')));
    if (states.every((state) => state.includes('cluster_state:ok'))) break;
    await sleep(20);
  }
  await roamingRun(scope, masters[0], 0);
  const lab = await node(scope, masters[1]);
  for (const name of ['/plain', '/dyn-1', '/dyn-2']) {
    const client = await scope.connected(lab.url + name);
    assert.equal(await ask(client, 'echo', name), name);
    assert.ok(client._pid);
  }
});

// Connections that are slow now and then, are reset in the middle of a call or an answer, go silent, and cannot be made.
async function badLink(link, n) {
  link.delay = [0, 30, 150][n % 3];
  await sleep(150);
  if (n % 4 === 3) link.refuses = true;
  if (n % 5 === 4) link.freeze();
  await sleep(200);
  link.refuses = false;
  link.delay = 0;
  link.cut();
}

test('fault: links between nodes and Redis that delay, cut, go silent and refuse', async (scope) => {
  const redis = await Redis.start(scope);
  const links = [await scope.proxy(redis.port), await scope.proxy(redis.port)];
  const args = ['--log', '--on-store-down=queue', '--on-connect-store-down=wait:14000'];
  const labs = [];
  for (const link of links) labs.push(await node(scope, { url: link.url.replace('http', 'redis') }, ...args));
  const proxy = await scope.proxy(labs[0].port);
  const [a, b, c] = [await scope.connected(proxy.url), await scope.connected(labs[1].url), await scope.connected(labs[0].url)];
  for (const client of [a, b, c]) await ask(client, 'join', 'r');
  const sent = [traffic(b, 't'), traffic(c, 'u')];
  const ids = [a.id, b.id, c.id];
  for (let n = 0; n < LINKS; n++) {
    await badLink(links[n % 2], n);
    if (n % 6 !== 5) continue;
    // It roams while one of the links is bad.
    proxy.target = labs[(n / 6 + 1 | 0) % 2].port;
    proxy.cut();
    await connection(a, a.connects.length + 1);
  }
  const before = sent.map(({ acked }) => acked.length);
  await until(() => sent.every(({ acked }, i) => acked.length > before[i] + 20), 'acks afterwards');
  for (const one of sent) one.going = false;
  for (const one of sent) await one.done;
  const have = (client) => { const got = new Set(texts(client)); return sent.every(({ acked }) => acked.every((text) => got.has(text))); };
  await until(() => [a, b, c].every(have), 'all that was acked').catch(() => {});
  for (const client of [a, b, c]) assert.ok(client.connects.slice(1).every(({ recovered }) => recovered), `resumed: ${JSON.stringify([client.connects, client.reasons])}`);
  assert.deepEqual([a.id, b.id, c.id], ids);
  for (const one of sent) assertAcked([a, b, c], one);
  for (const lab of labs) assert.equal((await stats(lab)).fell_behind, 0);
});

test('clocks: nodes that are an hour and five minutes apart, beside each other and one after the other', async (scope) => {
  const redis = await Redis.start(scope);
  const library = ['/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu'].map((at) => `${at}/faketime/libfaketime.so.1`).find(fs.existsSync);
  assert.ok(library, 'libfaketime is missing');
  const clock = (offset) => ({ LD_PRELOAD: library, FAKETIME: offset, FAKETIME_DONT_FAKE_MONOTONIC: '1' });
  const labs = [];
  for (const offset of ['-5m', '+60m']) labs.push(await scope.lab({ env: clock(offset) }, ...nodeArgs(redis, '--recovery=60000')));
  await acquainted(labs);
  await roamingRun(scope, redis, 0, labs);
  // Deadlines of acks, once keys and windows are the store's.
  const proxy = await scope.proxy(labs[0].port);
  const [a, b] = [await scope.connected(proxy.url), await scope.connected(labs[1].url)];
  for (const client of [a, b]) await ask(client, 'join', 'q');
  let asked = 0;
  a.on('question', (x, answer) => {
    asked += 1;
    if (asked > 1) { answer(x + 1); return; }
    proxy.target = labs[1].port;
    proxy.cut();
  });
  b.on('question', (x, answer) => answer(x + 2));
  const [complete, answers] = await new Promise((done) => b.emit('ask', 'q', 'question', [1], 8000, (...all) => done(all)));
  assert.deepEqual([complete, answers.sort(), asked], [true, [2, 3], 2]);
  const first = await ask(a, 'store', { clientOffset: 'one', content: 'x' });
  const again = await ask(await scope.connected(labs[0].url), 'store', { clientOffset: 'one', content: 'x' });
  assert.deepEqual([first.duplicate, again.duplicate, again.id], [false, true, first.id]);
  // The node behind is killed: its client resumes on the one ahead, within the window by Redis's clock.
  proxy.target = labs[0].port;
  proxy.cut();
  await connection(a, 3);
  proxy.target = labs[1].port;
  await labs[0].kill('SIGKILL');
  proxy.cut();
  await connection(a, 4);
  assert.ok(a.connects.slice(1).every(({ recovered }) => recovered));
});

test('fault: failover by Sentinel: SIGKILL of the primary, which comes back as a replica; then a failover by command', async (scope) => {
  const master = await Redis.start(scope);
  const replica = await replicaOf(scope, master.port);
  const redis = await sentinels(scope, master);
  const args = ['--log', '--on-store-down=queue'];
  const labs = [await node(scope, redis, ...args), await node(scope, redis, ...args)];
  const [a, b] = [await scope.connected(labs[0].url), await scope.connected(labs[1].url)];
  const ids = [a.id, b.id];
  for (const client of [a, b]) await ask(client, 'join', 'r');
  const role = async (server) => (await server.ask('ROLE').catch(() => '')).includes('master');
  const go = async (tag, fault, next) => {
    await ask(b, 'burst', 'r', 20, tag, 0);
    await until(() => [a, b].every((client) => texts(client).includes(`${tag}19`)), 'the events before');
    await fault();
    for (let n = 0; n < 1500 && !(await role(next)); n++) await sleep(20);
    const sent = traffic(b, `${tag}-`);
    await until(() => sent.acked.length > 20, 'acks of the new primary');
    sent.going = false;
    await sent.done;
    await sleep(500);
    assertAcked([a, b], sent);
  };
  await go('killed', async () => {
    await master.ask('WAIT 1 1000');
    await master.kill();
  }, replica);
  await master.run();
  for (let n = 0; n < 1500 && (await role(master) || !(await replica.ask('INFO replication')).includes('state=online')); n++) await sleep(20);
  await go('told', async () => {
    const sentinel = new Redis();
    sentinel.port = Number(/:(\d+)\/t$/.exec(redis.url)[1]);
    for (let n = 0; n < 500 && !(await sentinel.ask('SENTINEL FAILOVER t')).startsWith('+OK'); n++) await sleep(50);
  }, master);
  assert.deepEqual([a.id, b.id], ids);
  for (const client of [a, b]) assert.ok(client.connects.slice(1).every(({ recovered }) => recovered), 'resumed');
});

test('publish: a process that serves nobody; its events come once, also to a session that is away', async (scope) => {
  const redis = await Redis.start(scope);
  const labs = [await node(scope, redis), await node(scope, redis)];
  const proxy = await scope.proxy(labs[0].port);
  const [a, b, c] = [await scope.connected(proxy.url), await scope.connected(labs[1].url), await scope.connected(labs[1].url)];
  for (const client of [a, b]) await ask(client, 'join', 'r');
  const publish = async (...words) => {
    const child = spawn(process.env.PUBLISH, [redis.url, 't', ...words], { stdio: ['ignore', 'pipe', 'inherit'] });
    let out = '';
    child.stdout.on('data', (data) => { out += data; });
    return [await new Promise((done) => child.on('close', done)), out.trim()];
  };
  for (let i = 0; i < 3; i++) assert.match((await publish('/', 'r', 'msg', `["p",${i}]`)).join(' '), /^0 \d+-\d+$/);
  proxy.refuses = true;
  proxy.cut();
  assert.equal((await publish('/', 'r', 'msg', '["p",3]'))[0], 0);
  assert.equal((await publish('/', '', 'msg', '["all",0]'))[0], 0);
  assert.equal((await publish('/', 'r', 'msg', 'no array'))[0], 1);
  assert.equal((await publish('/', 'r'))[0], 2);
  proxy.refuses = false;
  await connection(a, 2);
  assert.equal(a.recovered, true);
  await until(() => [a, b].every((client) => texts(client).length >= 5) && texts(c).length >= 1, 'the events');
  for (const client of [a, b]) assert.deepEqual(texts(client), ['p0', 'p1', 'p2', 'p3', 'all0']);
  assert.deepEqual(texts(c), ['all0']);
});

main(Number(process.env.WIDTH ?? 2));
