// The official server with the events that the load generators ask for: `echo`, `join`, `burst`, `say`, `cpu`.
//
//   peer_socket_io.mjs [PORT (any)] [--recovery] [--redis URL]    with a URL: the official Redis Streams adapter, in its own stream of that server
import { createServer } from 'node:http';
import { Server } from 'socket.io';

const recovery = process.argv.includes('--recovery');
const http = createServer();
const url = process.argv.includes('--redis') ? process.argv[process.argv.indexOf('--redis') + 1] : null;
async function streams() {
  const [{ createAdapter }, { createClient }] = await Promise.all([import('@socket.io/redis-streams-adapter'), import('redis')]);
  const client = createClient({ url });
  await client.connect();
  // What is kept is what the other side keeps: enough for the burst.
  return createAdapter(client, { maxLen: 1000000 });
}
const io = new Server(http, { adapter: url ? await streams() : undefined, connectionStateRecovery: recovery ? { maxDisconnectionDuration: 120000, skipMiddlewares: true } : undefined });
io.on('connection', (socket) => {
  socket.on('echo', (...args) => args.pop()(...args));
  socket.on('join', (room, ack) => { socket.join(room); ack([...socket.rooms]); });
  socket.on('burst', (room, count, tag, gap, ack) => {
    for (let i = 0; i < count; i++) io.to(room).emit('msg', tag, i);
    ack(count);
  });
  socket.on('say', (room, event, args) => io.to(room).emit(event, ...args));
  socket.on('cpu', (ack) => { const { user, system } = process.cpuUsage(); ack({ us: user + system }); });
});
http.listen(Number(process.argv[2]) || 0, '127.0.0.1', () => console.log(JSON.stringify({ event: 'listening', port: http.address().port })));
