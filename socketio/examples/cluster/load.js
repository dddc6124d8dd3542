// Starts three nodes, and again if they end; connects clients through haproxy; counts what each gets; serves the page.
'use strict';

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { io } = require('socket.io-client');

const [seconds, count] = process.argv.slice(2).map(Number);
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

function client() {
  // Default options but the cookie, so that polling is sticky.
  const socket = io('http://127.0.0.1:4001', { forceNew: true, withCredentials: true, auth: {} });
  const state = { socket, next: null, last: null };
  socket.on('connect', () => { total[socket.recovered ? 'resumed' : 'fresh'] += 1; });
  socket.on('row', (content, id) => {
    if (state.next !== null && id < state.next) { total.twice += 1; return; }
    if (state.next !== null) total.missing += id - state.next;
    state.next = id + 1;
    // A fresh session gets the rows after this one.
    socket.auth.serverOffset = id;
    const now = Date.now();
    if (state.last !== null) total.longest = Math.max(total.longest, now - state.last);
    state.last = now;
    total.received += 1;
  });
  clients.push(state);
}

// Each row is stored once, whatever happens to the sender's node meanwhile: a key, and the client's own retries.
async function send() {
  const options = { forceNew: true, withCredentials: true, ackTimeout: 2000, retries: 60 };
  const sender = io('http://127.0.0.1:4001', options);
  while (!over) {
    const key = `row-${total.sent}`;
    await new Promise((done) => sender.emit('store', { clientOffset: key, content: key }, done));
    total.sent += 1;
    await sleep(20);
  }
  sender.disconnect();
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
  send();
  const end = Date.now() + seconds * 1000;
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
  clients.forEach(({ socket }) => socket.disconnect());
  server.close();
  const children = nodes.map(({ child }) => child).filter(Boolean);
  children.forEach((child) => child.kill('SIGTERM'));
  setTimeout(() => { children.forEach((child) => child.kill('SIGKILL')); process.exit(0); }, 4000);
}
process.on('SIGTERM', stop);
process.on('SIGINT', stop);
main();
