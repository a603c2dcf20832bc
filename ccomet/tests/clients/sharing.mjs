// ccomet.js in Node: subscriptions that share a WebSocket. node.rs runs it with the folder of the
// library:
//
//     node sharing.mjs FOLDER
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { closeAll, follow, pause, until } from './common.mjs';
import { serve } from './socket_server.mjs';

const { default: CComet } = await import(pathToFileURL(`${process.argv[2]}/ccomet.mjs`));

const names = (count) => Array.from({ length: count }, (_, n) => `c${n}`);
const isOpen = (notes) => notes.states.at(-1) === 'open';
const opened = (all) => until('all are open', () => all.every(isOpen));
const error = (ref, status, code, more = {}) => ({ items: [{ type: 'error', ref, status, code, detail: 'No.', ...more }] });
const closeSubs = (all) => all.forEach(({ sub }) => sub.close());

describe('subscriptions on one WebSocket', { concurrency: true }, () => {
  after(closeAll);

  test('each subscription has its own channels, position and messages', async () => {
    const server = await serve();
    const all = names(20).map((name) => follow(new CComet(server.url), name, { after: `at-${name}` }));
    await opened(all);
    assert.deepEqual(server.handshakes, ['/channels']);
    const [connection] = server.connections;
    assert.equal(new Set(connection.commands.map(({ ref }) => ref)).size, 20);
    for (const [n, name] of names(20).entries()) {
      assert.equal(all[n].sub.transport, 'websocket');
      assert.equal(all[n].sub.position, `at-${name}`);
      connection.message(name, `P${n}`, `to ${name}`);
    }
    await until('all arrive', () => all.every(({ messages }) => messages.length > 0));
    for (const [n, { messages, sub }] of all.entries()) {
      assert.deepEqual([messages, sub.position], [[`to c${n}`], `P${n}`]);
    }
    closeSubs(all);
    await until('it is closed', () => connection.isOver);
  });

  test('commands contain the options of their subscriptions', async () => {
    const server = await serve();
    const comet = new CComet(server.url);
    const all = [
      comet.subscribe(['a', 'b'], { last: 5 }),
      comet.subscribe('c', { presence: true, after: 'oldest' }),
      comet.subscribe('d'),
    ];
    await until('all are asked for', () => server.connections[0]?.commands.length === 3);
    assert.deepEqual(server.connections[0].commands.map(({ ref, ...rest }) => rest), [
      { type: 'subscribe', channels: ['a', 'b'], last: 5 },
      { type: 'subscribe', channels: ['c'], after: 'oldest', presence: true },
      { type: 'subscribe', channels: ['d'], after: 'latest' },
    ]);
    all.forEach((sub) => sub.close());
  });

  test('only subscriptions with one token share a WebSocket', async () => {
    const server = await serve();
    const [give, other] = [async () => 'f', async () => 'f'];
    const tokens = [undefined, '', 'x', 'x', 'y', give, give, other];
    const all = tokens.map((token) => follow(new CComet(server.url, { token }), 'a'));
    await opened(all);
    assert.deepEqual(server.handshakes.toSorted(), [
      '/channels', '/channels?token=f', '/channels?token=f', '/channels?token=x', '/channels?token=y']);
    closeSubs(all);
  });

  test('a refused or closed subscription disturbs no other', async () => {
    const server = await serve({
      oncommand: (connection, { ref, channels }) => channels?.[0] === 'secret' && !connection.send(error(ref, 403, 'not_allowed')),
    });
    const comet = new CComet(server.url);
    const all = ['a', 'secret', 'b'].map((name) => follow(comet, name));
    await until('the refused one ends', () => all[1].states.includes('closed'));
    assert.equal(all[1].details.at(-1).code, 'not_allowed');
    await opened([all[0], all[2]]);
    const [connection] = server.connections;
    const ref = connection.of('b');
    connection.sendTo('b', { type: 'close', channel: 'b' });
    await until('it ends', () => all[2].states.at(-1) === 'closed');
    assert.deepEqual(all[2].closes, [{ type: 'close', channel: 'b' }]);
    connection.message('a', 'P1', 'still here');
    await until('it arrives', () => all[0].messages.length === 1);
    assert.deepEqual(all[0].states, ['connecting', 'open']);
    // An ended subscription is not ended again.
    assert.ok(!connection.commands.some((command) => command.type === 'unsubscribe' && command.ref === ref));
    assert.equal(server.handshakes.length, 1);
    closeSubs(all);
  });

  test('a subscription for which the server has no room waits alone', async () => {
    let refused = 0;
    const server = await serve({
      oncommand: (connection, { ref, channels }) => channels?.[0] === 'busy' && refused++ < 1
        && !connection.send(error(ref, 429, 'too_many_requests', { retry_ms: 700 })),
    });
    const comet = new CComet(server.url);
    const [busy, calm] = [follow(comet, 'busy'), follow(comet, 'calm')];
    await opened([busy, calm]);
    assert.deepEqual(busy.states, ['connecting', 'waiting', 'connecting', 'open']);
    assert.equal(busy.details[1], 700);
    assert.deepEqual(calm.states, ['connecting', 'open']);
    assert.equal(server.handshakes.length, 1);
    closeSubs([busy, calm]);
  });

  test('after a break all subscriptions resume together, each from its position', async () => {
    const server = await serve();
    const comet = new CComet(server.url);
    const all = names(20).map((name) => follow(comet, name, { after: `at-${name}` }));
    await opened(all);
    for (const name of names(10)) server.connections[0].message(name, `later-${name}`, 'x');
    await until('they arrive', () => all.slice(0, 10).every(({ messages }) => messages.length === 1));
    server.connections[0].cut();
    await until('all notice', () => all.every(({ states }) => states.includes('waiting')));
    assert.equal(new Set(all.map(({ details }) => details[2])).size, 1, 'the wait is that of the connection');
    await opened(all);
    assert.equal(server.handshakes.length, 2);
    const asked = server.connections[1].commands.map(({ channels, after }) => [channels[0], after]);
    assert.deepEqual(Object.fromEntries(asked), Object.fromEntries(names(20).map((name, n) => [name, `${n < 10 ? 'later' : 'at'}-${name}`])));
    closeSubs(all);
  });

  test('the connection, not each subscription, retries a server that is away', async () => {
    const server = await serve();
    const comet = new CComet(server.url);
    const all = names(20).map((name) => follow(comet, name));
    await opened(all);
    let attempts = 0;
    const RealSocket = globalThis.WebSocket;
    globalThis.WebSocket = class extends RealSocket {
      constructor(url) {
        super(url);
        if (url.startsWith(server.url.replace('http', 'ws'))) attempts += 1;
      }
    };
    server.close();
    server.connections[0].cut();
    await pause(1_000);
    // A later subscription waits with the others.
    all.push(follow(comet, 'new'));
    await pause(3_000);
    const waits = all.map(({ states }) => states.filter((state) => state === 'waiting').length);
    assert.ok(attempts > 0 && attempts <= Math.max(...waits), `${attempts} attempts, ${waits} waits`);
    assert.equal(new Set(waits.slice(0, 20)).size, 1);
    await server.reopen();
    await opened(all);
    assert.equal(server.connections.length, 2);
    globalThis.WebSocket = RealSocket;
    closeSubs(all);
  });

  test('a server that shuts down sends the time to reconnect', async () => {
    const server = await serve();
    const comet = new CComet(server.url);
    const all = names(3).map((name) => follow(comet, name));
    await opened(all);
    server.connections[0].send({ items: [{ type: 'bye', retry_ms: 800 }] });
    await until('all wait', () => all.every(({ states }) => states.at(-1) === 'waiting'));
    assert.deepEqual(all.map(({ details }) => details.at(-1)), [800, 800, 800]);
    await opened(all);
    assert.equal(server.handshakes.length, 2);
    closeSubs(all);
  });

  test('a message in transit to a closed subscription is dropped', async () => {
    const server = await serve();
    const comet = new CComet(server.url);
    const [gone, stays] = [follow(comet, 'a'), follow(comet, 'b')];
    await opened([gone, stays]);
    const [connection] = server.connections;
    const ref = connection.of('a');
    gone.sub.close();
    connection.message('a', 'P1', 'late');
    await until('it is ended', () => connection.commands.some((command) => command.type === 'unsubscribe' && command.ref === ref));
    const again = follow(comet, 'a');
    await opened([again]);
    assert.notEqual(connection.of('a'), ref);
    connection.message('b', 'P2', 'x');
    await until('it arrives', () => stays.messages.length === 1);
    assert.deepEqual([gone.messages, again.messages], [[], []]);
    closeSubs([stays, again]);
  });

  test('a page that changes channels keeps its connection, and a page without channels closes it', async () => {
    const server = await serve();
    const comet = new CComet(server.url);
    let at = follow(comet, 'a');
    for (const name of names(3)) {
      await opened([at]);
      at.sub.close();
      await pause(50);
      at = follow(comet, name);
    }
    await opened([at]);
    assert.equal(server.handshakes.length, 1);
    at.sub.close();
    await until('it is closed', () => server.connections[0].isOver);
    at = follow(comet, 'b');
    await opened([at]);
    assert.equal(server.handshakes.length, 2);
    at.sub.close();
  });

  test('callbacks may subscribe and close', async () => {
    const server = await serve();
    const comet = new CComet(server.url);
    const inner = [];
    const outer = follow(comet, 'outer', {
      onmessage: ({ data }) => {
        inner.push(follow(comet, data));
        assert.deepEqual(inner.at(-1).states, [], 'nothing is called before subscribe has returned');
        if (inner.length === 2) outer.sub.close();
      },
    });
    await opened([outer]);
    const ref = server.connections[0].of('outer');
    const message = (data, position) => ({ type: 'message', channel: 'outer', position, data });
    server.connections[0].send({ ref, position: 'P3', items: [message('x', 'P1'), message('y', 'P2'), message('z', 'P3')] });
    await until('all are open', () => inner.length === 2 && inner.every(isOpen));
    assert.equal(outer.sub.position, 'P2');
    assert.equal(outer.sub.state, 'closed');
    assert.equal(server.handshakes.length, 1);
    closeSubs(inner);
  });

  test('gaps, joins and leaves are reported', async () => {
    const server = await serve({
      oncommand: (connection, { type, ref }) => type === 'subscribe' && (connection.send({ ref, position: '', items: [{ type: 'subscribed' }] }), true),
    });
    const items = [];
    const notes = follow(new CComet(server.url), 'a', { after: 'old', presence: true, onitem: (item) => items.push(item.type) });
    await opened([notes]);
    assert.equal(notes.sub.position, 'old');
    const ref = server.connections[0].of('a');
    server.connections[0].send({ ref, position: 'P1', items: [{ type: 'gap', channel: 'a', missed: 3, position: 'x' }, { type: 'join', id: 'ann' }] });
    server.connections[0].send({ ref, position: 'P2', items: [{ type: 'leave', id: 'ann' }] });
    await until('all arrive', () => items.length === 2);
    assert.deepEqual([items, notes.gaps, notes.sub.position], [['join', 'leave'], 1, 'P2']);
    notes.sub.close();
  });

  test('a full connection makes the library open another', async () => {
    const most = 8;
    const server = await serve({
      oncommand: (connection, { type, ref }) => {
        const live = (kind) => connection.commands.filter((command) => command.type === kind && !connection.refused?.has(command.ref)).length;
        if (type !== 'subscribe' || live('subscribe') - live('unsubscribe') <= most) return false;
        (connection.refused ??= new Set()).add(ref);
        connection.send(error(ref, 400, 'too_many_subscriptions'));
        return true;
      },
    });
    const comet = new CComet(server.url);
    const all = names(20).map((name) => follow(comet, name));
    await opened(all);
    const live = () => server.connections.filter((connection) => !connection.isOver);
    assert.equal(server.connections.length, 3);
    assert.ok(all.every(({ states }) => !states.includes('waiting')));
    // A closed subscription makes room again.
    all.shift().sub.close();
    all.push(follow(comet, 'next'));
    await opened(all);
    assert.equal(server.connections.length, 3);
    for (const connection of live()) connection.cut();
    await until('all notice', () => all.every(({ states }) => states.includes('waiting')));
    await opened(all);
    assert.equal(server.connections.length, 6);
    closeSubs(all);
    await until('all are closed', () => live().length === 0);
  });

  test('a server that allows no subscription on a connection is not retried in a loop', async () => {
    const server = await serve({
      oncommand: (connection, { type, ref }) => type === 'subscribe' && (connection.send(error(ref, 400, 'too_many_subscriptions')), true),
    });
    const notes = follow(new CComet(server.url), 'a');
    await until('it ends', () => notes.states.includes('closed'));
    assert.equal(notes.details.at(-1).code, 'too_many_subscriptions');
    assert.equal(server.handshakes.length, 1);
  });

  test('an unanswered subscription is retried while the others go on', async () => {
    let asked = 0;
    const server = await serve({ oncommand: (_, { channels }) => channels?.[0] === 'lost' && asked++ < 1 });
    const comet = new CComet(server.url);
    const [lost, calm] = [follow(comet, 'lost'), follow(comet, 'calm')];
    const beat = setInterval(() => server.connections[0]?.send({ items: [] }), 1_000);
    await opened([lost, calm]);
    clearInterval(beat);
    assert.deepEqual(lost.states, ['connecting', 'waiting', 'connecting', 'open']);
    assert.deepEqual(calm.states, ['connecting', 'open']);
    assert.equal(server.handshakes.length, 1);
    closeSubs([lost, calm]);
  });

  test('subscriptions that are answered slowly, one after the other, do not time out', async () => {
    let turn = Promise.resolve();
    const server = await serve({
      oncommand: (connection, { type, ref }) => {
        if (type !== 'subscribe') return false;
        turn = turn.then(() => pause(1_500)).then(() => connection.send({ ref, position: 'P', items: [{ type: 'subscribed' }] }));
        return true;
      },
    });
    const comet = new CComet(server.url);
    const all = names(9).map((name) => follow(comet, name));
    await opened(all);
    assert.ok(all.every(({ states }) => states.join() === 'connecting,open'));
    assert.equal(server.connections[0].commands.length, 9);
    closeSubs(all);
  });

  test('an unanswered subscription on a silent connection gives the connection up', async () => {
    const server = await serve({ oncommand: (_, { channels }) => channels?.[0] === 'second' && server.connections.length === 1 });
    const comet = new CComet(server.url);
    const first = follow(comet, 'first');
    await opened([first]);
    await pause(100);
    const second = follow(comet, 'second');
    await opened([second, first]);
    await until('both are on a new connection', () => first.states.length === 5 && isOpen(first));
    assert.equal(server.handshakes.length, 2);
    assert.deepEqual(first.states, ['connecting', 'open', 'waiting', 'connecting', 'open']);
    closeSubs([first, second]);
  });

  test('all subscriptions notice that a connection falls silent', async () => {
    const server = await serve({ heartbeatMs: () => (server.connections.length === 1 ? 200 : 15_000) });
    const comet = new CComet(server.url);
    const all = names(3).map((name) => follow(comet, name));
    await until('all are open again', () => all.every(({ states }) => states.join() === 'connecting,open,waiting,connecting,open'));
    assert.equal(server.handshakes.length, 2);
    closeSubs(all);
  });

  test('one token is requested and renewed for all subscriptions', async () => {
    const server = await serve();
    let calls = 0;
    const comet = new CComet(server.url, { token: async () => `t${(calls += 1)}` });
    const items = [];
    const all = names(20).map((name) => follow(comet, name, { onitem: (item) => items.push(item.type) }));
    await opened(all);
    assert.equal(calls, 1);
    server.connections[0].send({ items: [{ type: 'token', expires_in_s: 30 }] });
    await until('it is renewed', () => server.connections[0].commands.some(({ type }) => type === 'token'));
    await pause(200);
    const sent = server.connections[0].commands.filter(({ type }) => type === 'token');
    assert.deepEqual([calls, sent.map(({ token }) => token)], [2, ['t2']]);
    assert.ok(!server.connections[0].commands.some(({ type, ref }) => type === 'subscribe' && ref === sent[0].ref));
    assert.deepEqual(items, Array.from(all, () => 'token'));
    assert.deepEqual([...new Set(all.map(({ states }) => states.join()))], ['connecting,open']);
    // When the token expires, one new connection is opened at once.
    server.connections[0].send({ items: [{ type: 'close', reason: 'token_expired' }] });
    await until('all are open again', () => all.every(({ states }) => states.join() === 'connecting,open,connecting,open'));
    assert.deepEqual(server.handshakes, ['/channels?token=t1', '/channels?token=t3']);
    assert.ok(all.every(({ closes }) => closes.length === 0));
    closeSubs(all);
  });

  test('a refused renewal ends no subscription before the old token expires', async () => {
    const server = await serve({
      oncommand: (connection, { type, ref }) => type === 'token' && (connection.send(error(ref, 403, 'subject_changed')), true),
    });
    let calls = 0;
    const comet = new CComet(server.url, { token: () => `t${(calls += 1)}` });
    const all = names(3).map((name) => follow(comet, name));
    await opened(all);
    server.connections[0].send({ items: [{ type: 'token', expires_in_s: 30 }] });
    await until('it was tried', () => server.connections[0].commands.some(({ type }) => type === 'token'));
    await pause(200);
    assert.ok(all.every(isOpen));
    server.connections[0].send({ items: [{ type: 'close', reason: 'token_expired' }] });
    await until('all are open again', () => all.every(({ states }) => states.join() === 'connecting,open,connecting,open'));
    closeSubs(all);
  });

  test('a token as text ends all its subscriptions when it expires', async () => {
    const server = await serve();
    const comet = new CComet(server.url, { token: 'x' });
    const all = names(3).map((name) => follow(comet, name));
    await opened(all);
    server.connections[0].send({ items: [{ type: 'close', reason: 'token_expired' }] });
    await until('all end', () => all.every(({ states }) => states.at(-1) === 'closed'));
    assert.ok(all.every(({ details, closes }) => details.at(-1).code === 'token_expired' && closes.length === 1));
  });

  test('a subscription that the shared token does not allow is retried once with a new token', async () => {
    const server = await serve({
      oncommand: (connection, { type, ref, channels }) => {
        const isAllowed = !channels?.[0].startsWith('group') || connection.url.endsWith('=member');
        return type === 'subscribe' && !isAllowed && !connection.send(error(ref, 403, 'not_allowed'));
      },
    });
    let token = 'guest';
    const comet = new CComet(server.url, { token: () => token });
    const first = follow(comet, 'first');
    await opened([first]);
    const refused = follow(comet, 'group1');
    await until('it ends', () => refused.states.includes('closed'));
    assert.equal(refused.details.at(-1).code, 'not_allowed');
    const other = follow(comet, 'other');
    await opened([other]);
    assert.ok(server.connections[0].of('other'), 'it is on the first connection still');
    token = 'member';
    const group = ['group1', 'group2'].map((name) => follow(comet, name));
    await opened(group);
    assert.ok(group.every(({ states }) => !states.includes('waiting')));
    assert.deepEqual(first.states, ['connecting', 'open']);
    assert.equal(server.handshakes.filter((url) => url.endsWith('=member')).length, 1);
    closeSubs([first, other, ...group]);
    await until('all are closed', () => server.connections.every(({ isOver }) => isOver));
  });

  test('without a WebSocket one subscription finds out why, and all use the next transport', async () => {
    const server = await serve({ refuse: () => 404 });
    const comet = new CComet(server.url);
    const all = names(3).map((name) => follow(comet, name));
    await until('all go on by another', () => all.every(({ sub, states }) => sub.transport === 'sse' && states.includes('waiting')));
    const asked = server.asked.filter(({ url }) => url.includes('wait=0'));
    assert.deepEqual([server.handshakes.length, asked.length], [1, 1]);
    // A later subscription does not try a WebSocket.
    const next = follow(comet, 'next');
    assert.equal(next.sub.transport, 'sse');
    closeSubs([...all, next]);
  });

  test('a WebSocket that worked before is tried twice', async () => {
    let refusals = 0;
    const server = await serve({ refuse: () => refusals-- > 0 && 503 });
    const comet = new CComet(server.url);
    const all = names(3).map((name) => follow(comet, name));
    await opened(all);
    // The first attempt of another `CComet` to the same server is repeated, too.
    refusals = 1;
    const other = follow(new CComet(server.url, { token: 'x' }), 'other');
    await opened([other]);
    assert.deepEqual([other.sub.transport, other.states.length], ['websocket', 4]);
    other.sub.close();
    for (const [refused, transport] of [[1, 'websocket'], [2, 'sse']]) {
      await opened(all);
      refusals = refused;
      server.connections.findLast(({ url }) => url === '/channels').cut();
      await until('all go on', () => all.every(({ states, sub }) => sub.transport === transport && states.filter((state) => state === 'waiting').length >= refused));
      await until('it was tried', () => server.handshakes.length === (refused === 1 ? 5 : 7));
    }
    closeSubs(all);
  });

  test('a token that the handshake refuses ends all subscriptions, a refused channel ends one', async () => {
    for (const [status, code, handshakes] of [[401, 'token_invalid', 1], [403, 'not_allowed', 3]]) {
      const server = await serve({ refuse: () => status, poll: () => [status, { code, status, detail: 'No.' }] });
      const comet = new CComet(server.url, { token: 'x', transport: 'websocket' });
      const all = names(3).map((name) => follow(comet, name));
      await until('they end', () => all.every(({ states }) => states.at(-1) === 'closed'));
      assert.ok(all.every(({ details }) => details.at(-1).code === code));
      assert.equal(server.handshakes.length, handshakes);
    }
  });

  test('an invalid message is requested again', async () => {
    const server = await serve();
    const comet = new CComet(server.url);
    const all = names(2).map((name) => follow(comet, name, { after: 'P0' }));
    await opened(all);
    server.connections[0].send({ ref: server.connections[0].of('c0'), position: 'P1' });
    await until('both are open again', () => all.every(({ states }) => states.join() === 'connecting,open,waiting,connecting,open'));
    assert.deepEqual(server.connections[1].commands.map(({ after }) => after), ['P0', 'P0']);
    closeSubs(all);
  });
});
