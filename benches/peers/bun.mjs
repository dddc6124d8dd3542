// Bun's own server: echo by `ws.send`, broadcast by `ws.publish` (its native topics).
import { readdirSync, readlinkSync } from 'node:fs';

const port = Number(process.argv[2]);
const grace = Number(process.env.BENCH_CLOSE_TIMEOUT_MS ?? 2000);
const deflate = (process.env.BENCH_DEFLATE ?? '0') !== '0';
const context = process.env.BENCH_DEFLATE === '2' ? 'dedicated' : 'shared';
const certificate = process.env.BENCH_TLS_CERT;
const open = new Set();

const server = Bun.serve({
  hostname: '127.0.0.1',
  port,
  tls: certificate && { cert: Bun.file(certificate), key: Bun.file(process.env.BENCH_TLS_KEY) },
  fetch(request, server) {
    const broadcast = request.url.endsWith('/broadcast');
    return server.upgrade(request, { data: broadcast }) ? undefined : new Response('no', { status: 400 });
  },
  websocket: {
    maxPayloadLength: 64 << 20,
    // Seconds of silence; a Ping is sent before they are over.
    idleTimeout: Number(process.env.BENCH_IDLE_S ?? 120),
    backpressureLimit: 64 << 20,
    perMessageDeflate: deflate && { compress: context, decompress: context },
    open(ws) {
      open.add(ws);
      if (ws.data) ws.subscribe('broadcast');
    },
    message(ws, message) {
      if (ws.data) ws.publish('broadcast', message, deflate);
      else ws.send(message, deflate);
    },
    close(ws) {
      open.delete(ws);
    },
  },
});

// Bun reports `close` as soon as the Close frame is queued and exits with bytes still queued if nothing else keeps it.
// It has no event for "the last socket is gone", so its descriptors are counted, ten times a second.
const descriptors = () => readdirSync('/proc/self/fd');
const isSocket = (fd) => {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:');
  } catch {
    return false;
  }
};

process.on('SIGTERM', () => {
  server.stop(false);
  for (const ws of [...open]) ws.close(1001);
  setInterval(() => {
    const left = descriptors();
    if (left.length < 64 && !left.some(isSocket)) process.exit(0);
  }, 100);
  setTimeout(() => process.exit(0), grace);
});
