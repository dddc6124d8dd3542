// Measures `socketio_lab` beside the official server and socketioxide: CPU time of the server for each unit of work, over
// real sockets, the rows of the specification's section 23. Called by `run`, which builds and installs.
//
//   node bench.mjs --lab BINARY [--oxide BINARY] [--raw BINARY] [--rounds 5] [--minutes 60] [--secs 3] [--rows a,b] [--out FILE] [--readme FILE]
//
// A round measures each row once on each server, so that a slow spell of the machine meets all of them. A round that would not end
// within `--minutes` is not begun. `--priority` (root): the server and the client of `replay` that echoes go before all other processes, so that what
// they wait for is each other and not the kernel's scheduler. `--readme` writes the table of medians between the two markers of that file.
//
// The load generator is one process on the other core. It speaks Engine.IO frames itself (`ws` below), so that it costs
// the same whatever the server is; only the server's CPU time is reported, so its own speed does not matter much.
import { spawn } from 'node:child_process';
import { readFileSync, readdirSync, writeFileSync, mkdtempSync, rmSync } from 'node:fs';
import { createConnection } from 'node:net';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import WebSocket from 'ws';

const { values: options } = parseArgs({
  options: {
    lab: { type: 'string' }, oxide: { type: 'string' }, raw: { type: 'string' }, rounds: { type: 'string', default: '5' },
    secs: { type: 'string', default: '3' }, rows: { type: 'string', default: '' }, out: { type: 'string', default: '' },
    minutes: { type: 'string', default: '60' }, priority: { type: 'boolean', default: false }, readme: { type: 'string', default: '' }, ping: { type: 'string', default: '' }, clients: { type: 'string', default: '10000' },
  },
});
const ROUNDS = Number(options.rounds);
const SECS = Number(options.secs);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const quantile = (values, q) => [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * q))];

// Starts a program, with `--priority` before all that have none.
const start = (command, args, stdio) => (options.priority ? spawn('chrt', ['--fifo', '10', command, ...args], { stdio }) : spawn(command, args, { stdio }));

// A server under test.
class Server {
  static async start(command, args) {
    const server = new Server();
    server.child = start(command, args, ['ignore', 'pipe', 'inherit']);
    server.gone = new Promise((done) => server.child.on('exit', done));
    const line = await new Promise((done, fail) => {
      let text = '';
      server.child.stdout.on('data', (data) => {
        text += data;
        if (text.includes('\n')) done(text.split('\n')[0]);
      });
      server.gone.then(() => fail(new Error(`${command} ended`)));
    });
    server.port = JSON.parse(line).port;
    server.pid = server.child.pid;
    return server;
  }

  // Microseconds of CPU of all threads.
  cpu() {
    let nanoseconds = 0;
    for (const task of readdirSync(`/proc/${this.pid}/task`)) nanoseconds += Number(readFileSync(`/proc/${this.pid}/task/${task}/schedstat`, 'utf8').split(' ')[0]);
    return nanoseconds / 1000;
  }

  // Bytes that are this process's own.
  memory() {
    const text = readFileSync(`/proc/${this.pid}/smaps_rollup`, 'utf8');
    return Number(/Private_Dirty:\s+(\d+)/.exec(text)[1]) * 1024;
  }

  async stop() {
    this.child.kill('SIGKILL');
    await this.gone;
  }
}

// One client: raw frames over a WebSocket, pongs included.
class Client {
  static open(port, auth = '', wait = 120000) {
    return new Promise((done, fail) => {
      const client = new Client();
      const timer = setTimeout(() => fail(new Error('no connection in time')), wait);
      client.socket = new WebSocket(`ws://127.0.0.1:${port}/socket.io/?EIO=4&transport=websocket`, { perMessageDeflate: false, skipUTF8Validation: true });
      client.acks = new Map();
      client.next = 0;
      client.events = 0;
      client.socket.on('error', fail);
      client.socket.on('message', (data, binary) => {
        if (binary) { client.onEvent?.(data); return; }
        const text = data.toString('latin1', 0, 3);
        if (text[0] === '2') client.socket.send('3');
        else if (text[0] === '0') client.socket.send(`40${auth}`);
        else if (text.startsWith('40')) {
          Object.assign(client, JSON.parse(data.toString('utf8', 2)));
          clearTimeout(timer);
          done(client);
        } else if (text.startsWith('43')) {
          const end = data.indexOf('[');
          const id = Number(data.toString('latin1', 2, end));
          const ack = client.acks.get(id);
          client.acks.delete(id);
          ack?.(data);
        } else {
          client.events += 1;
          client.onEvent?.(data);
        }
      });
      client.socket.on('close', () => client.onClose?.());
    });
  }

  emit(name, args, ack) {
    const id = ack ? String(this.next) : '';
    if (ack) this.acks.set(this.next++, ack);
    const rest = JSON.stringify(args);
    this.socket.send(`42${id}[${JSON.stringify(name)}${rest.length > 2 ? `,${rest.slice(1)}` : ']'}`);
  }

  ask(name, ...args) {
    return new Promise((done) => this.emit(name, args, (data) => done(JSON.parse(data.toString('utf8').replace(/^\d+/, '')))));
  }

  end() { this.socket.terminate(); }
}

const openAll = async (port, n, auth) => {
  const clients = [];
  for (let left = n; left > 0; left -= 200) clients.push(...await Promise.all(Array.from({ length: Math.min(left, 200) }, () => Client.open(port, auth))));
  return clients;
};
const PAYLOAD = 'x'.repeat(64);

// `--ping PORT`: one echo after the other; for each line of input, the times of those since the last line. A process of its own, so that
// it is not the load generator that keeps it waiting.
if (options.ping) {
  const client = await Client.open(Number(options.ping));
  let times = [];
  process.stdin.on('data', () => {
    console.log(JSON.stringify({ median: median(times), p99: quantile(times, 0.99) }));
    times = [];
  });
  process.stdin.on('end', () => process.exit(0));
  for (;;) {
    const begun = performance.now();
    await client.ask('echo', PAYLOAD);
    times.push(performance.now() - begun);
  }
}

class Pinger {
  constructor(port) {
    this.child = start(process.execPath, [process.argv[1], '--ping', String(port)], ['pipe', 'pipe', 'inherit']);
  }

  // The times since the last call.
  times() {
    const line = new Promise((done) => this.child.stdout.once('data', (data) => done(JSON.parse(data))));
    this.child.stdin.write('\n');
    return line;
  }

  end() { this.child.stdin.end(); }
}

// CPU in us of one echo with ack: 100 clients, `depth` in flight each.
const echo = (depth) => async (server) => {
  const clients = await openAll(server.port, 100);
  let count = 0;
  let running = true;
  const answered = () => { count += 1; };
  for (const client of clients) {
    const again = () => { answered(); if (running) client.emit('echo', [PAYLOAD], again); };
    for (let i = 0; i < depth; i++) client.emit('echo', [PAYLOAD], again);
  }
  await sleep(500);
  const [cpu, from] = [server.cpu(), count];
  await sleep(SECS * 1000);
  const result = (server.cpu() - cpu) / (count - from);
  running = false;
  for (const client of clients) client.end();
  return result;
};

// The same bytes by the raw crate's bench_server, which returns each message: what section 23 compares with.
const rawEcho = (depth) => async (server) => {
  const sockets = await rawSockets(server, '/echo', 100);
  const message = `42100000["echo","${PAYLOAD}"]`;
  let count = 0;
  let running = true;
  for (const socket of sockets) {
    socket.on('message', () => { count += 1; if (running) socket.send(message); });
    for (let i = 0; i < depth; i++) socket.send(message);
  }
  await sleep(500);
  const [cpu, from] = [server.cpu(), count];
  await sleep(SECS * 1000);
  const result = (server.cpu() - cpu) / (count - from);
  running = false;
  for (const socket of sockets) socket.terminate();
  return result;
};

const rawSockets = (server, path, n) => Promise.all(Array.from({ length: n }, () => new Promise((done, fail) => {
  const socket = new WebSocket(`ws://127.0.0.1:${server.port}${path}`, { perMessageDeflate: false, skipUTF8Validation: true });
  socket.on('open', () => done(socket));
  socket.on('error', fail);
})));

// CPU in us for each receiver of an event to a room of 100; fails if one is missing after ten seconds.
async function fanOut(server) {
  const clients = await openAll(server.port, 100);
  const sender = await Client.open(server.port);
  await Promise.all(clients.map((client) => client.ask('join', 'room')));
  let received = 0;
  for (const client of clients) client.onEvent = () => { received += 1; };
  const events = 2000;
  const cpu = server.cpu();
  for (let sent = 0; sent < events; sent += 20) await sender.ask('burst', 'room', 20, PAYLOAD, 0);
  for (let waited = 0; received < events * 100 && waited < 10000; waited += 20) await sleep(20);
  const result = (server.cpu() - cpu) / (events * 100);
  for (const client of [...clients, sender]) client.end();
  if (received !== events * 100) throw new Error(`${received} of ${events * 100} arrived`);
  return result;
}

// The same bytes by the raw crate's `broadcast`.
async function rawFanOut(server) {
  const sockets = await rawSockets(server, '/broadcast', 101);
  let received = 0;
  for (const socket of sockets.slice(1)) socket.on('message', () => { received += 1; });
  const message = `42["msg","${PAYLOAD}",1000,"1-10000"]`;
  const events = 2000;
  const cpu = server.cpu();
  for (let sent = 0; sent < events; sent += 20) {
    // In one write, as the layer's sender is one event.
    sockets[0]._socket.cork();
    for (let i = 0; i < 20; i++) sockets[0].send(message);
    sockets[0]._socket.uncork();
    while (received < (sent + 20) * 100) await sleep(1);
  }
  const result = (server.cpu() - cpu) / (events * 100);
  for (const socket of sockets) socket.terminate();
  return result;
}

// Bytes of the server's own memory for each idle client.
async function idle(server) {
  const warm = await openAll(server.port, 200);
  for (const client of warm) client.end();
  await sleep(500);
  const before = server.memory();
  const n = 5000;
  const clients = await openAll(server.port, n);
  await sleep(1000);
  const result = (server.memory() - before) / n;
  for (const client of clients) client.end();
  return result;
}

// MB replayed in a minute to one client, beside an echo whose times are told.
async function replay(server) {
  const [reader, writer] = await openAll(server.port, 2);
  await reader.ask('join', 'room');
  const { sid, pid } = reader;
  reader.end();
  await sleep(100);
  const size = 2000;
  const events = 50000;
  for (let sent = 0; sent < events; sent += 500) await writer.ask('burst', 'room', 500, 'x'.repeat(size), 0);
  const pinger = new Pinger(server.port);
  await sleep(500);
  await pinger.times();
  await sleep(500);
  const alone = await pinger.times();
  const [cpu, begun] = [server.cpu(), performance.now()];
  const resumed = await Client.open(server.port, JSON.stringify({ pid, offset: '' }));
  if (resumed.sid !== sid) throw new Error('not resumed');
  while (resumed.events < events) await sleep(2);
  const minutes = (performance.now() - begun) / 60000;
  const page = (server.cpu() - cpu) / (events * size / 32768);
  const beside = await pinger.times();
  pinger.end();
  for (const client of [resumed, writer]) client.end();
  const ms = ({ median, p99 }) => `${median.toFixed(2)} ms, p99 ${p99.toFixed(2)}`;
  return { value: events * size / 1e6 / minutes, note: `the echo of another process ${ms(alone)} alone, ${ms(beside)} beside; 32 KiB of the replay take ${page.toFixed(0)} us of CPU, echoes included` };
}

// Durable emits a second, 64 bytes each, from 50 clients; each ack waits for its commit.
async function durable(server) {
  const clients = await openAll(server.port, 50);
  const times = [];
  let count = 0;
  let running = true;
  for (const client of clients) {
    const again = () => {
      const begun = performance.now();
      client.emit('burst', ['nobody', 20, PAYLOAD, 0], () => { times.push(performance.now() - begun); count += 20; if (running) again(); });
    };
    again();
  }
  await sleep(500);
  const [from, begun] = [count, performance.now()];
  times.length = 0;
  await sleep(SECS * 1000);
  const value = (count - from) / ((performance.now() - begun) / 1000);
  running = false;
  await sleep(100);
  for (const client of clients) client.end();
  return { value, note: `p99 of an ack ${quantile(times, 0.99).toFixed(1)} ms` };
}

// CPU in us of one POST and one GET on keep-alive connections: an echo with ack by long-polling.
async function polling(server) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 100 });
  const request = (method, query, body) => new Promise((done, fail) => {
    const call = http.request({ host: '127.0.0.1', port: server.port, path: `/socket.io/?EIO=4&transport=polling${query}`, method, agent, headers: body ? { 'Content-Type': 'text/plain;charset=UTF-8' } : {} }, (answer) => {
      let text = '';
      answer.on('data', (data) => { text += data; });
      answer.on('end', () => done(text));
    });
    call.on('error', fail);
    call.end(body);
  });
  let count = 0;
  let running = true;
  const clients = Array.from({ length: 20 }, async () => {
    const { sid } = JSON.parse((await request('GET', '')).slice(1));
    const query = `&sid=${sid}`;
    await request('POST', query, '40');
    for (let text = ''; !text.includes('40');) text = await request('GET', query);
    for (let id = 0; running; id++) {
      await request('POST', query, `42${id}["echo","${PAYLOAD}"]`);
      for (let text = ''; !text.includes(`43${id}[`);) {
        text = await request('GET', query);
        if (text.split('\x1e').includes('2')) await request('POST', query, '3');
      }
      count += 1;
    }
  });
  await sleep(500);
  const [cpu, from] = [server.cpu(), count];
  await sleep(SECS * 1000);
  const result = (server.cpu() - cpu) / (count - from);
  running = false;
  await Promise.allSettled(clients);
  agent.destroy();
  return result;
}

// CPU in us of one resume when all come back at once.
async function reconnect(server) {
  const n = Math.min(Number(options.clients), 9000);
  const clients = await openAll(server.port, n);
  const sessions = clients.map(({ sid, pid }) => ({ sid, pid }));
  for (const client of clients) client.end();
  await sleep(1000);
  const cpu = server.cpu();
  const back = [];
  let resumed = 0;
  await Promise.all(sessions.map(async ({ sid, pid }) => {
    const client = await Client.open(server.port, JSON.stringify({ pid, offset: '' }));
    back.push(client);
    if (client.sid === sid) resumed += 1;
  }));
  await sleep(200);
  const value = (server.cpu() - cpu) / n;
  for (const client of back) client.end();
  return { value, note: `${resumed} of ${n} resumed` };
}

const RAW = 'raw crate';
const heartbeat = ['--ping-interval=25000', '--ping-timeout=20000'];
const scratch = mkdtempSync(path.join(os.tmpdir(), 'sio-bench-'));
let files = 0;
const SERVERS = {
  'adjourn': () => Server.start(options.lab, ['--port=0', ...heartbeat]),
  'adjourn, no recovery': () => Server.start(options.lab, ['--port=0', '--recovery=0', ...heartbeat]),
  'adjourn, SQLite': () => Server.start(options.lab, ['--port=0', `--store=sqlite:${path.join(scratch, `${files++}.db`)}`, ...heartbeat]),
  'adjourn, large log': () => Server.start(options.lab, ['--port=0', '--log-bytes=400000000', ...heartbeat]),
  'socket.io': () => Server.start('node', ['peer_socket_io.mjs', '0']),
  'socket.io, recovery': () => Server.start('node', ['peer_socket_io.mjs', '0', '--recovery']),
  'socketioxide': () => Server.start(options.oxide, ['0']),
  [RAW]: async () => {
    const port = 20000 + process.pid % 20000;
    const server = new Server();
    server.child = spawn(options.raw, [String(port)], { stdio: 'inherit' });
    server.gone = new Promise((done) => server.child.on('exit', done));
    Object.assign(server, { port, pid: server.child.pid });
    for (let up = false; !up; await sleep(20)) up = await new Promise((done) => { const probe = createConnection(port, '127.0.0.1', () => { probe.destroy(); done(true); }); probe.on('error', () => done(false)); });
    return server;
  },
};
const EVERY = ['adjourn', 'adjourn, no recovery', 'socketioxide', 'socket.io'];
const ROWS = {
  'echo-16': { what: 'echo with ack, 100 clients, 64 B, 16 in flight: CPU', unit: 'us', run: echo(16), raw: rawEcho(16), servers: [...EVERY, RAW] },
  'echo-1': { what: 'the same, one in flight: CPU', unit: 'us', run: echo(1), raw: rawEcho(1), servers: [...EVERY, RAW] },
  'fan-out': { what: '2,000 events to a room of 100: CPU for each receiver', unit: 'us', run: fanOut, raw: rawFanOut, servers: [...EVERY, 'socket.io, recovery', RAW] },
  'polling': { what: 'long-polling, POST and GET: CPU', unit: 'us', run: polling, servers: ['adjourn', 'socketioxide', 'socket.io'] },
  'idle': { what: 'an idle client: memory', unit: 'B', run: idle, servers: EVERY },
  'reconnect': { what: 'all reconnect at once: CPU for each resume', unit: 'us', run: reconnect, servers: ['adjourn', 'adjourn, SQLite'] },
  'durable': { what: 'durable emits', unit: 'a second', run: durable, servers: ['adjourn', 'adjourn, SQLite'] },
  'replay': { what: 'replay to one client', unit: 'MB a minute', run: replay, servers: ['adjourn, large log', 'adjourn, SQLite'] },
};

// What the table of the README has in its columns, by the name of the server.
const COLUMNS = {
  'here': ['adjourn', 'adjourn, large log'],
  'without recovery': ['adjourn, no recovery'],
  'on SQLite': ['adjourn, SQLite'],
  'the same bytes by `adjourn` alone': [RAW],
  'socketioxide': ['socketioxide'],
  'socket.io': ['socket.io'],
};

const format = (value) => (value >= 1000 ? Math.round(value).toLocaleString('en') : value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2));

// All medians as a table, and what else was noted, as lines below it.
function table(results, rounds) {
  const columns = Object.keys(COLUMNS);
  const lines = [`| | ${columns.join(' | ')} |`, `|---|${'---|'.repeat(columns.length)}`];
  const notes = [];
  for (const { what, unit, medians, notes: ofRow } of Object.values(results)) {
    const cells = columns.map((column) => COLUMNS[column].map((server) => medians[server]).find((value) => value !== undefined));
    lines.push(`| ${what}, ${unit} | ${cells.map((value) => (value === undefined ? '' : format(value))).join(' | ')} |`);
    for (const [server, note] of Object.entries(ofRow)) notes.push(`${what}, ${server}: ${note}.`);
  }
  const model = /model name\s*: (.*)/.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? os.arch();
  lines.push('', `Medians of ${rounds} round${rounds === 1 ? '' : 's'} of ${SECS} s, all servers alternating, ${os.cpus().length} processors (${model}), ${new Date().toISOString().slice(0, 10)}.`);
  if (notes.length) lines.push('In the last round:', '', ...notes.map((note) => `* ${note}`));
  return lines.join('\n');
}

function writeTable(file, text) {
  const [begin, end] = ['<!-- figures: begin -->', '<!-- figures: end -->'];
  const page = readFileSync(file, 'utf8');
  const [from, to] = [page.indexOf(begin), page.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`${file} has no markers ${begin} and ${end}`);
  writeFileSync(file, `${page.slice(0, from + begin.length)}\n${text}\n${page.slice(to)}`);
}

const wanted = options.rows ? options.rows.split(',') : Object.keys(ROWS);
for (const name of wanted) if (!ROWS[name]) throw new Error(`no row ${name}: ${Object.keys(ROWS).join(', ')}`);
const binaries = { 'socketioxide': options.oxide, [RAW]: options.raw };
const results = {};
for (const name of wanted) {
  const servers = ROWS[name].servers.filter((server) => !(server in binaries) || binaries[server]);
  results[name] = { what: ROWS[name].what, unit: ROWS[name].unit, medians: {}, values: Object.fromEntries(servers.map((server) => [server, []])), notes: {} };
}

async function measure(name, server) {
  const { run, raw } = ROWS[name];
  const { values, notes } = results[name];
  const process = await SERVERS[server]();
  try {
    const result = await (server === RAW ? raw : run)(process);
    values[server].push(result.value ?? result);
    if (result.note) notes[server] = result.note;
  } catch (error) {
    notes[server] = `failed: ${error.message}`;
  }
  await process.stop();
}

const begun = performance.now();
const minutes = () => (performance.now() - begun) / 60000;
let rounds = 0;
for (let longest = 0; rounds < ROUNDS && (rounds === 0 || minutes() + longest <= Number(options.minutes)); rounds++) {
  const before = minutes();
  for (const name of wanted) for (const server of Object.keys(results[name].values)) await measure(name, server);
  longest = Math.max(longest, minutes() - before);
  console.error(`round ${rounds + 1}: ${(minutes() - before).toFixed(1)} minutes`);
}
for (const { what, unit, medians, values, notes } of Object.values(results)) {
  for (const [server, all] of Object.entries(values)) if (all.length) medians[server] = median(all);
  console.log(`${what} [${unit}]: ${Object.entries(values).map(([server, all]) => `${server} ${all.length ? format(medians[server]) : '-'}${notes[server] ? ` (${notes[server]})` : ''}`).join(' · ')}`);
}
rmSync(scratch, { recursive: true, force: true });
if (options.out) writeFileSync(options.out, JSON.stringify({ rounds, secs: SECS, results }, null, 1));
if (options.readme) writeTable(options.readme, table(results, rounds));
process.exit(0);
