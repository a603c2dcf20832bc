// A server of WebSockets with several subscriptions each, which a test controls, to do what a real
// server does not do on demand.
import { createHash } from 'node:crypto';
import { listen, reply } from './common.mjs';

/** Returns a text as a frame. */
function frame(text, opcode = 1) {
  const body = Buffer.from(text);
  const head = body.length < 126 ? [body.length] : [126, body.length >> 8, body.length & 0xff];
  return Buffer.concat([Buffer.from([0x80 | opcode, ...head]), body]);
}

/** Returns the frames in the bytes so far, and the remaining bytes. Clients send short messages in one frame each. */
function frames(bytes) {
  const found = [];
  while (bytes.length >= 6) {
    const isLong = (bytes[1] & 0x7f) === 126;
    const length = isLong ? bytes.readUInt16BE(2) : bytes[1] & 0x7f;
    const start = (isLong ? 4 : 2) + 4;
    if (bytes.length < start + length) break;
    const mask = bytes.subarray(start - 4, start);
    const body = bytes.subarray(start, start + length).map((byte, at) => byte ^ mask[at % 4]);
    found.push({ opcode: bytes[0] & 0xf, text: body.toString() });
    bytes = bytes.subarray(start + length);
  }
  return [found, bytes];
}

/**
 * Starts a server. `refuse(request)` returns the status with which a handshake is refused, or 0;
 * `poll(request)` returns the reply to any other request; `oncommand(connection, command)` returns
 * true if the test has answered. Otherwise the server accepts each subscription, at the position
 * that the command contains.
 */
export async function serve({
  refuse = () => 0,
  poll = () => [200, { position: 'P', items: [] }],
  oncommand = () => false,
  heartbeatMs = () => 15_000,
} = {}) {
  const connections = [];
  const server = await listen((request, response) => reply(response, ...poll(request)), (request, socket) => {
    server.handshakes.push(request.url);
    const status = refuse(request);
    if (status) return socket.end(`HTTP/1.1 ${status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
    const key = createHash('sha1').update(`${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
    socket.write(`HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${key}\r\n\r\n`);
    const connection = {
      url: request.url,
      commands: [],
      isOver: false,
      of: (channel) => connection.commands.findLast(({ type, channels }) => type === 'subscribe' && channels.includes(channel))?.ref,
      send: (message) => socket.write(frame(JSON.stringify(message))),
      sendTo: (channel, ...items) => connection.send({ ref: connection.of(channel), position: items.at(-1).position ?? '', items }),
      message: (channel, position, data) => connection.sendTo(channel, { type: 'message', channel, position, data }),
      cut: () => socket.destroy(),
    };
    connections.push(connection);
    let bytes = Buffer.alloc(0);
    socket.on('error', () => {});
    socket.on('close', () => (connection.isOver = true));
    socket.on('data', (chunk) => {
      let found;
      [found, bytes] = frames(Buffer.concat([bytes, chunk]));
      for (const { opcode, text } of found) {
        if (opcode === 8) socket.end(frame('', 8));
        if (opcode !== 1) continue;
        const command = JSON.parse(text);
        connection.commands.push(command);
        if (oncommand(connection, command)) continue;
        const { type, ref, after } = command;
        if (type === 'subscribe') connection.send({ ref, position: after ?? 'P', items: [{ type: 'subscribed' }] });
        if (type === 'unsubscribe') connection.send({ items: [{ type: 'unsubscribed', ref }] });
        if (type === 'token') connection.send({ items: [{ type: 'renewed', ref }] });
      }
    });
    connection.send({ items: [{ type: 'hello', heartbeat_ms: heartbeatMs() }] });
  });
  return Object.assign(server, { connections, handshakes: [] });
}
