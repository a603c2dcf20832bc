// ccomet.js in Node: what a program may rely on. node.rs runs it with the server's address, the
// secret of its key, and the folder of the library:
//
//     node library.mjs http://127.0.0.1:8100 SECRET FOLDER
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { after, describe, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { closeAll, follow, listen, pause, reply, until } from './common.mjs';

const [server, secret, folder] = process.argv.slice(2);
const { default: CComet } = await import(pathToFileURL(`${folder}/ccomet.mjs`));
const PATIENCE_MS = 60_000;

const base64 = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
const nowS = () => Math.floor(Date.now() / 1_000);

/** Returns a token for so many seconds, by default for all channels. */
function mint(ttlS, claims = {}) {
  const body = { iat: nowS(), exp: nowS() + ttlS, subscribe: ['*'], publish: ['*'], presence: ['*'], ...claims };
  const text = `${base64({ alg: 'HS256', typ: 'JWT', kid: 'main' })}.${base64(body)}`;
  return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`;
}

describe('ccomet.js', { concurrency: true }, () => {
  after(closeAll);

  for (const transport of ['sse', 'lines', 'poll']) {
    test(`a token function keeps a subscription going by ${transport}: from its position with a new token`, async () => {
      const given = [];
      const token = async () => {
        await pause(5);
        given.push(mint(2));
        return given.at(-1);
      };
      const publisher = new CComet(server, { token: () => mint(600) });
      const channel = `expiring-${transport}`;
      const notes = follow(new CComet(server, { transport, token }), channel);
      const published = [];
      const end = Date.now() + 5_000; // more than the lifetime of two tokens
      while (Date.now() < end || (given.length < 3 && Date.now() < end + PATIENCE_MS)) {
        published.push(`message ${published.length}`);
        await publisher.publish(channel, published.at(-1));
        await pause(100);
      }
      await until('all arrive', () => notes.messages.length >= published.length);
      assert.deepEqual(notes.messages, published, 'each once and in order');
      assert.equal(notes.gaps, 0);
      assert.ok(!notes.states.includes('closed'), notes.states.join());
      assert.deepEqual(notes.closes, []);
      notes.sub.close();
    });
  }

  test('a token function renews a WebSocket in place', async () => {
    const given = [];
    // The server warns ten seconds before the token expires.
    const token = async () => {
      given.push(mint(12));
      return given.at(-1);
    };
    const notes = follow(new CComet(server, { transport: 'websocket', token }), 'renewed');
    const publisher = new CComet(server, { token: () => mint(600) });
    const end = Date.now() + 14_000; // more than the lifetime of the first token
    let count = 0;
    for (; Date.now() < end || (given.length < 3 && Date.now() < end + PATIENCE_MS); count += 1) {
      await publisher.publish('renewed', String(count));
      await pause(200);
    }
    await until('all arrive', () => notes.messages.length >= count);
    assert.deepEqual(notes.messages, Array.from({ length: count }, (_, n) => String(n)));
    assert.deepEqual(notes.states, ['connecting', 'open'], 'it is the first connection still');
    assert.ok(given.length <= 6, `${given.length} tokens were asked for`);
    notes.sub.close();
  });

  test('a token that is cached until it expires is not requested in a loop', async () => {
    let held;
    let calls = 0;
    const token = () => {
      calls += 1;
      if (!held || held.end <= Date.now()) held = { token: mint(4), end: (nowS() + 4) * 1_000 };
      return held.token;
    };
    const notes = follow(new CComet(server, { transport: 'websocket', token }), 'kept');
    await until('it is opened anew', () => notes.states.filter((state) => state === 'open').length >= 2);
    assert.ok(calls < 25, `${calls} calls`);
    assert.ok(!notes.states.includes('closed'), notes.states.join());
    notes.sub.close();
  });

  test('a token as text ends its subscription with a reason', async () => {
    for (const transport of ['websocket', 'sse', 'lines', 'poll']) {
      const notes = follow(new CComet(server, { transport, token: mint(2) }), 'fixed');
      await until('it ends', () => notes.states.includes('closed'));
      assert.equal(notes.details.at(-1)?.code, 'token_expired', transport);
    }
  });

  test('a token function that fails is called again', async () => {
    let calls = 0;
    const token = async () => {
      calls += 1;
      if (calls === 1) throw new Error('the site is away');
      return mint(600);
    };
    const comet = new CComet(server, { transport: 'poll', token });
    const notes = follow(comet, 'failing');
    await until('it opens', () => notes.states.includes('open'));
    notes.sub.close();
    const refusing = new CComet(server, { token: () => Promise.reject(new Error('the site is away')) });
    await assert.rejects(refusing.publish('failing', 'x'), { code: 'token', message: /the site is away/ });
  });

  test('a request with an expired token is repeated once with a new token', async () => {
    for (const ask of [
      (comet) => comet.publish('late', 'x'),
      (comet) => comet.history('late'),
      (comet) => comet.presence('late'),
    ]) {
      const tokens = [mint(-300), mint(600)];
      let calls = 0;
      await ask(new CComet(server, { token: () => tokens[calls++] }));
      assert.equal(calls, 2);
      await assert.rejects(ask(new CComet(server, { token: () => mint(-300) })), { code: 'token_expired', status: 401 });
    }
  });

  test('a token function whose tokens are always refused ends the subscription', async () => {
    const own = await listen((_, response) => reply(response, 401, { code: 'token_invalid', status: 401, detail: 'No.' }));
    let calls = 0;
    const notes = follow(new CComet(own.url, { transport: 'poll', token: () => `token ${(calls += 1)}` }), 'a');
    await until('it ends', () => notes.states.includes('closed'));
    assert.equal(notes.details.at(-1).code, 'token_invalid');
    assert.equal(calls, 5);
    own.close();
  });

  test('a token is in a header and in no URL', async () => {
    const line = JSON.stringify({ position: 'P', items: [{ type: 'hello', heartbeat_ms: 15_000 }] });
    const own = await listen((request, response) => {
      if (request.headers.accept === 'application/json' || request.method === 'POST') {
        return reply(response, 200, { position: 'P', items: [], members: [] });
      }
      response.writeHead(200, { 'Content-Type': request.headers.accept });
      const isLines = request.url.includes('transport=lines');
      response.write(isLines ? `${line}\n` : 'id: P\nevent: hello\ndata: {"type":"hello","heartbeat_ms":15000}\n\n');
    });
    for (const transport of ['sse', 'lines', 'poll']) {
      const comet = new CComet(own.url, { transport, token: async () => 'secret' });
      const notes = follow(comet, 'a');
      await until(`${transport} opens`, () => notes.states.includes('open'));
      notes.sub.close();
    }
    const comet = new CComet(own.url, { token: 'secret' });
    await comet.publish('a', 'x', { key: 'k' });
    await comet.history('a', { limit: 1 });
    await comet.presence('a');
    assert.ok(own.asked.length >= 6);
    for (const { url, headers } of own.asked) {
      assert.equal(headers.authorization, 'Bearer secret', url);
      assert.ok(!url.includes('secret'), url);
    }
    own.close();
  });

  test('the time to retry that a server sends is kept', async () => {
    for (const [body, headers] of [
      [{ code: 'too_many_requests', status: 429, retry_ms: 1_250 }, {}],
      [{ code: 'too_many_requests', status: 429, retry_ms: 1_250 }, { 'Retry-After': '60' }],
      [{}, { 'Retry-After': '2' }],
    ]) {
      const own = await listen((_, response, count) => {
        if (count === 1) reply(response, 429, body, headers);
        else if (count === 2) reply(response, 200, { position: 'P', items: [] });
        // Further requests wait.
      });
      const notes = follow(new CComet(own.url, { transport: 'poll' }), 'a');
      await until('it opens', () => notes.states.includes('open'));
      assert.equal(notes.details[notes.states.indexOf('waiting')], body.retry_ms ?? 2_000);
      notes.sub.close();
      own.close();
    }
  });

  test('the best available transport is used', async () => {
    const notes = follow(new CComet(server, { token: mint(600) }), 'auto');
    await until('it opens', () => notes.states.includes('open'));
    assert.equal(notes.sub.transport, globalThis.WebSocket ? 'websocket' : 'sse');
    notes.sub.close();
  });

  test('without a page a complete URL is required', () => {
    for (const url of [undefined, '/', 'comet/']) assert.throws(() => new CComet(url), /whole URL/);
    for (const transport of ['jsonp', 'iframe']) {
      assert.throws(() => new CComet(server, { transport }), /missing here/);
    }
  });
});
