/*
 * ccomet.js: subscribes and publishes to a CComet server, from a web page, a worker, or Node 20 and
 * later.
 *
 *     const comet = new CComet('http://127.0.0.1:8100');
 *     const sub = comet.subscribe('news', { after: 'oldest', onmessage: (item) => console.log(item.data) });
 *     await comet.publish('news', 'hello');
 *     sub.close();
 *
 * A subscription guarantees that every message after its starting point comes exactly once and in
 * order, whatever happens to the network, the server or the page in between. If the server no
 * longer has a message, `ongap` reports that before any later message is delivered. The guarantee
 * rests on one rule: the position advances in the same step in which the item is delivered, and
 * every new request starts after the position.
 *
 * Transports: WebSocket, Server-Sent Events, endless lines by fetch, long polls by fetch, JSONP
 * (script tags) for pages that CORS does not admit, and a page in a hidden frame.
 * `subscription.transport` names the current one.
 *
 * Subscriptions to the same server with the same token (the same text, the same function, or none)
 * share one WebSocket, even if they belong to different `CComet` objects. With any other transport,
 * each subscription has a connection of its own, and browsers open at most six HTTP/1.1 connections
 * to a host: if no WebSocket gets through, a page that needs many channels should read them with
 * one subscription, `subscribe(['a', 'b'])`.
 *
 * If the transport has headers, which is the case for fetch, a token is sent in the header
 * `Authorization`. A WebSocket, a script tag and a frame have no headers, so that the token is in
 * their URLs.
 */
(function () {
  'use strict';

  // A page may load this file both as a script and through ccomet.mjs. The JSONP replies of both go
  // through the global name, so the first copy stays.
  if (globalThis.CComet) return;

  const HELLO_TIMEOUT_MS = 10_000; // a stream without its first event by then is stuck in the buffer of a proxy
  const HEARTBEATS_MISSED_MAX = 2.5;
  const HEARTBEAT_DEFAULT_MS = 15_000;

  const POLL_WAIT_S = 25; // below the 30 seconds after which many proxies give up
  const POLL_GRACE_MS = 10_000; // how late a reply may be before the connection counts as dead
  const POLL_EMPTY_MS = 1_000; // an empty reply that is faster than this is followed by a pause of this length

  const PUBLISH_TIMEOUT_MS = 15_000;
  const TOKEN_TIMEOUT_MS = 15_000;
  const TOKENS_REFUSED_MAX = 5; // after this many refused tokens in a row, their age is not the reason
  const JSONP_URL_CHARS_MAX = 8_000; // the length of a request line that servers and proxies accept

  const BACKOFF_FIRST_MS = 500;
  const BACKOFF_CAP_MS = 15_000;
  const RETRY_AFTER_CAP_MS = 300_000;
  const STABLE_MS = 5_000; // a connection that lasts this long resets the backoff
  const TIMER_SLACK_MS = 100; // how early a timer may be, because browsers make clocks coarse
  const LINGER_MS = 1_000; // how long a WebSocket without subscriptions is kept, for a page that moves to another channel

  const TRANSPORTS = ['websocket', 'sse', 'lines', 'poll', 'jsonp', 'iframe'];
  const AGAIN_FIRST_MS = 15_000; // a transport that does not get through is skipped: when to try it again
  const AGAIN_CAP_MS = 3_600_000;

  /**
   * The error with which `publish` rejects, and the `detail` of the last state of a subscription
   * that an error ended.
   *
   * `code` is that of the server (`message_too_large`), or `network`, `timeout`, `bad_reply`,
   * `http_error`, `token` (the function that supplies tokens failed), and for streams `silent` or
   * `refused`. `status` is the HTTP status, or 0 if there was no reply.
   */
  class CometError extends Error {
    constructor(code, status, message, retryMs) {
      super(message);
      this.name = 'CometError';
      this.code = code;
      this.status = status;
      this.retryMs = retryMs;
    }

    /**
     * Whether the server itself refused, and would refuse again. A bare 404 from a proxy in the
     * middle of a deployment does not count.
     */
    get final() {
      const refused = this.status >= 400 && this.status < 500 && ![408, 425, 429].includes(this.status);
      return refused && this.code !== 'http_error';
    }
  }

  class CComet {
    #base;
    #mode;
    #token;

    /**
     * @param {string} [serverUrl] the address of the server, relative to the page or the worker; by
     *     default their own origin. If there is neither, as in Node, it has to be absolute:
     *     `http://127.0.0.1:8100`
     * @param {object} [options]
     * @param {'auto'|'websocket'|'sse'|'lines'|'poll'|'jsonp'|'iframe'} [options.transport] `auto`
     *     takes the first of WebSocket, Server-Sent Events and polls that the browser supports and
     *     that gets through
     * @param {string|function(): (string|Promise<string>)} [options.token] the token, which states
     *     who the client is and what it may do. A function is called for each request, and again
     *     when the token of a stream is about to expire: on a WebSocket, the new token replaces the
     *     old one; any other stream is reopened, and continues from its position. The function is
     *     called once for all subscriptions on a WebSocket, and again for a subscription that the
     *     common token does not allow. If the token is a text, its subscriptions end when it
     *     expires
     */
    constructor(serverUrl = '/', { transport = 'auto', token } = {}) {
      if (transport !== 'auto' && !TRANSPORTS.includes(transport)) {
        throw new TypeError(`CComet: no such transport: ${transport}`);
      }
      if (transport !== 'auto' && !has(transport)) {
        throw new TypeError(`CComet: the transport '${transport}' needs something that is missing here`);
      }
      this.#base = absolute(serverUrl).href.replace(/[?#].*$/, '').replace(/\/+$/, '');
      this.#mode = transport === 'auto' && !globalThis.fetch ? 'jsonp' : transport;
      this.#token = new Token(token);
    }

    /**
     * Subscribes to a channel, or to several channels with one position for all.
     *
     * The callbacks are `onmessage(item)`, `ongap(item)` and `onclose(item)` with the items of the
     * server, `onitem(item)` with items of any other type, and `onstate(state, detail)`:
     *
     *     'connecting'
     *     'open'        messages arrive
     *     'waiting'     the connection broke, or the server has no room; the next attempt is in
     *                   `detail` milliseconds
     *     'closed'      for good: by `close()`, because the server closed a channel (`onclose` was
     *                   called), or because it refuses the subscription (`detail` is the error)
     *
     * A closed channel ends the whole subscription, because its response ends with the channel. To
     * continue, subscribe again. No callback is called before `subscribe` has returned. An error
     * that a callback throws is reported, and stops nothing.
     *
     * @param {string|string[]} channels
     * @param {object} [options] the callbacks; `after`: 'latest', 'oldest', or the `position` of an
     *     earlier subscription to the same channels; `last`: begins with this many messages
     *     instead; `presence`: if true, `onitem` gets an item of the type 'join' or 'leave' for
     *     each member that comes or goes. `presence()` returns the members that are there already,
     *     and a `position` to use as `after`
     */
    subscribe(channels, options = {}) {
      const names = [channels].flat();
      if (names.length === 0 || !names.every((name) => typeof name === 'string' && name !== '')) {
        throw new TypeError('CComet: subscribe takes the name of a channel, or an array of names');
      }
      if (options.last && !(Number.isSafeInteger(Number(options.last)) && options.last > 0)) {
        throw new TypeError('CComet: `last` is a number of messages');
      }
      return new Subscription(this.#base, names, this.#mode, { ...options, token: this.#token });
    }

    /**
     * Publishes a text. Resolves to `{channel, position}` once the message is in the channel's
     * history; rejects with an error that has `code`, `status` and `final`. After a `timeout` or
     * `network` error the message may or may not have been published: with a `key`, it can be
     * published again, and is kept once.
     *
     * @param {object} [options] `event`: the type of the message; `ttl`: how many seconds the
     *     message is delivered; `key`: identifies a retry as the same message (not with JSONP);
     *     `keepalive`: sends the message even if the page is about to go away
     */
    async publish(channel, text, { event, ttl, key, keepalive = false } = {}) {
      // Half of a surrogate pair has no UTF-8: fetch would replace it silently, encodeURIComponent
      // would throw.
      const body = String(text).replace(/\p{Surrogate}/gu, '\uFFFD');
      const url = channelUrl(this.#base, [channel]);
      // The browser drops the script tags of a page that goes away, but not its keepalive requests.
      if (this.#mode !== 'jsonp' || (keepalive && globalThis.fetch)) {
        const headers = key ? { 'Idempotency-Key': key } : {};
        const options = { method: 'POST', body, headers, keepalive };
        return this.#once((token) => askByFetch(withQuery(url, { event, ttl }), PUBLISH_TIMEOUT_MS, null, token, options));
      }
      const question = withQuery(url, { publish: body, event, ttl });
      return this.#once((token) => {
        if (withToken(question, token).length > JSONP_URL_CHARS_MAX) {
          throw new CometError('message_too_large', 413, 'The text is too long to be published by JSONP');
        }
        return askByScript(question, PUBLISH_TIMEOUT_MS, null, token);
      });
    }

    /**
     * Resolves to the members of a channel: `{channel, subscribers, members: [{id, connections}],
     * position}`.
     */
    presence(channel) {
      return this.#look(`${channelUrl(this.#base, [channel])}/presence`, {});
    }

    /**
     * Resolves to a page of a channel's history: `{items, position, more}`.
     *
     * @param {object} [options] `before` (newest first) or `after` (oldest first): the `position`
     *     of the previous page, or of a subscription; `limit`: the maximum number of items
     */
    history(channel, { before, after, limit } = {}) {
      return this.#look(`${channelUrl(this.#base, [channel])}/history`, { before, after, limit });
    }

    #look(url, parameters) {
      return this.#once((token) => askByFetch(withQuery(url, parameters), PUBLISH_TIMEOUT_MS, null, token));
    }

    /**
     * Sends a request with a token. If that token has just expired, nothing was done, and the
     * request is sent once more with another token.
     */
    async #once(ask) {
      const token = await this.#token.ask();
      try {
        return await ask(token);
      } catch (failure) {
        if (failure.code !== 'token_expired' || !this.#token.isRenewable) throw failure;
        const next = await this.#token.ask();
        if (next === token) throw failure;
        return ask(next);
      }
    }
  }

  /** The source of tokens. */
  class Token {
    #give;

    constructor(token) {
      this.source = token || undefined;
      this.isRenewable = typeof token === 'function';
      this.#give = this.isRenewable ? token : () => token;
    }

    /** Resolves to a token, or to undefined if there is none. */
    async ask(signal) {
      if (!this.isRenewable) return this.#give() || undefined;
      let timer;
      const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new CometError('timeout', 0, 'The token did not come in time')), TOKEN_TIMEOUT_MS);
        if (signal?.aborted) reject(signal.reason);
        signal?.addEventListener('abort', () => reject(signal.reason), { once: true });
      });
      try {
        const token = await Promise.race([new Promise((resolve) => resolve(this.#give())), late]);
        return token ? String(token) : undefined;
      } catch (error) {
        if (error instanceof CometError || signal?.aborted) throw error;
        throw new CometError('token', 0, `There is no token: ${error?.message ?? error}`);
      } finally {
        clearTimeout(timer);
      }
    }
  }

  /** The time to wait before the next attempt. */
  class Backoff {
    #failures = 0;
    #openedAt = Infinity;

    opened() {
      this.#openedAt = Date.now();
    }

    next(failure) {
      if (Date.now() - this.#openedAt >= STABLE_MS) this.#failures = 0;
      this.#openedAt = Infinity;
      const jitter = Math.random() * Math.min(BACKOFF_CAP_MS, BACKOFF_FIRST_MS * 2 ** this.#failures);
      this.#failures += 1;
      // A server that names a time for each client has already spread the clients.
      return Math.round(failure.retryMs > 0 ? Math.min(failure.retryMs, RETRY_AFTER_CAP_MS) : jitter);
    }
  }

  /**
   * Tracks whether a transport gets through. One that does not is skipped for a while, each time
   * for longer.
   */
  class Reach {
    #misses = 0;
    #againAt = 0;

    get isDue() {
      return Date.now() >= this.#againAt;
    }

    hit() {
      this.#misses = 0;
    }

    miss() {
      this.#againAt = Date.now() + Math.min(AGAIN_CAP_MS, AGAIN_FIRST_MS * 4 ** this.#misses);
      this.#misses += 1;
    }
  }

  /** The sessions of all servers and tokens, oldest first. */
  const sessions = [];

  /**
   * A WebSocket that subscriptions to one server with one token share. It is opened for the first
   * of them, and reopened after a break if there are any.
   */
  class Session {
    #base;
    #token;

    // The subscriptions of this session, even while they wait or use another transport. The server
    // reports when there are too many.
    #users = 0;
    #usersMax = Infinity;

    // The subscriptions that are subscribed or about to be, by reference.
    #members = new Map();
    #refs = 0;

    #connection = null;
    #idle;
    #backoff = new Backoff();
    #retryAt = 0;
    #gotThrough = false;
    reach = new Reach();

    constructor(base, token) {
      this.#base = base;
      this.#token = token;
      this.#gotThrough = sessions.some((one) => one.#base === base && one.#gotThrough);
      sessions.push(this);
    }

    /** Returns a session that has room. */
    static of(base, token, among = sessions) {
      const fits = (one) => one.#base === base && one.#token.source === token.source && one.#users < one.#usersMax;
      return among.find(fits) ?? new Session(base, token);
    }

    enter() {
      this.#users += 1;
    }

    leave() {
      this.#users -= 1;
      this.#rest();
    }

    /**
     * Runs a subscription: `question` is the request to the server, and `url` the same request as a
     * poll; `hear(items, position)` gets the answers. Rejects when the connection breaks; resolves
     * to a function that returns another session if the subscription has to move there.
     */
    carry(signal, { question, url, hear }) {
      return new Promise((resolve, reject) => {
        // The wait after a break is that of the connection: all members come back together, and no
        // new member before.
        const waitMs = this.#retryAt - performance.now();
        if (waitMs > TIMER_SLACK_MS) throw new CometError('network', 0, 'The connection broke', waitMs);
        const ref = (this.#refs += 1);
        this.#members.set(ref, { question, url, hear, resolve, reject, isLate: this.#connection?.hasBegun });
        signal.addEventListener('abort', () => {
          reject(signal.reason);
          this.#unsubscribe(ref);
        }, { once: true });
        this.#rest();
        if (!this.#connection) this.#open();
        else if (this.#connection.isOpen) this.#subscribe(ref);
      });
    }

    /** Drops the connection without notifying its members. */
    drop() {
      this.#retryAt = 0;
      this.#connection?.abort.abort();
      this.#connection = null;
      for (const ref of [...this.#members.keys()]) this.#take(ref);
    }

    /** Lets the members that wait for the connection try again now. */
    hurry() {
      this.#retryAt = 0;
    }

    async #open() {
      const connection = { abort: new AbortController(), hasBegun: false, isOpen: false, heard: 0, answered: 0 };
      const { signal } = connection.abort;
      this.#connection = connection;
      let token;
      let failure;
      try {
        token = await this.#token.ask(signal);
        connection.hasBegun = true;
        await flow(signal, {
          open: (tools) => this.#socket(connection, token, tools),
          isRenewable: this.#token.isRenewable,
          onhello: () => {
            connection.isOpen = this.#gotThrough = true;
            this.reach.hit();
            this.#backoff.opened();
            for (const ref of this.#members.keys()) this.#subscribe(ref);
          },
          onitems: (items, reply) => this.#hear(items, reply),
        });
      } catch (error) {
        failure = error;
      }
      if (gotNothing(failure) && !connection.isOpen && !signal.aborted) failure = await this.#explain(failure, signal, token);
      if (signal.aborted) return;
      connection.abort.abort();
      this.#connection = null;
      failure.retryMs = Math.max(1, this.#backoff.next(failure));
      // A connection whose token has expired is reopened at once, with a new token.
      if (failure.code !== 'token_expired') this.#retryAt = performance.now() + failure.retryMs;
      for (const ref of [...this.#members.keys()]) this.#take(ref).reject(failure);
      this.#rest();
    }

    #socket(connection, token, { hear, fail }) {
      const url = withToken(`${this.#base}/channels`, token).replace(/^http/, 'ws');
      const socket = new WebSocket(url);
      let wasOpen = false;
      socket.onopen = () => (wasOpen = true);
      socket.onmessage = (event) => {
        connection.heard += 1;
        hear(parsed(event.data));
      };
      // In Node, a failed handshake is reported only as an error.
      socket.onclose = socket.onerror = () => fail(wasOpen ? 'network' : 'refused', 'The stream broke');
      connection.say = (command) => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify(command));
      connection.fail = fail;
      connection.token = token;
      return { close: () => socket.close() };
    }

    /** Returns why there is no connection, as far as the request of one subscription can show. */
    async #explain(failure, signal, token) {
      const [ref] = this.#members.keys();
      if (!ref) return failure;
      try {
        await askByFetch(this.#members.get(ref).url, POLL_GRACE_MS, signal, token);
      } catch (reason) {
        // A failure of the server, the network or the token concerns all members.
        if (!reason.final || reason.status === 401) return reason;
        this.#take(ref)?.reject(reason);
      }
      // A server that restarts may refuse the WebSocket and answer the poll, and a connection may
      // break at any time. Neither may cost all members their common connection.
      if (!this.#gotThrough || failure.code !== 'refused') this.reach.miss();
      this.#gotThrough = false;
      return failure;
    }

    #hear(items, { ref, position }) {
      if (ref !== undefined) {
        const member = this.#members.get(ref); // none, if it has left meanwhile
        this.#answered(member);
        if (items.some(({ type }) => type === 'close')) this.#take(ref);
        return member?.hear(items, position);
      }
      for (const item of items) {
        if (item.type === 'error') this.#refuse(item);
        else if (!['renewed', 'unsubscribed'].includes(item.type)) {
          if (item.type === 'token' && this.#token.isRenewable) this.#renew(this.#connection, item.expires_in_s * 1_000);
          for (const member of [...this.#members.values()]) member.hear([item]);
        }
      }
    }

    #refuse({ ref, code, status, detail, retry_ms: retryMs }) {
      const member = this.#take(ref);
      if (!member) return; // it has left, or this is a new token: when the old one ends, all start again with another
      if (code === 'too_many_subscriptions' && this.#users > 1) {
        this.#usersMax = this.#users - 1;
        member.resolve(() => Session.of(this.#base, this.#token));
      } else if ([401, 403].includes(status) && member.isLate) {
        // The current token or cookies might allow it. The other members need not have those.
        member.resolve(() => Session.of(this.#base, this.#token, sessions.slice(sessions.indexOf(this) + 1)));
      } else member.reject(new CometError(code, status, detail, retryMs));
      this.#rest();
    }

    #subscribe(ref) {
      const connection = this.#connection;
      const member = this.#members.get(ref);
      const wait = () => {
        const { heard, answered } = connection;
        member.timer = setTimeout(() => {
          if (connection.heard === heard) return connection.fail('silent', 'The stream fell silent');
          // The server answers one subscription after the other, and may have to ask a back end
          // about each.
          if (connection.answered !== answered) return wait();
          member.reject(new CometError('timeout', 0, 'The server did not answer in time'));
          this.#unsubscribe(ref);
        }, HELLO_TIMEOUT_MS);
      };
      wait();
      connection.say({ type: 'subscribe', ref, ...member.question });
    }

    #unsubscribe(ref) {
      if (!this.#take(ref)) return;
      if (this.#connection?.isOpen) this.#connection.say({ type: 'unsubscribe', ref });
      this.#rest();
    }

    #answered(member) {
      if (!member?.timer) return;
      clearTimeout(member.timer);
      member.timer = undefined;
      if (this.#connection) this.#connection.answered += 1;
    }

    #take(ref) {
      const member = this.#members.get(ref);
      this.#answered(member);
      this.#members.delete(ref);
      return member;
    }

    /**
     * If the token was renewed before, or is still the same, waits for half of the remaining time:
     * a token that lasts a few seconds, or that is stored until its end, must not be requested
     * again and again.
     */
    async #renew(connection, leftMs) {
      const { signal } = connection.abort;
      let waitMs = connection.isRenewed ? leftMs / 2 : 0;
      for (;;) {
        if (waitMs > 0) await sleep(waitMs, signal);
        leftMs -= waitMs;
        const next = await this.#token.ask(signal).catch(() => undefined);
        if (signal.aborted) return;
        if (next && next !== connection.token) {
          [connection.token, connection.isRenewed] = [next, true];
          return connection.say({ type: 'token', token: next, ref: (this.#refs += 1) });
        }
        if (leftMs < 1_000) return; // the stream ends with its token, and is reopened
        waitMs = leftMs / 2;
      }
    }

    /**
     * Without members, the connection is closed after a while; without users, the session is
     * removed as well.
     */
    #rest() {
      clearTimeout(this.#idle);
      if (this.#members.size > 0) return;
      if (this.#connection) {
        this.#idle = setTimeout(() => {
          this.drop();
          this.#rest();
        }, LINGER_MS);
      } else if (this.#users === 0 && sessions.includes(this)) sessions.splice(sessions.indexOf(this), 1);
    }
  }

  // Another network, or a page that goes away: see Subscription.#watchPage, whose listeners run
  // after these and start again.
  for (const type of ['online', 'pagehide']) globalThis.addEventListener?.(type, () => sessions.forEach((session) => session.drop()));
  globalThis.document?.addEventListener('visibilitychange', () => sessions.forEach((session) => session.hurry()));

  class Subscription {
    #url;
    #names;
    #mode;
    #single;
    #options;

    #state = 'connecting';
    #transport;
    #position = null;

    // Aborting the attempt drops its connection, or ends the pause after it. The loop then decides
    // what to do next.
    #attempt = new AbortController();
    #life = new AbortController();
    #parked = null;

    #session;
    #reach = { sse: new Reach() };
    #backoff = new Backoff();
    #tokensRefused = 0;

    constructor(base, names, mode, options) {
      this.#url = channelUrl(base, names);
      this.#names = names;
      this.#mode = mode;
      // With presence, each channel has a second one.
      this.#single = names.length === 1 && !options.presence;
      this.#options = { ...options, after: String(options.after ?? 'latest'), last: Number(options.last ?? 0) };
      if (!['latest', 'oldest'].includes(this.#options.after)) this.#position = this.#options.after;
      this.#enter(Session.of(base, options.token));
      this.#transport = this.#pick();
      this.#watchPage();
      this.#run();
    }

    get state() {
      return this.#state;
    }

    /** The current transport: 'websocket', 'sse', 'lines', 'poll', 'jsonp' or 'iframe'. */
    get transport() {
      return this.#transport;
    }

    /**
     * The position up to which everything was delivered: pass it as `after` to continue later.
     * `null` as long as it is unknown. After a `close()` from within a callback, with several
     * channels, some delivered items may come again.
     */
    get position() {
      return this.#position;
    }

    close() {
      this.#end();
    }

    async #run() {
      for (;;) {
        await this.#parked;
        if (this.#state === 'closed') return;

        const { signal } = (this.#attempt = new AbortController());
        this.#transport = this.#pick();
        this.#tell('connecting');
        try {
          if (!signal.aborted) await this.#connect(signal);
        } catch (failure) {
          if (signal.aborted) continue;
          if (this.#isFinal(failure)) return this.#end(failure);
          // The token has expired, and there is a new one.
          if (failure.code === 'token_expired' && this.#state === 'open') continue;
          const ms = this.#backoff.next(failure);
          this.#tell('waiting', ms);
          await sleep(ms, signal);
        }
      }
    }

    /**
     * Runs one connection: throws when it breaks, and returns when another should follow at once.
     */
    #connect(signal) {
      if (this.#transport === 'websocket') return this.#share(signal);
      const open = { sse: this.#events, lines: this.#lines, iframe: this.#frame }[this.#transport];
      if (open) return this.#stream(signal, open);
      return this.#poll(signal, this.#transport === 'jsonp' ? askByScript : askByFetch);
    }

    #pick() {
      if (this.#mode !== 'auto') return this.#mode;
      const works = (transport) => has(transport) && this.#reach[transport].isDue;
      return ['websocket', 'sse'].find(works) ?? 'poll';
    }

    /**
     * Whether another attempt is useless. A refused token may have been in transit for too long, or
     * its key may be gone.
     */
    #isFinal(failure) {
      if (!failure.final || failure.status !== 401 || !this.#options.token.isRenewable) return Boolean(failure.final);
      this.#tokensRefused += 1;
      return this.#tokensRefused >= TOKENS_REFUSED_MAX;
    }

    #enter(session) {
      session.enter();
      this.#session?.leave();
      this.#session = session;
      this.#reach.websocket = session.reach;
    }

    /**
     * Subscribes on the common WebSocket, or on another one if this one is full, or has an older
     * token that does not allow the subscription.
     */
    async #share(signal) {
      const { presence } = this.#options;
      const question = { channels: this.#names, ...this.#start(), presence: presence ? true : undefined };
      const hear = (items, position) => {
        const others = items.filter(({ type }) => type !== 'subscribed');
        // The position follows the last of the items.
        if (others.length < items.length) this.#opened(others.length === 0 ? position : undefined);
        if (others.length > 0) this.#deliver(others, position);
      };
      const other = await this.#session.carry(signal, { question, hear, url: this.#ask({ wait: 0 }) });
      if (this.#state !== 'closed') this.#enter(other());
    }

    async #stream(signal, open) {
      const reach = this.#reach[this.#transport];
      const { token } = this.#options;
      const text = await token.ask(signal);
      try {
        await flow(signal, {
          open: (tools) => open.call(this, { ...tools, token: text }),
          isRenewable: token.isRenewable,
          onhello: (position) => {
            reach?.hit();
            this.#opened(position);
          },
          onitems: (items, { position }) => this.#deliver(items, position),
        });
      } catch (failure) {
        if (!gotNothing(failure) || this.#state === 'open') throw failure;
        await askByFetch(this.#ask({ wait: 0 }), POLL_GRACE_MS, signal, text);
        reach?.miss();
        throw failure;
      }
    }

    /**
     * Server-Sent Events: by EventSource, or by fetch if EventSource is missing or a token has to
     * be sent in a header.
     */
    #events({ hear, fail, reject, token }) {
      if (CAN_STREAM && (token || !globalThis.EventSource)) {
        const read = eventReader(({ id, data }) => {
          const item = parsed(data);
          hear(item && { position: id, items: [item] });
        }, () => hear({ position: '', items: [] }));
        return this.#lineByLine(this.#ask(), 'text/event-stream', read, { fail, reject, token });
      }
      const source = new EventSource(withToken(this.#ask(), token));
      const types = ['hello', 'message', 'gap', 'close', 'token', 'join', 'leave', 'presence', 'heartbeat', 'bye'];
      for (const type of types) {
        source.addEventListener(type, (event) => {
          const items = event.data ? [parsed(event.data)] : [];
          hear(items.includes(undefined) ? undefined : { position: event.lastEventId, items });
        });
      }
      source.onerror = () => {
        const refused = source.readyState === EventSource.CLOSED;
        fail(refused ? 'refused' : 'network', 'The stream broke');
      };
      // EventSource would reconnect by itself, without backoff.
      return { close: () => source.close() };
    }

    #lines({ hear, fail, reject, token }) {
      const read = (line) => hear(parsed(line));
      return this.#lineByLine(this.#ask({ transport: 'lines' }), 'application/x-ndjson', read, { fail, reject, token });
    }

    /** Reads a response by fetch, and passes on each line as it comes. */
    #lineByLine(url, type, tell, { fail, reject, token }) {
      const abort = new AbortController();
      const read = async () => {
        const headers = withBearer({ Accept: type }, token);
        const response = await fetch(url, { headers, cache: 'no-store', signal: abort.signal });
        if (!response.ok) throw await refusal(response);
        const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
        for (let rest = ''; ; ) {
          const { value, done } = await reader.read();
          if (done) return fail('network', 'The stream ended');
          const lines = (rest + value).split('\n');
          rest = lines.pop();
          for (const line of lines) tell(line);
        }
      };
      read().catch((error) => (error instanceof CometError ? reject(error) : fail('network', 'The stream broke')));
      return { close: () => abort.abort() };
    }

    #frame({ hear, fail, token }) {
      const frame = document.createElement('iframe');
      const url = withToken(this.#ask({ transport: 'iframe', origin: location.origin }), token);
      const onMessage = (event) => {
        if (event.source === frame.contentWindow && event.origin === new URL(url).origin) hear(event.data);
      };
      addEventListener('message', onMessage);
      frame.hidden = true;
      frame.onload = () => fail('network', 'The stream ended'); // it loads for as long as the stream lasts
      frame.src = url;
      document.body.append(frame);
      const close = () => {
        removeEventListener('message', onMessage);
        frame.remove();
      };
      return { close };
    }

    /** Long polls, by fetch or by script tag. */
    async #poll(signal, ask) {
      // The first request does not wait. It gives a subscriber from 'latest' its position before
      // anything can break, and shows any subscriber that it is connected.
      for (let wait = 0; !signal.aborted; wait = POLL_WAIT_S) {
        const askedAt = Date.now();
        if (wait > 0 && ask === askByScript) await pageLoaded();
        const token = await this.#options.token.ask(signal);
        const reply = await ask(this.#ask({ wait }), wait * 1_000 + POLL_GRACE_MS, signal, token);
        if (signal.aborted) return;
        if (typeof reply?.position !== 'string' || !Array.isArray(reply.items)) {
          throw new CometError('bad_reply', 200, 'The reply to a poll is not one');
        }
        this.#opened();
        this.#deliver(reply.items, reply.position);
        if (this.#pick() !== this.#transport) return;
        if (wait > 0 && reply.items.length === 0 && Date.now() - askedAt < POLL_EMPTY_MS) {
          await sleep(POLL_EMPTY_MS, signal);
        }
      }
    }

    /** Returns the URL of the next request, without a token. */
    #ask(parameters = {}) {
      const { presence } = this.#options;
      return withQuery(this.#url, { ...this.#start(), presence: presence ? 1 : undefined, ...parameters });
    }

    #start() {
      const { last, after } = this.#options;
      return last && !this.#position ? { last } : { after: this.#position ?? after };
    }

    #deliver(items, position) {
      let ended = false;
      for (const item of items) {
        if (this.#state === 'closed') return; // by a callback
        // The position of an item counts only within its own channel: with several channels, only
        // the position of the whole reply is usable.
        if (this.#single && item.position) this.#position = item.position;
        if (item.type === 'message') this.#call('onmessage', item);
        else if (item.type === 'gap') this.#call('ongap', item);
        else if (item.type === 'close') {
          ended = item.reason === 'token_expired' ? new CometError(item.reason, 401, "The token's time is over") : true;
          this.#call('onclose', item);
        } else this.#call('onitem', item);
      }
      if (position) this.#position = position;
      if (ended) this.#end(ended === true ? undefined : ended);
    }

    #opened(position) {
      this.#position ??= position || null;
      if (this.#state === 'open') return;
      this.#backoff.opened();
      this.#tokensRefused = 0;
      this.#tell('open');
    }

    #watchPage() {
      const on = (target, type, listener, options) =>
        target?.addEventListener?.(type, listener, { signal: this.#life.signal, ...options });

      // Another network: an open connection most likely hangs, and the reason to wait may be gone.
      on(globalThis, 'online', () => this.#attempt.abort());
      on(globalThis.document, 'visibilitychange', () => {
        if (document.visibilityState === 'visible' && this.#state === 'waiting') this.#attempt.abort();
      });
      // A page with an open connection is not put into the back/forward cache. Without a
      // connection, it comes back as it was, and continues from its position.
      on(globalThis, 'pagehide', () => {
        this.#parked = new Promise((resolve) => on(globalThis, 'pageshow', resolve, { once: true }));
        this.#attempt.abort();
      });
    }

    #end(reason) {
      if (this.#state === 'closed') return;
      this.#life.abort();
      this.#tell('closed', reason);
      this.#attempt.abort();
      this.#session.leave();
    }

    #tell(state, detail) {
      this.#state = state;
      this.#call('onstate', state, detail);
    }

    #call(name, ...values) {
      try {
        this.#options[name]?.(...values);
      } catch (error) {
        setTimeout(() => {
          throw error;
        });
      }
    }
  }

  /**
   * Passes on the replies of the stream that `open` opens, until it breaks; then rejects with the
   * reason. `open` gets `hear(reply)`, `fail(code, message)` and `reject(error)`, and returns an
   * object whose `close()` closes the stream. `onhello(position)` is called once the stream gets
   * through, and `onitems(items, reply)` for all other items.
   */
  function flow(signal, { open, isRenewable, onhello, onitems }) {
    const over = new AbortController();
    let silenceMaxMs = HELLO_TIMEOUT_MS;
    let watchdog;
    let stream;

    const broken = new Promise((_, reject) => {
      const fail = (code, message) => reject(new CometError(code, 0, message));
      const heard = () => {
        clearTimeout(watchdog);
        watchdog = setTimeout(() => fail('silent', 'The stream fell silent'), silenceMaxMs);
      };
      const hear = (reply) => {
        if (over.signal.aborted || signal.aborted) return;
        heard();
        // An item that cannot be read must not be skipped: request it again.
        if (!Array.isArray(reply?.items)) return fail('bad_reply', 'The stream holds something that is not a reply');
        const items = [];
        for (const item of reply.items) {
          if (item.type === 'hello') {
            silenceMaxMs = HEARTBEATS_MISSED_MAX * (item.heartbeat_ms || HEARTBEAT_DEFAULT_MS);
            heard();
            onhello(reply.position);
          } else if (item.type === 'bye') {
            reject(new CometError('shutting_down', 503, 'The server is going down', item.retry_ms));
          } else if (item.type === 'error' && item.ref === undefined) {
            reject(new CometError(item.code, item.status, item.detail, item.retry_ms));
          } else if (item.type === 'close' && item.reason === 'token_expired' && isRenewable) {
            reject(new CometError('token_expired', 401, "The token's time is over"));
          } else items.push(item);
        }
        if (items.length > 0) onitems(items, reply);
      };
      signal.addEventListener('abort', () => reject(signal.reason), { once: true, signal: over.signal });
      heard();
      stream = open({ hear, fail, reject });
    });

    return broken.finally(() => {
      clearTimeout(watchdog);
      over.abort();
      stream?.close();
    });
  }

  /**
   * Whether a stream that never opened gives no reason. The same request by fetch gives one: if
   * that fails as well, the server or the network is the cause, and not the transport.
   */
  function gotNothing({ code }) {
    return ['silent', 'refused'].includes(code);
  }

  function channelUrl(base, names) {
    return `${base}/channels/${names.map(encodeURIComponent).join(',')}`;
  }

  /** Returns a URL with the parameters that have a value. */
  function withQuery(url, parameters) {
    const pairs = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null);
    const query = pairs.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join('&');
    return query ? `${url}?${query}` : url;
  }

  /** Returns the URL with a token in it, for transports without headers. */
  function withToken(url, token) {
    return token ? `${url}${url.includes('?') ? '&' : '?'}token=${encodeURIComponent(token)}` : url;
  }

  function withBearer(headers, token) {
    return token ? { ...headers, Authorization: `Bearer ${token}` } : headers;
  }

  /**
   * Returns an absolute URL. A relative one is relative to the page, or to the script of the
   * worker.
   */
  function absolute(url) {
    // A worker made of a blob has no directory, but the origin of the page that made it.
    const { href = '', origin } = globalThis.location ?? {};
    const base = globalThis.document?.baseURI ?? (/^(blob|data):/.test(href) ? origin : href);
    try {
      return new URL(url, base && base !== 'null' ? base : undefined);
    } catch {
      throw new TypeError(`CComet: there is no page that ${JSON.stringify(url)} could be relative to. Give the whole URL of the server, `
        + "as in new CComet('http://127.0.0.1:8100')");
    }
  }

  // fetch must pass on the bytes that have arrived so far.
  const CAN_STREAM = Boolean(globalThis.fetch && globalThis.TextDecoderStream && globalThis.Response?.prototype && 'body' in Response.prototype);

  /** Whether a transport is available here. */
  function has(transport) {
    const needs = {
      websocket: globalThis.WebSocket,
      sse: globalThis.EventSource || CAN_STREAM,
      lines: CAN_STREAM,
      poll: globalThis.fetch,
      jsonp: globalThis.document,
      iframe: globalThis.document,
    };
    return Boolean(needs[transport]);
  }

  /**
   * Reads lines of Server-Sent Events as this server writes them. Calls `tell({id, data})` for each
   * event that has data, and `beat()` for each that has none.
   */
  function eventReader(tell, beat) {
    let id = '';
    let data = '';
    let isEvent = false;
    return (line) => {
      const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line.replace(/\r$/, ''));
      if (field === 'id') id = value;
      else if (field === 'data') data += (data && '\n') + value;
      if (field !== '') isEvent = true;
      if (line !== '' && line !== '\r') return;
      if (data) tell({ id, data });
      else if (isEvent) beat();
      [data, isEvent] = ['', false];
    };
  }

  /** Returns the value of a JSON text, or undefined if the text is not JSON. */
  function parsed(text) {
    try {
      return JSON.parse(text);
    } catch {
      return undefined;
    }
  }

  async function askByFetch(url, timeoutMs, signal, token, options = { headers: { Accept: 'application/json' } }) {
    const abort = new AbortController();
    const stop = () => abort.abort();
    const timer = setTimeout(stop, timeoutMs);
    if (signal?.aborted) stop();
    signal?.addEventListener('abort', stop);
    try {
      const headers = withBearer(options.headers, token);
      const response = await fetch(url, { ...options, headers, cache: 'no-store', signal: abort.signal });
      if (!response.ok) throw await refusal(response);
      return await response.json();
    } catch (error) {
      if (error instanceof CometError) throw error;
      if (abort.signal.aborted) throw new CometError('timeout', 0, 'The server did not answer in time');
      if (error instanceof SyntaxError) throw new CometError('bad_reply', 200, 'The reply is not JSON');
      throw new CometError('network', 0, 'The server cannot be reached');
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', stop);
    }
  }

  async function refusal(response) {
    const problem = await response.json().catch(() => null);
    // A date is not a number, and is ignored.
    const retryMs = problem?.retry_ms ?? Number(response.headers.get('Retry-After')) * 1_000;
    const message = problem?.detail ?? problem?.title ?? `The server answered ${response.status}`;
    return new CometError(problem?.code ?? 'http_error', response.status, message, retryMs);
  }

  // JSONP. A script that was given up may still arrive and run: its callback must exist, and do
  // nothing. Every name in this object yields a function, so that nothing has to be kept for
  // scripts that never come.
  const waitingReplies = new Map();
  const replies = new Proxy({}, { get: (_, name) => waitingReplies.get(name) ?? (() => {}) });
  let scripts = 0;

  function askByScript(url, timeoutMs, signal, token) {
    scripts += 1;
    const name = `r${scripts}`;
    const script = document.createElement('script');
    let timer;
    let stop;
    const answer = new Promise((resolve, reject) => {
      stop = () => reject(new CometError('timeout', 0, 'The server did not answer in time'));
      timer = setTimeout(stop, timeoutMs);
      if (signal?.aborted) stop();
      signal?.addEventListener('abort', stop);
      waitingReplies.set(name, (reply) => {
        if (reply?.type !== 'error') resolve(reply);
        else reject(new CometError(reply.code, reply.status, reply.detail, reply.retry_ms));
      });
      script.onerror = () => reject(new CometError('network', 0, 'The server cannot be reached'));
      // Runs after the script. If the script has called nothing, it was not the server's.
      script.onload = () => reject(new CometError('bad_reply', 200, 'The reply is not JSONP'));
      script.charset = 'utf-8';
      script.src = `${withToken(url, token)}&callback=CComet.replies.${name}&_=${Date.now()}`;
      document.head.append(script);
    });
    return answer.finally(() => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', stop);
      waitingReplies.delete(name);
      script.onload = script.onerror = null;
      script.remove();
    });
  }

  /**
   * Waits until the page is loaded. A script tag in transit delays the load event, and the browser
   * shows the page as still loading.
   */
  function pageLoaded() {
    if (document.readyState === 'complete') return null;
    const loaded = new Promise((resolve) => addEventListener('load', () => setTimeout(resolve), { once: true }));
    return Promise.race([loaded, sleep(5_000)]);
  }

  /** Resolves early, without an error, when the signal is aborted. */
  function sleep(ms, signal) {
    return new Promise((resolve) => {
      if (signal?.aborted) return resolve();
      const timer = setTimeout(resolve, ms);
      signal?.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true });
    });
  }

  CComet.replies = replies;
  globalThis.CComet = CComet;
})();
