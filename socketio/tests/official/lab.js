// What every test with the official client needs: the lab as a child process, a TCP proxy that cuts and freezes, and a
// list of named tests. Nothing here knows a rule of specification.
'use strict';

const { spawn } = require('node:child_process');
const net = require('node:net');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { Transform } = require('node:stream');
const { io, Manager } = require('socket.io-client');

// Upper limit of any wait. Reached only by a failure, whatever the load of the machine.
const PATIENCE_MS = 15000;

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

function within(promise, what, ms = PATIENCE_MS) {
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error(`waited ${ms} ms for ${what}`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// Resolves when `test()` is true; looks every 5 ms.
async function until(test, what, ms = PATIENCE_MS) {
  const end = Date.now() + ms;
  while (!test()) {
    if (Date.now() > end) throw new Error(`waited ${ms} ms for ${what}`);
    await sleep(5);
  }
}

// A program that prints JSON lines.
class Program {
  static async start(binary, args, env = {}) {
    const program = new Program();
    program.lines = [];
    program.child = spawn(binary, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
    program.exited = new Promise((done) => program.child.on('close', (code, signal) => done({ code, signal })));
    program.stderr = '';
    program.child.stderr.on('data', (data) => { program.stderr = (program.stderr + data).slice(-4000); });
    let rest = '';
    program.child.stdout.on('data', (data) => {
      const lines = (rest + data).split('\n');
      rest = lines.pop();
      for (const line of lines) {
        try { program.lines.push(JSON.parse(line)); } catch { program.lines.push({ event: 'not json', line }); }
      }
    });
    program.exited.then((end) => { program.end = end; });
    return program;
  }

  async line(event, ms) {
    await until(() => this.end || this.lines.some((line) => line.event === event), `the line ${event}`, ms);
    const found = this.lines.find((line) => line.event === event);
    if (!found) throw new Error(`the program ended without the line ${event}: ${this.stderr}`);
    return found;
  }

  async kill(signal) {
    if (!this.end) this.child.kill(signal);
    return within(this.exited, `the end of the program after ${signal}`);
  }
}

class Lab extends Program {
  // The first argument may be `{ env }`: variables of its environment.
  static async start(...args) {
    const binary = process.env.LAB;
    const { env } = typeof args[0] === 'object' ? args.shift() : {};
    if (!args.some((arg) => arg.startsWith('--port'))) args.unshift('--port=0');
    const lab = Object.setPrototypeOf(await Program.start(binary, args, env), Lab.prototype);
    const { port } = await lab.line('listening');
    lab.port = port;
    lab.url = `http://127.0.0.1:${port}`;
    return lab;
  }
}

// A TCP proxy before `port` whose connections the test ends or freezes.
class Proxy {
  static async start(port) {
    const proxy = new Proxy();
    proxy.pairs = new Set();
    proxy.target = port;
    proxy.refuses = false;
    proxy.delay = 0;
    proxy.server = net.createServer((client) => {
      if (proxy.refuses) { client.resetAndDestroy(); return; }
      const server = net.connect(proxy.target, '127.0.0.1');
      const pair = { client, server, toClient: proxy.slow() };
      proxy.pairs.add(pair);
      client.pipe(proxy.slow()).pipe(server);
      server.pipe(pair.toClient).pipe(client);
      const gone = () => { proxy.pairs.delete(pair); client.destroy(); server.destroy(); };
      for (const socket of [client, server]) {
        socket.on('error', gone);
        socket.on('close', gone);
      }
    });
    await new Promise((done) => proxy.server.listen(0, '127.0.0.1', done));
    proxy.url = `http://127.0.0.1:${proxy.server.address().port}`;
    return proxy;
  }

  // Passes each piece on `delay` ms later, in their order.
  slow() {
    const waiting = [];
    let last = 0;
    const later = new Transform({
      transform: (data, _, done) => {
        const now = Date.now();
        last = Math.max(last, now + this.delay);
        if (last === now && waiting.length === 0) later.push(data);
        else {
          waiting.push(data);
          setTimeout(() => { const first = waiting.shift(); if (!later.destroyed) later.push(first); }, last - now);
        }
        done();
      },
      flush: (done) => setTimeout(done, Math.max(0, last - Date.now()) + 1),
    });
    return later;
  }

  // Resets every connection on both sides.
  cut() {
    for (const { client, server } of [...this.pairs]) { client.resetAndDestroy(); server.resetAndDestroy(); }
  }

  // Ends the client's side; the server's side stays and hears nothing more: a half-open connection.
  halve() {
    for (const pair of [...this.pairs]) {
      this.pairs.delete(pair);
      pair.client.unpipe(); pair.server.unpipe();
      pair.server.removeAllListeners('close'); pair.client.removeAllListeners('close');
      pair.server.resume();
      pair.client.resetAndDestroy();
      (this.halves ??= []).push(pair.server);
    }
  }

  // The client stops reading; what the server sends stays in the kernel.
  freeze() {
    for (const { server, toClient } of this.pairs) { server.unpipe(toClient); server.pause(); }
  }

  thaw() {
    for (const { server, toClient } of this.pairs) server.pipe(toClient);
  }

  async stop() {
    this.server.close();
    this.cut();
    for (const half of this.halves ?? []) half.destroy();
  }
}

// What one test opens is ended with it.
class Scope {
  constructor() { this.ends = []; }

  async lab(...args) {
    const lab = await Lab.start(...args);
    this.ends.push(() => lab.kill('SIGKILL'));
    return lab;
  }

  async program(binary, args) {
    const program = await Program.start(binary, args);
    this.ends.push(() => program.kill('SIGKILL'));
    return program;
  }

  async proxy(port) {
    const proxy = await Proxy.start(port);
    this.ends.push(() => proxy.stop());
    return proxy;
  }

  // A client that notes everything: `got` are the events as [name, ...arguments].
  client(url, options = {}) {
    // Each has a manager of its own. Reconnects soon, so that the tests do not wait: the only change to the defaults.
    const socket = io(url, { forceNew: true, reconnectionDelay: 20, reconnectionDelayMax: 100, ...options });
    socket.got = [];
    socket.reasons = [];
    socket.connects = [];
    socket.onAny((...event) => socket.got.push(event));
    socket.on('connect', () => socket.connects.push({ id: socket.id, recovered: socket.recovered }));
    socket.on('disconnect', (reason, details) => socket.reasons.push({ reason, details }));
    socket.on('connect_error', (error) => { socket.error = error; });
    this.ends.push(() => { socket.disconnect(); socket.io.engine?.close(); });
    return socket;
  }

  // One that is connected.
  async connected(url, options) {
    const socket = this.client(url, options);
    await connection(socket, 1);
    return socket;
  }

  file(name) {
    if (!this.folder) {
      this.folder = fs.mkdtempSync(path.join(os.tmpdir(), 'sio-'));
      this.ends.unshift(() => fs.rmSync(this.folder, { recursive: true, force: true }));
    }
    return path.join(this.folder, name);
  }

  async end() {
    for (const end of this.ends.reverse()) await end();
  }
}

// Waits for the n-th connection.
const connection = (socket, n) => until(() => socket.connects.length >= n && socket.connected, `connection ${n} (${socket.error})`);

// Emits and waits for the ack.
const ask = (socket, ...event) => within(socket.timeout(PATIENCE_MS).emitWithAck(...event), `the ack of ${event[0]}`);

// The arguments of the events of that name, without the offset that durable ones end in.
const OFFSET = /^\d+-\d+(-\d+)?$/;
const events = (socket, name) => socket.got.filter(([event]) => event === name).map(([, ...args]) => {
  const last = args[args.length - 1];
  return typeof last === 'string' && OFFSET.test(last) ? args.slice(0, -1) : args;
});

const tests = [];
const test = (name, run) => tests.push({ name, run });

// Runs the tests whose names contain one of the words given on the command line; `width` at a time.
async function main(width = 4) {
  const words = process.argv.slice(2);
  const chosen = tests.filter(({ name }) => words.length === 0 || words.some((word) => name.includes(word)));
  let passed = 0;
  let failed = 0;
  const queue = [...chosen];
  const worker = async () => {
    for (let next = queue.shift(); next; next = queue.shift()) {
      const scope = new Scope();
      try {
        await within(next.run(scope), 'the test', 120000);
        passed += 1;
      } catch (error) {
        failed += 1;
        console.log(`FAILED ${next.name}\n  ${String(error.stack).split('\n').slice(0, 6).join('\n  ')}`);
      }
      try { await scope.end(); } catch (error) { console.log(`end of ${next.name}: ${error.message}`); }
    }
  };
  await Promise.all(Array.from({ length: width }, worker));
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed === 0 && passed > 0 ? 0 : 1);
}

module.exports = { Lab, Program, Proxy, Scope, Manager, ask, connection, events, main, sleep, test, until, within, OFFSET };
