// Runs inside the page. `runCases(url)` gives [[name, null or what went wrong], ...].
'use strict';

globalThis.runCases = async (url, deflate) => {
  const { expect } = cases;
  const list = [];
  const test = (name, body) => list.push([name, body]);
  const byteLength = (text) => new TextEncoder().encode(text).length;

  class Peer {
    constructor() {
      this.messages = [];
      this.waiting = [];
      this.socket = new WebSocket(url);
      this.socket.binaryType = 'arraybuffer';
      this.closed = new Promise((resolve) => { this.resolveClosed = resolve; });
      this.opened = new Promise((resolve, reject) => {
        this.socket.onopen = resolve;
        this.socket.onerror = () => {
          this.error = true;
          reject(new Error('error event'));
        };
      });
      this.socket.onmessage = ({ data }) => {
        const take = this.waiting.shift();
        if (take) take.resolve(data);
        else this.messages.push(data);
      };
      this.socket.onclose = ({ code, reason, wasClean }) => {
        for (const take of this.waiting) take.reject(new Error(`closed with ${code} while waiting for a message`));
        this.resolveClosed({ code, reason, wasClean });
      };
    }

    static async open() {
      const peer = new Peer();
      await peer.opened;
      return peer;
    }

    next() {
      if (this.messages.length > 0) return Promise.resolve(this.messages.shift());
      return new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
    }

    async expectText(text) {
      const got = await this.next();
      expect(typeof got === 'string', 'echo is binary');
      expect(got === text, `echo of ${text.length} characters differs (${got.length} came)`);
    }

    async expectBytes(bytes) {
      const got = await this.next();
      expect(typeof got !== 'string', 'echo is text');
      expect(cases.sameBytes(new Uint8Array(got), bytes), `echo of ${bytes.length} bytes differs (${got.byteLength} came)`);
    }

    async expectClose(code, reason) {
      const started = performance.now();
      const got = await this.closed;
      const took = performance.now() - started;
      expect(got.code === code, `CloseEvent.code ${got.code}, wanted ${code}`);
      expect(got.reason === reason, `CloseEvent.reason ${JSON.stringify(got.reason)}, wanted ${JSON.stringify(reason)}`);
      expect(got.wasClean === true, 'CloseEvent.wasClean is false');
      expect(!this.error, 'an error event came');
      expect(took < cases.closeLimitMs, `the close took ${Math.round(took)} ms`);
    }

    async finish() {
      this.socket.close(1000);
      await this.expectClose(1000, '');
    }
  }

  for (const size of cases.sizes) {
    test(`text of ${size} bytes`, async () => {
      const peer = await Peer.open();
      const text = cases.text(size);
      expect(byteLength(text) === size, 'the test is wrong about its size');
      peer.socket.send(text);
      await peer.expectText(text);
      await peer.finish();
    });
    test(`binary of ${size} bytes`, async () => {
      const peer = await Peer.open();
      const bytes = cases.bytes(size);
      peer.socket.send(bytes);
      await peer.expectBytes(bytes);
      await peer.finish();
    });
  }

  test(`what is negotiated, and compressible messages`, async () => {
    const peer = await Peer.open();
    const { extensions } = peer.socket;
    expect(extensions.startsWith('permessage-deflate') === deflate, `extensions ${JSON.stringify(extensions)}`);
    for (let round = 0; round < 3; round++) {
      for (const size of [...cases.sizes, 1024, 5000, 40000]) {
        const text = cases.prices(round, size);
        peer.socket.send(text);
        peer.socket.send(cases.bytes(size));
        await peer.expectText(text);
        await peer.expectBytes(cases.bytes(size));
      }
    }
    await peer.finish();
  });

  test('no subprotocol is chosen', async () => {
    const peer = await Peer.open();
    expect(peer.socket.protocol === '', `protocol ${peer.socket.protocol}`);
    await peer.finish();
  });

  for (const [code, reason] of cases.clientCloses) {
    test(`page closes with ${code} and ${byteLength(reason)} bytes of reason`, async () => {
      const peer = await Peer.open();
      if (reason === '') peer.socket.close(code);
      else peer.socket.close(code, reason);
      await peer.expectClose(code, reason);
    });
  }

  test('page closes without a code', async () => {
    const peer = await Peer.open();
    peer.socket.close();
    await peer.expectClose(1005, '');
  });

  for (const [code, reason] of cases.serverCloses) {
    test(`server closes with ${code} and ${byteLength(reason)} bytes of reason`, async () => {
      const peer = await Peer.open();
      peer.socket.send(`close ${code}${reason ? ' ' : ''}${reason}`);
      await peer.expectClose(code, reason);
    });
  }

  test(`${cases.pipelined} messages pipelined come back in order`, async () => {
    const peer = await Peer.open();
    for (let i = 0; i < cases.pipelined; i++) peer.socket.send(`message ${i} 🦀`);
    for (let i = 0; i < cases.pipelined; i++) await peer.expectText(`message ${i} 🦀`);
    await peer.finish();
  });

  test('a close on command behind 64 messages of 16 KiB: every echo comes first', async () => {
    const peer = await Peer.open();
    const bytes = cases.bytes(16384);
    for (let i = 0; i < 64; i++) peer.socket.send(bytes);
    peer.socket.send('close 4000 after all');
    for (let i = 0; i < 64; i++) await peer.expectBytes(bytes);
    await peer.expectClose(4000, 'after all');
  });

  test('both sides close at once: clean, with one of the two codes', async () => {
    const peer = await Peer.open();
    peer.socket.send('close 4000 server');
    peer.socket.close(4001, 'page');
    const { code, wasClean } = await peer.closed;
    // Who is first is a race; what either order must not give is 1006.
    expect(code === 4000 || code === 4001, `CloseEvent.code ${code}`);
    expect(wasClean, 'CloseEvent.wasClean is false');
  });

  test(`${cases.connections} connections at once`, async () => {
    const peers = await Promise.all(Array.from({ length: cases.connections }, () => Peer.open()));
    peers.forEach((peer, i) => peer.socket.send(`I am ${i}`));
    await Promise.all(peers.map((peer, i) => peer.expectText(`I am ${i}`)));
    await Promise.all(peers.map((peer) => peer.finish()));
  });

  const results = [];
  await cases.runAll(list, (name, reason) => results.push([name, reason]));
  return results;
};
