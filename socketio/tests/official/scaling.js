// What one stream carries, and what it costs to go through it: nodes of `socketio_lab` on one Redis, official clients.
//
//     LAB=target/release/examples/socketio_lab node scaling.js
//
// Latency: one sender on the first node emits 200 events a second to a room with one client on each node; from the emit in the
// sender's process to the listener in the same process. Throughput: a burst of 20,000 events of each node at once, until
// every client has all of them.
'use strict';

const { spawn } = require('node:child_process');
const { Scope, ask, events, sleep, until } = require('./lab.js');

const PORT = 7801;
const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))];
const cpu = async (labs) => (await Promise.all(labs.map(async (lab) => {
  const client = await lab.scope.connected(lab.url, { transports: ['websocket'] });
  const { us } = await ask(client, 'cpu');
  client.disconnect();
  return us;
}))).reduce((sum, us) => sum + us, 0);

async function measure(scope, nodes, store) {
  const labs = [];
  for (let i = 0; i < nodes; i++) labs.push(Object.assign(await scope.lab(store, `--stream=scaling-${nodes}`, '--ping-interval=25000', '--ping-timeout=20000', '--queue=67108864'), { scope }));
  const clients = [];
  for (const lab of labs) clients.push(await scope.connected(lab.url, { transports: ['websocket'] }));
  for (const client of clients) await ask(client, 'join', 'r');
  const latencies = [];
  for (const client of clients) client.on('at', (time) => latencies.push(Number(process.hrtime.bigint() - BigInt(time)) / 1e6));
  for (let i = 0; i < 2000; i++) {
    clients[0].emit('say', 'r', 'at', [String(process.hrtime.bigint())]);
    await sleep(5);
  }
  await until(() => latencies.length >= 2000 * nodes, 'all timed events');
  latencies.sort((a, b) => a - b);
  for (const client of clients) client.got.length = 0;
  const count = 20000;
  const before = await cpu(labs);
  const start = Date.now();
  await Promise.all(clients.map((client, i) => new Promise((done) => client.emit('burst', 'r', count, `n${i}`, 0, done))));
  await until(() => clients.every((client) => events(client, 'msg').length >= count * nodes), 'the burst', 60000);
  const took = (Date.now() - start) / 1000;
  const used = await cpu(labs) - before;
  return { nodes, p50: quantile(latencies, 0.5).toFixed(2), p99: quantile(latencies, 0.99).toFixed(2),
    perSecond: Math.round(count * nodes / took), cpuPerReceiver: (used / (count * nodes * nodes)).toFixed(2) };
}

async function main() {
  const redis = spawn('redis-server', ['--port', PORT, '--save', '', '--dir', '/tmp'].map(String), { stdio: 'ignore' });
  await sleep(500);
  const rows = [['memory', 1, '--store=memory'], ...[1, 2, 4].map((n) => ['Redis', n, `--store=redis:redis://127.0.0.1:${PORT}`])];
  for (const [name, nodes, store] of rows) {
    const scope = new Scope();
    try {
      const row = await measure(scope, nodes, store);
      console.log(`| ${name}, ${row.nodes} | ${row.p50} | ${row.p99} | ${row.perSecond.toLocaleString('en')} | ${row.cpuPerReceiver} |`);
    } finally {
      await scope.end();
    }
  }
  redis.kill('SIGTERM');
}
main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
