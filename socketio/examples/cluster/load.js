// Starts three nodes, and again if they end; connects clients through haproxy; counts what each gets; serves the page.
'use strict';

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { monitorEventLoopDelay } = require('node:perf_hooks');
const { io } = require('socket.io-client');

const [seconds, count] = process.argv.slice(2, 4).map(Number);
const rolling = process.argv[4] === 'rolling';
// All clients are one process: more than that and it is the clients that are measured.
const rowsASecond = Math.min(50, 10000 / count);
const turns = monitorEventLoopDelay({ resolution: 5 });
const PORTS = [4011, 4012, 4013];
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
let over = false;

// ---- nodes

const nodes = PORTS.map((port) => ({ port, starts: 0, pid: null, stats: null }));

function start(node) {
  if (over) return;
  const args = [`--port=${node.port}`, '--store=redis:redis://127.0.0.1:4020', '--stream=cluster',
    '--ping-interval=5000', '--ping-timeout=4000', '--on-connect-store-down=wait:5000'];
  const child = spawn(process.env.LAB, args, { stdio: 'ignore' });
  Object.assign(node, { child, pid: child.pid, starts: node.starts + 1 });
  child.on('error', () => {});
  child.on('close', () => { node.pid = null; node.stats = null; setTimeout(start, 3000, node); });
}

async function watch() {
  while (!over) {
    for (const node of nodes) {
      try { node.stats = await (await fetch(`http://127.0.0.1:${node.port}/stats`, { signal: AbortSignal.timeout(900) })).json(); } catch { node.stats = null; }
    }
    await sleep(500);
  }
}

// ---- clients: rows are numbered by the store, so each sees what it misses

const total = { received: 0, missing: 0, twice: 0, resumed: 0, fresh: 0, sent: 0, longest: 0 };
const clients = [];
// One for each time that a client was without a connection: milliseconds from its end.
const absences = [];
// When the first client had a row, by its number; `longest` is how much later another one had it.
const firstAt = [];
let longest = null;

function client() {
  // Default options but the cookie, so that polling is sticky.
  const socket = io('http://127.0.0.1:4001', { forceNew: true, withCredentials: true, auth: {} });
  const state = { socket, next: null, absence: null };
  socket.on('disconnect', (reason) => {
    state.absence = { reason, at: Date.now(), attempts: [], errors: [] };
  });
  socket.io.on('reconnect_attempt', () => state.absence?.attempts.push(Date.now() - state.absence.at));
  socket.io.on('reconnect_error', (error) => state.absence?.errors.push(error.context?.status ?? error.message));
  socket.on('connect', () => {
    total[socket.recovered ? 'resumed' : 'fresh'] += 1;
    if (!state.absence) return;
    state.absence.back = Date.now() - state.absence.at;
    absences.push(state.absence);
  });
  socket.on('row', (content, id) => {
    if (state.next !== null && id < state.next) { total.twice += 1; return; }
    if (state.next !== null) total.missing += id - state.next;
    state.next = id + 1;
    // A fresh session gets the rows after this one.
    socket.auth.serverOffset = id;
    const now = Date.now();
    firstAt[id] ??= now;
    if (now - firstAt[id] > total.longest) {
      total.longest = now - firstAt[id];
      longest = { ms: total.longest, ...state.absence };
    }
    state.absence = null;
    total.received += 1;
  });
  clients.push(state);
}

// One on each node, past haproxy: a node that is stopped holds up its own alone. Each row is stored once, whatever happens to the
// sender's node meanwhile: a key, and the client's own retries.
async function send(port) {
  const options = { forceNew: true, ackTimeout: 2000, retries: 60 };
  const sender = io(`http://127.0.0.1:${port}`, options);
  for (let i = 0; !over; i++) {
    const key = `row-${port}-${i}`;
    if (sender.connected) {
      await new Promise((done) => sender.emit('store', { clientOffset: key, content: key }, done));
      total.sent += 1;
    }
    await sleep(1000 * PORTS.length / rowsASecond);
  }
  sender.disconnect();
}

// ---- rolling: SIGTERM of one node after the other, when all clients are connected

async function untilAllConnected() {
  while (!over && !(nodes.every(({ stats }) => stats) && clients.every(({ socket }) => socket.connected))) await sleep(100);
}

async function roll() {
  for (const node of nodes) {
    await untilAllConnected();
    await sleep(5000);
    if (over) return;
    const { starts } = node;
    node.child.kill('SIGTERM');
    while (!over && node.starts === starts) await sleep(50);
  }
  await untilAllConnected();
  await sleep(5000);
}

function report() {
  const sorted = absences.map(({ back }) => back).sort((a, b) => a - b);
  const at = (part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];
  const attempts = {};
  for (const { attempts: list } of absences) attempts[list.length] = (attempts[list.length] ?? 0) + 1;
  const errors = {};
  for (const text of absences.flatMap(({ errors: list }) => list)) errors[text] = (errors[text] ?? 0) + 1;
  return { absences: sorted.length, back_ms: { p50: at(0.5), p99: at(0.99), max: at(1) }, attempts, errors, longest,
    longest_turn_of_the_clients_process_ms: Math.round(turns.max / 1e6) };
}

// ---- the page

let rate = 0;
const state = () => JSON.stringify({
  nodes: nodes.map(({ port, pid, starts, stats }) => ({
    port, pid, starts,
    connections: stats && stats.connections_polling + stats.connections_websocket,
    resumes: stats && stats.resumes, events: stats && stats.events_out, rss: stats && stats.rss, nodes: stats && stats.nodes,
  })),
  clients: clients.filter(({ socket }) => socket.connected).length, of: count, rate, ...total,
});
const page = fs.readFileSync(path.join(__dirname, 'page.html'));
const server = http.createServer((request, response) => {
  const isState = request.url === '/state';
  response.setHeader('Content-Type', isState ? 'application/json' : 'text/html; charset=utf-8');
  response.end(isState ? state() : page);
});

async function main() {
  nodes.forEach(start);
  server.listen(4000, '127.0.0.1');
  watch();
  await sleep(1500);
  for (let i = 0; i < count; i++) { client(); await sleep(10); }
  PORTS.forEach(send);
  const end = Date.now() + seconds * 1000;
  if (rolling) roll().then(stop);
  turns.enable();
  for (let before = 0; Date.now() < end && !over; before = total.received) {
    await sleep(1000);
    rate = total.received - before;
  }
  stop();
}

function stop() {
  if (over) return;
  over = true;
  console.log(state());
  console.log(JSON.stringify(report()));
  clients.forEach(({ socket }) => socket.disconnect());
  server.close();
  const children = nodes.map(({ child }) => child).filter(Boolean);
  children.forEach((child) => child.kill('SIGTERM'));
  setTimeout(() => { children.forEach((child) => child.kill('SIGKILL')); process.exit(0); }, 4000);
}
process.on('SIGTERM', stop);
process.on('SIGINT', stop);
main();
