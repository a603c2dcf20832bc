// Helpers for the tests of ccomet.js in Node.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';

const PATIENCE_MS = 60_000;

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export async function until(what, condition) {
  const start = Date.now();
  while (!condition()) {
    assert.ok(Date.now() - start < PATIENCE_MS, `timed out: ${what}`);
    await pause(20);
  }
}

// Closes what a failed test leaves open, which would keep the process from ending.
const closers = [];

export function closeAll() {
  closers.forEach((close) => close());
}

/** Subscribes, and notes the events of the subscription. */
export function follow(comet, channel, options = {}) {
  const notes = { messages: [], states: [], details: [], gaps: 0, closes: [] };
  notes.sub = comet.subscribe(channel, {
    after: 'oldest',
    onmessage: (item) => notes.messages.push(item.data),
    ongap: () => (notes.gaps += 1),
    onclose: (item) => notes.closes.push(item),
    onstate: (state, detail) => {
      notes.states.push(state);
      notes.details.push(detail);
    },
    ...options,
  });
  closers.push(() => notes.sub.close());
  return notes;
}

/** Starts a server of the test's own, which notes its requests. */
export async function listen(answer, onupgrade) {
  const asked = [];
  const http = createServer((request, response) => {
    asked.push({ method: request.method, url: request.url, headers: request.headers });
    answer(request, response, asked.length);
  });
  if (onupgrade) http.on('upgrade', onupgrade);
  const listening = (port) => new Promise((resolve) => http.listen(port, '127.0.0.1', resolve));
  await listening(0);
  const { port } = http.address();
  const close = () => {
    http.closeAllConnections();
    http.close();
  };
  closers.push(close);
  return { url: `http://127.0.0.1:${port}`, asked, close, reopen: () => listening(port) };
}

export function reply(response, status, body, headers = {}) {
  response.writeHead(status, { 'Content-Type': 'application/json', ...headers });
  response.end(JSON.stringify(body));
}
