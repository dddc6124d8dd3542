// The official server with the events that the load generator asks for: `echo`, `join`, `burst`.
import { createServer } from 'node:http';
import { Server } from 'socket.io';

const recovery = process.argv.includes('--recovery');
const http = createServer();
const io = new Server(http, { connectionStateRecovery: recovery ? { maxDisconnectionDuration: 120000, skipMiddlewares: true } : undefined });
io.on('connection', (socket) => {
  socket.on('echo', (...args) => args.pop()(...args));
  socket.on('join', (room, ack) => { socket.join(room); ack([...socket.rooms]); });
  socket.on('burst', (room, count, tag, gap, ack) => {
    for (let i = 0; i < count; i++) io.to(room).emit('msg', tag, i);
    ack(count);
  });
});
http.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => console.log(JSON.stringify({ event: 'listening', port: http.address().port })));
