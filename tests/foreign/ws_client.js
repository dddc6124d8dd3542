// npm ws as the client: node ws_client.js ws://127.0.0.1:PORT
'use strict';

const WebSocket = require('ws');
const cases = require('./cases.js');

const { expect } = cases;
const url = process.argv[2];
const list = [];
const test = (name, body) => list.push([name, body]);

// A connection that writes down what happens to it; `next` waits for the next message.
class Peer {
  constructor(options) {
    this.messages = [];
    this.waiting = [];
    this.closed = new Promise((resolve) => { this.resolveClosed = resolve; });
    this.socket = new WebSocket(url, options);
    this.opened = new Promise((resolve, reject) => {
      this.socket.once('open', resolve);
      this.socket.once('error', reject);
    });
    this.socket.on('error', (error) => { this.error = error; });
    this.socket.on('message', (data, isBinary) => {
      const take = this.waiting.shift();
      if (take) take.resolve({ data, isBinary });
      else this.messages.push({ data, isBinary });
    });
    this.socket.addEventListener('close', ({ code, reason, wasClean }) => {
      for (const take of this.waiting) take.reject(new Error(`closed with ${code} while waiting for a message`));
      this.resolveClosed({ code, reason, wasClean });
    });
  }

  static async open(options) {
    const peer = new Peer(options);
    await peer.opened;
    return peer;
  }

  next() {
    if (this.messages.length > 0) return Promise.resolve(this.messages.shift());
    return new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
  }

  async expectEcho(data, isBinary) {
    const got = await this.next();
    expect(got.isBinary === isBinary, `echo is ${got.isBinary ? 'binary' : 'text'}`);
    const wanted = Buffer.from(data);
    expect(wanted.equals(got.data), `echo of ${wanted.length} bytes differs (${got.data.length} bytes came)`);
  }

  async expectClose(code, reason) {
    const started = Date.now();
    const got = await this.closed;
    const took = Date.now() - started;
    expect(got.code === code, `code ${got.code}, wanted ${code}`);
    expect(got.reason === reason, `reason ${JSON.stringify(got.reason)}, wanted ${JSON.stringify(reason)}`);
    expect(got.wasClean, 'not clean');
    expect(!this.error, `error event: ${this.error && this.error.message}`);
    expect(took < cases.closeLimitMs, `the close took ${took} ms`);
  }

  async finish() {
    this.socket.close(1000);
    await this.expectClose(1000, '');
  }
}

for (const [label, options] of [['', { perMessageDeflate: false }], [' (deflate offered)', { perMessageDeflate: true }]]) {
  for (const size of cases.sizes) {
    test(`text of ${size} bytes${label}`, async () => {
      const peer = await Peer.open(options);
      const text = cases.text(size);
      peer.socket.send(text);
      await peer.expectEcho(text, false);
      await peer.finish();
    });
    test(`binary of ${size} bytes${label}`, async () => {
      const peer = await Peer.open(options);
      const bytes = cases.bytes(size);
      peer.socket.send(bytes);
      await peer.expectEcho(bytes, true);
      await peer.finish();
    });
  }
}

// What the server was started with; both sides compress from the first byte on, so that most messages are.
const deflate = process.env.ECHO_DEFLATE === '1';
for (const [label, options] of [
  ['takeover on both sides', {}],
  ['no takeover', { serverNoContextTakeover: true, clientNoContextTakeover: true }],
  ['no takeover by the server', { serverNoContextTakeover: true }],
  ['no takeover by the client', { clientNoContextTakeover: true }],
  ['windows of 9 and 10 bits', { serverMaxWindowBits: 9, clientMaxWindowBits: 10 }],
  ['the smallest window of the server', { serverMaxWindowBits: 8, clientNoContextTakeover: true }],
]) {
  test(`compression, ${label}`, async () => {
    const peer = await Peer.open({ perMessageDeflate: { threshold: 0, ...options } });
    const agreed = peer.socket._extensions['permessage-deflate'];
    expect(!!agreed === deflate, `extensions ${JSON.stringify(peer.socket.extensions)}`);
    if (deflate) {
      const { params } = agreed;
      expect(!!params.server_no_context_takeover === !!options.serverNoContextTakeover, JSON.stringify(params));
      expect(!!params.client_no_context_takeover === !!options.clientNoContextTakeover, JSON.stringify(params));
      expect(params.server_max_window_bits === options.serverMaxWindowBits, JSON.stringify(params));
      expect(params.client_max_window_bits === options.clientMaxWindowBits, JSON.stringify(params));
    }
    for (let round = 0; round < 3; round++) {
      for (const size of [...cases.sizes, 1024, 5000, 40000]) {
        const text = cases.prices(round, size);
        peer.socket.send(text);
        peer.socket.ping();
        peer.socket.send(cases.bytes(size));
        await peer.expectEcho(text, false);
        await peer.expectEcho(cases.bytes(size), true);
      }
    }
    const text = cases.prices(4, 100000);
    for (let at = 0; at < text.length; at += 7777) {
      peer.socket.send(text.slice(at, at + 7777), { fin: at + 7777 >= text.length });
    }
    await peer.expectEcho(text, false);
    await peer.finish();
  });
}

// The echo server frees the compressor of a connection that was quiet for a second; the client keeps its window.
test('compression after a quiet spell', async () => {
  const peer = await Peer.open({ perMessageDeflate: { threshold: 0 } });
  const text = cases.prices(1, 5000);
  for (let round = 0; round < 2; round++) {
    for (let again = 0; again < 3; again++) {
      peer.socket.send(text);
      await peer.expectEcho(text, false);
    }
    if (deflate) await new Promise((resolve) => setTimeout(resolve, 1300));
  }
  peer.socket.send(text);
  await peer.expectEcho(text, false);
  await peer.finish();
});

test('compression pays', async () => {
  const peer = await Peer.open({ perMessageDeflate: { threshold: 0 } });
  const before = peer.socket._socket.bytesRead;
  const text = cases.prices(1, 100000);
  peer.socket.send(text);
  await peer.expectEcho(text, false);
  const read = peer.socket._socket.bytesRead - before;
  expect((read < 50000) === deflate, `${read} bytes for an echo of ${text.length}`);
  await peer.finish();
});

test('no subprotocol is chosen', async () => {
  const peer = await Peer.open();
  expect(peer.socket.protocol === '', `protocol ${peer.socket.protocol}`);
  await peer.finish();
});

test('text in fragments, cut within characters', async () => {
  const peer = await Peer.open({ perMessageDeflate: false });
  const bytes = Buffer.from(cases.text(1000));
  for (let at = 0; at < bytes.length; at += 7) {
    peer.socket.send(bytes.subarray(at, at + 7), { binary: false, fin: at + 7 >= bytes.length });
  }
  await peer.expectEcho(bytes, false);
  await peer.finish();
});

test('binary in fragments, empty ones among them, a ping between', async () => {
  const peer = await Peer.open({ perMessageDeflate: false });
  const bytes = cases.bytes(300000);
  const pong = new Promise((resolve) => peer.socket.once('pong', resolve));
  peer.socket.send(bytes.subarray(0, 1), { fin: false });
  peer.socket.send(new Uint8Array(0), { fin: false });
  peer.socket.ping('between');
  peer.socket.send(bytes.subarray(1, 65537), { fin: false });
  peer.socket.send(bytes.subarray(65537), { fin: false });
  peer.socket.send(new Uint8Array(0), { fin: true });
  expect((await pong).toString() === 'between', 'pong carries another payload');
  await peer.expectEcho(bytes, true);
  await peer.finish();
});

for (const size of [0, 1, 125]) {
  test(`ping of ${size} bytes is answered with its payload`, async () => {
    const peer = await Peer.open();
    const payload = Buffer.from(cases.bytes(size));
    const pong = new Promise((resolve) => peer.socket.once('pong', resolve));
    peer.socket.ping(payload);
    expect(payload.equals(await pong), 'pong carries another payload');
    await peer.finish();
  });
}

test('an unsolicited pong is ignored', async () => {
  const peer = await Peer.open();
  peer.socket.pong('nobody asked');
  peer.socket.send('still here');
  await peer.expectEcho('still here', false);
  await peer.finish();
});

for (const [code, reason] of [...cases.clientCloses, [1001, 'tab closed'], [1008, 'policy'], [1011, 'bug'], [1014, 'gateway']]) {
  test(`client closes with ${code} and ${Buffer.byteLength(reason)} bytes of reason`, async () => {
    const peer = await Peer.open();
    peer.socket.close(code, reason);
    await peer.expectClose(code, reason);
  });
}

test('client closes without a code', async () => {
  const peer = await Peer.open();
  peer.socket.close();
  await peer.expectClose(1005, '');
});

for (const [code, reason] of cases.serverCloses) {
  test(`server closes with ${code} and ${Buffer.byteLength(reason)} bytes of reason`, async () => {
    const peer = await Peer.open();
    peer.socket.send(`close ${code}${reason ? ' ' : ''}${reason}`);
    await peer.expectClose(code, reason);
  });
}

test('client drops the connection: the server goes on', async () => {
  const rude = await Peer.open();
  rude.socket.terminate();
  const peer = await Peer.open();
  peer.socket.send('next');
  await peer.expectEcho('next', false);
  await peer.finish();
});

test(`${cases.pipelined} messages pipelined come back in order`, async () => {
  const peer = await Peer.open();
  for (let i = 0; i < cases.pipelined; i++) peer.socket.send(`message ${i} 🦀`);
  for (let i = 0; i < cases.pipelined; i++) await peer.expectEcho(`message ${i} 🦀`, false);
  await peer.finish();
});

test('a close right behind 1000 messages: every echo comes first', async () => {
  const peer = await Peer.open();
  for (let i = 0; i < cases.pipelined; i++) peer.socket.send(`message ${i}`);
  peer.socket.close(4000, 'behind them');
  for (let i = 0; i < cases.pipelined; i++) await peer.expectEcho(`message ${i}`, false);
  await peer.expectClose(4000, 'behind them');
});

test('a close on command behind 64 messages of 16 KiB: every echo comes first', async () => {
  const peer = await Peer.open();
  const bytes = cases.bytes(16384);
  for (let i = 0; i < 64; i++) peer.socket.send(bytes);
  peer.socket.send('close 4000 after all');
  for (let i = 0; i < 64; i++) await peer.expectEcho(bytes, true);
  await peer.expectClose(4000, 'after all');
});

test(`${cases.connections} connections at once`, async () => {
  const peers = await Promise.all(Array.from({ length: cases.connections }, () => Peer.open()));
  peers.forEach((peer, i) => peer.socket.send(`I am ${i}`));
  await Promise.all(peers.map((peer, i) => peer.expectEcho(`I am ${i}`, false)));
  await Promise.all(peers.map((peer) => peer.finish()));
});

let passed = 0;
let failed = 0;
cases.runAll(list, (name, reason) => {
  if (reason === null) passed++;
  else failed++;
  console.log(reason === null ? `ok    ws: ${name}` : `FAIL  ws: ${name}: ${reason}`);
}).then(() => {
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed === 0 ? 0 : 1);
});
