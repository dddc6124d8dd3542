// What one stream carries, and what it costs to go through it: nodes of `socketio_lab` on one Redis, official clients.
//
//     socketio/benches/peers/scaling [--rounds 5] [--count 20000]
//
// which builds and installs; PEER is the official server with its Redis Streams adapter and recovery, beside which it is measured. Medians of the rounds.
// Latency: one sender on the first node emits 200 events a second to a room with one client on each node; from the emit in the
// sender's process to the listener in the same process. Throughput: a burst of 20,000 events of each node at once, until
// every client has all of them.
'use strict';

const { spawn } = require('node:child_process');
const { parseArgs } = require('node:util');
const { Scope, ask, events, sleep, until } = require('./lab.js');

const { values: options } = parseArgs({ options: { rounds: { type: 'string', default: '5' }, count: { type: 'string', default: '20000' } } });
const ROUNDS = Number(options.rounds);
const COUNT = Number(options.count);
const PORT = 7801;
const REDIS = `redis://127.0.0.1:${PORT}`;
const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))];
const cpu = async (labs) => (await Promise.all(labs.map(async (lab) => {
  const client = await lab.scope.connected(lab.url, { transports: ['websocket'] });
  const { us } = await ask(client, 'cpu');
  client.disconnect();
  return us;
}))).reduce((sum, us) => sum + us, 0);

// A server of ours, or an official one.
async function serve(scope, kind, stream) {
  if (kind !== 'official') return scope.lab(`--store=${kind}`, `--stream=${stream}`, '--ping-interval=25000', '--ping-timeout=20000', '--queue=67108864');
  const peer = await scope.program('node', [process.env.PEER, '0', '--recovery', '--redis', REDIS]);
  const { port } = await peer.line('listening');
  return Object.assign(peer, { url: `http://127.0.0.1:${port}` });
}

async function measure(scope, kind, nodes, stream) {
  const labs = [];
  for (let i = 0; i < nodes; i++) labs.push(Object.assign(await serve(scope, kind, stream), { scope }));
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
  const count = COUNT;
  const before = await cpu(labs);
  const start = Date.now();
  await Promise.all(clients.map((client, i) => new Promise((done) => client.emit('burst', 'r', count, `n${i}`, 0, done))));
  await until(() => clients.every((client) => events(client, 'msg').length >= count * nodes), 'the burst', 60000);
  const took = (Date.now() - start) / 1000;
  const used = await cpu(labs) - before;
  return { p50: quantile(latencies, 0.5), p99: quantile(latencies, 0.99), perSecond: count * nodes / took, cpu: used / (count * nodes * nodes) };
}

async function main() {
  const redis = spawn('redis-server', ['--port', PORT, '--save', '', '--dir', '/tmp'].map(String), { stdio: 'ignore' });
  await sleep(500);
  const rows = [['memory', 'memory', 1]];
  for (const nodes of [1, 2, 4]) rows.push(['Redis', `redis:${REDIS}`, nodes]);
  if (process.env.PEER) for (const nodes of [1, 2, 4]) rows.push(['official, Redis Streams adapter', 'official', nodes]);
  console.log('| store, nodes | latency p50, ms | p99, ms | events a second through the stream | CPU of the nodes, µs a receiver |\n| --- | --- | --- | --- | --- |');
  for (const [name, kind, nodes] of rows) {
    const found = [];
    let failed = '';
    for (let round = 0; round < ROUNDS; round++) {
      const scope = new Scope();
      try { found.push(await measure(scope, kind, nodes, `scaling-${nodes}-${round}`)); } catch (error) { failed = error.message; } finally { await scope.end(); }
    }
    const show = (field, digits) => (found.length ? Number(median(found.map((one) => one[field])).toFixed(digits)).toLocaleString('en') : '-');
    console.log(`| ${name}, ${nodes} | ${show('p50', 2)} | ${show('p99', 2)} | ${show('perSecond', 0)} | ${show('cpu', 2)} |${failed ? ` ${ROUNDS - found.length} of ${ROUNDS} rounds failed: ${failed}` : ''}`);
  }
  redis.kill('SIGTERM');
}
main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
