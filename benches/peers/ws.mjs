// npm ws, as its documentation has it: an echo, a broadcast to `wss.clients`, permessage-deflate without takeover
// (`BENCH_DEFLATE=1`) or with it (`2`).
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { WebSocket, WebSocketServer } from 'ws';

const port = Number(process.argv[2]);
const grace = Number(process.env.BENCH_CLOSE_TIMEOUT_MS ?? 2000);
const deflate = process.env.BENCH_DEFLATE ?? '0';
const certificate = process.env.BENCH_TLS_CERT;
const server =
  certificate && createServer({ cert: readFileSync(certificate), key: readFileSync(process.env.BENCH_TLS_KEY) });
const address = { host: '127.0.0.1', port, backlog: 4096 };
server?.listen(address);
const wss = new WebSocketServer({
  ...(server ? { server } : address),
  maxPayload: 64 << 20,
  perMessageDeflate:
    deflate !== '0' &&
    { serverNoContextTakeover: deflate === '1', clientNoContextTakeover: deflate === '1', threshold: 0 },
});

const receivers = new Set();

wss.on('connection', (ws, request) => {
  ws.on('error', () => {});
  if (request.url !== '/broadcast') {
    ws.on('message', (data, binary) => ws.send(data, { binary }));
    return;
  }
  receivers.add(ws);
  ws.on('close', () => receivers.delete(ws));
  ws.on('message', (data, binary) => {
    for (const other of receivers) {
      if (other !== ws && other.readyState === WebSocket.OPEN) other.send(data, { binary });
    }
  });
});

process.on('SIGTERM', () => {
  for (const ws of wss.clients) ws.close(1001);
  server?.close();
  wss.close(() => process.exit(0));
  setTimeout(() => {
    for (const ws of wss.clients) ws.terminate();
    process.exit(0);
  }, grace);
});
