/*
 * ccomet.js: subscribe and publish to a CComet server from a web page, a worker, or Node 20 and later.
 *
 *     const comet = new CComet('http://127.0.0.1:8100');
 *     const sub = comet.subscribe('news', { after: 'oldest', onmessage: (item) => console.log(item.data) });
 *     await comet.publish('news', 'hello');
 *     sub.close();
 *
 * What a subscription promises: every message after its starting point comes exactly once and in order, whatever
 * happens to the network, the server or the page in between; where the server no longer has a message, `ongap` says
 * so before anything later is delivered. It rests on one rule: the position moves on in the same step as the item is
 * handed over, and every new request asks for what comes after the position.
 *
 * Transports: WebSocket, Server-Sent Events, endless lines by fetch, long polls by fetch, JSONP (script tags) for pages
 * that CORS keeps out, and a page in a hidden frame. `subscription.transport` says which is used.
 *
 * Subscriptions to the same server with the same token (as text, as function, or none) share one WebSocket, whichever `CComet` they come
 * from. By any other transport, each subscription has a connection of its own, and browsers open six HTTP/1.1 connections to a host and no
 * more: where no WebSocket gets through, a page with many subscriptions should make them one, `subscribe(['a', 'b'])`.
 *
 * A token goes into the header `Authorization` wherever the transport has headers: by fetch. A WebSocket, a script tag and a frame have
 * none, so that it is in their URLs.
 */
(function () {
  'use strict';

  // A page may load this file both as a script and through ccomet.mjs. The JSONP replies of either go through the
  // global name, so that the first one stays.
  if (globalThis.CComet) return;

  const HELLO_TIMEOUT_MS = 10_000; // a stream without its first event by then sits in some proxy's buffer
  const HEARTBEATS_MISSED_MAX = 2.5;
  const HEARTBEAT_DEFAULT_MS = 15_000;

  const POLL_WAIT_S = 25; // below the 30 seconds after which many proxies give up
  const POLL_GRACE_MS = 10_000; // how long a reply may be late before the connection counts as dead
  const POLL_EMPTY_MS = 1_000; // an empty reply earlier than this is followed by a pause as long

  const PUBLISH_TIMEOUT_MS = 15_000;
  const TOKEN_TIMEOUT_MS = 15_000;
  const TOKENS_REFUSED_MAX = 5; // so many new tokens in a row, and it is not for their age that they are refused
  const JSONP_URL_CHARS_MAX = 8_000; // what servers and proxies take as a request line

  const BACKOFF_FIRST_MS = 500;
  const BACKOFF_CAP_MS = 15_000;
  const RETRY_AFTER_CAP_MS = 300_000;
  const STABLE_MS = 5_000; // a connection that lasted this long starts the backoff anew
  const TIMER_SLACK_MS = 100; // a timer may be early by as much, by clocks that browsers make coarse
  const LINGER_MS = 1_000; // a WebSocket without subscriptions is kept this long, for a page that moves to another channel

  const TRANSPORTS = ['websocket', 'sse', 'lines', 'poll', 'jsonp', 'iframe'];
  const AGAIN_FIRST_MS = 15_000; // a transport that does not get through is passed over: when to try it again
  const AGAIN_CAP_MS = 3_600_000;

  /**
   * What a publish is rejected with, and the `detail` of a subscription's last state when an error ended it.
   *
   * `code` is the server's own (`message_too_large`), or one of `network`, `timeout`, `bad_reply`, `http_error`,
   * `token` (the function that gives tokens failed), and for streams `silent` and `refused`. `status` is the HTTP status, 0 where there was no reply.
   */
  class CometError extends Error {
    constructor(code, status, message, retryMs) {
      super(message);
      this.name = 'CometError';
      this.code = code;
      this.status = status;
      this.retryMs = retryMs;
    }

    /** The server itself said no, and would again. A bare 404 from a proxy in the middle of a deployment is not that. */
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
     * @param {string} [serverUrl] where the server is, relative to the page or the worker; by default their own origin. Where there is
     *     neither, as in Node, it has to be whole: `http://127.0.0.1:8100`
     * @param {object} [options]
     * @param {'auto'|'websocket'|'sse'|'lines'|'poll'|'jsonp'|'iframe'} [options.transport] `auto` takes the first of
     *     WebSocket, Server-Sent Events and polls that the browser has and that gets through
     * @param {string|function(): (string|Promise<string>)} [options.token] who asks, and what that one may do. A function is called for
     *     each request, and again when a stream's token is about to expire: on a WebSocket, the new token takes the old one's place; any
     *     other stream is opened anew, and goes on from its position. It is called once for all subscriptions on a WebSocket, and again for
     *     one that the token of the others does not allow. A token as text ends its subscriptions when it expires
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
     * Subscribes to a channel, or to several with one position for all.
     *
     * Callbacks are `onmessage(item)`, `ongap(item)`, `onclose(item)` with the server's items, `onitem(item)` with those of any
     * other type, and `onstate(state, detail)`:
     *
     *     'connecting'
     *     'open'        messages arrive
     *     'waiting'     the connection broke, or the server has no room; the next attempt is in `detail` milliseconds
     *     'closed'      for good: by `close()`, because the server closed a channel (`onclose` was called), or
     *                   because it refuses the subscription (`detail` is the error)
     *
     * A closed channel ends the whole subscription, for its response ends with it. To go on, subscribe again.
     * None of them is called before `subscribe` has returned. What they throw is reported, and stops nothing.
     *
     * @param {string|string[]} channels
     * @param {object} [options] the callbacks; `after`: 'latest', 'oldest', or the `position` of an earlier subscription to the same
     *     channels; `last`: begin with so many messages instead; `presence`: true where `onitem` is to be told who comes and goes, with
     *     items of the types 'join' and 'leave'. Who is there already is told by `presence()`, whose `position` is the `after` to go with
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
     * Publishes a text. Resolves to `{channel, position}` once the message is in the channel's history; rejects with
     * an error that has `code`, `status` and `final`. After a `timeout` or `network` error nobody knows whether the
     * message got there: with a `key`, it can be published again, and is kept once.
     *
     * @param {object} [options] `event`: the type of the message; `ttl`: seconds that it is delivered; `key`: under which a retry is the
     *     same message (not with JSONP); `keepalive`: the page is about to go away; send it all the same
     */
    async publish(channel, text, { event, ttl, key, keepalive = false } = {}) {
      // Half of a surrogate pair has no UTF-8: fetch would replace it silently, encodeURIComponent would throw.
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

    /** Resolves to who is in a channel: `{channel, subscribers, members: [{id, connections}], position}`. */
    presence(channel) {
      return this.#look(`${channelUrl(this.#base, [channel])}/presence`, {});
    }

    /**
     * Resolves to a page of a channel's history: `{items, position, more}`.
     *
     * @param {object} [options] `before` (newest first) or `after` (oldest first): the `position` of the page before it, or of a
     *     subscription; `limit`: items at most
     */
    history(channel, { before, after, limit } = {}) {
      return this.#look(`${channelUrl(this.#base, [channel])}/history`, { before, after, limit });
    }

    #look(url, parameters) {
      return this.#once((token) => askByFetch(withQuery(url, parameters), PUBLISH_TIMEOUT_MS, null, token));
    }

    /** Asks with a token, and once more with another where that one has just expired: then nothing was done. */
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

  /** Where tokens come from. */
  class Token {
    #give;

    constructor(token) {
      this.source = token || undefined;
      this.isRenewable = typeof token === 'function';
      this.#give = this.isRenewable ? token : () => token;
    }

    /** Resolves to a token, or to undefined where there is none. */
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

  /** How long to wait before the next attempt. */
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
      // A server that names a time for each client has done the spreading already.
      return Math.round(failure.retryMs > 0 ? Math.min(failure.retryMs, RETRY_AFTER_CAP_MS) : jitter);
    }
  }

  /** Whether a transport gets through. One that does not is passed over for a while, and each time for longer. */
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

  /** Of all servers and tokens, the oldest first. */
  const sessions = [];

  /**
   * A WebSocket that subscriptions to one server with one token share. It is opened for the first of them, and anew when there are some
   * after a break.
   */
  class Session {
    #base;
    #token;

    // The subscriptions that belong here, even if they wait, or use another transport meanwhile. The server says how many are too many.
    #users = 0;
    #usersMax = Infinity;

    // Those that are subscribed or about to be, by reference.
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

    /** Returns one that has room. */
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
     * Runs a subscription: `question` is what the server is asked, and `url` the same as a poll; `hear(items, position)` is told the answers.
     * Rejects when it breaks off; resolves to what gives another session if the subscription is to go there.
     */
    carry(signal, { question, url, hear }) {
      return new Promise((resolve, reject) => {
        // The wait after a break is that of the connection: all come back together, and no new one comes before.
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

    /** Breaks the connection off without a word to those who are on it. */
    drop() {
      this.#retryAt = 0;
      this.#connection?.abort.abort();
      this.#connection = null;
      for (const ref of [...this.#members.keys()]) this.#take(ref);
    }

    /** Lets those who wait for the connection try again now. */
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
      // With a new token, one that was open goes on at once.
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
      // In Node, a handshake that fails is told as an error alone.
      socket.onclose = socket.onerror = () => fail(wasOpen ? 'network' : 'refused', 'The stream broke');
      connection.say = (command) => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify(command));
      connection.fail = fail;
      connection.token = token;
      return { close: () => socket.close() };
    }

    /** Returns why there is no connection, as far as the question of one subscription tells. */
    async #explain(failure, signal, token) {
      const [ref] = this.#members.keys();
      if (!ref) return failure;
      try {
        await askByFetch(this.#members.get(ref).url, POLL_GRACE_MS, signal, token);
      } catch (reason) {
        // What is wrong with the server, the network or the token holds for all.
        if (!reason.final || reason.status === 401) return reason;
        this.#take(ref)?.reject(reason);
      }
      // A server that starts anew may refuse the one and answer the other, and a connection may break at any time. All would lose their
      // common connection by that.
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
      if (!member) return; // it has left, or it is a new token: when the old one ends, all begin anew with another
      if (code === 'too_many_subscriptions' && this.#users > 1) {
        this.#usersMax = this.#users - 1;
        member.resolve(() => Session.of(this.#base, this.#token));
      } else if ([401, 403].includes(status) && member.isLate) {
        // It might be allowed with a token, or cookies, of now, which the others need not have.
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
          // The server answers one after the other, and may have to ask a back end about each.
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
     * Where the token was renewed before, or is still the same, half of what is left is waited for: a token of a few seconds, or one that is
     * kept somewhere until its end, shall not be asked for again and again.
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
        if (leftMs < 1_000) return; // the stream ends with its token, and is opened anew
        waitMs = leftMs / 2;
      }
    }

    /** Without members, the connection goes after a while; without users, all of it. */
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

  // Another network, or a page that goes away: see Subscription.#watchPage, whose listeners come after these and begin anew.
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

    // Aborting the attempt breaks off its connection, or the pause after it. The loop then looks what to do next.
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
      // With who comes and goes, there is a second channel to each.
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

    /** 'websocket', 'sse', 'lines', 'poll', 'jsonp' or 'iframe': what is used now. */
    get transport() {
      return this.#transport;
    }

    /**
     * Everything up to here was delivered: pass it as `after` to go on later. `null` as long as it is not known. After
     * a `close()` from within a callback, with several channels, some of what was delivered may come again.
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
          // Its token has had its time, and there is a new one.
          if (failure.code === 'token_expired' && this.#state === 'open') continue;
          const ms = this.#backoff.next(failure);
          this.#tell('waiting', ms);
          await sleep(ms, signal);
        }
      }
    }

    /** Runs one connection: throws when it breaks, returns when another should follow at once. */
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

    /** Whether there is no use in trying again. A refused token may have been on its way for too long, or of a key that is gone. */
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

    /** On the WebSocket of all subscriptions; on another, if this one is full, or too old to be allowed what a new one may be. */
    async #share(signal) {
      const { presence } = this.#options;
      const question = { channels: this.#names, ...this.#start(), presence: presence ? true : undefined };
      const hear = (items, position) => {
        const others = items.filter(({ type }) => type !== 'subscribed');
        // The position is that after all of the items.
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

    /** Server-Sent Events: by EventSource, or by fetch where that is missing, and where a token is to be in a header. */
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

    /** A response by fetch, each of its lines told as it comes. */
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
      frame.onload = () => fail('network', 'The stream ended'); // as long as it goes on, it is loading
      frame.src = url;
      document.body.append(frame);
      const close = () => {
        removeEventListener('message', onMessage);
        frame.remove();
      };
      return { close };
    }

    /** Long polls, by whichever of the two ways to ask. */
    async #poll(signal, ask) {
      // The first question does not wait. It tells a subscriber from 'latest' its position before anything can
      // break, and any subscriber that it is connected.
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

    /** The question for what comes next, without a token. */
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
        // An item's position is in its own channel alone: with several, only that of the whole reply will do.
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

      // Another network: what was open most likely hangs, and whatever made us wait may be over.
      on(globalThis, 'online', () => this.#attempt.abort());
      on(globalThis.document, 'visibilitychange', () => {
        if (document.visibilityState === 'visible' && this.#state === 'waiting') this.#attempt.abort();
      });
      // A page with an open connection is kept out of the back/forward cache. Without, it comes back as it was, and
      // goes on from its position.
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
   * Replies as they come, by whatever `open` opens, until it breaks: rejects with the reason. `open` gets `hear(reply)`,
   * `fail(code, message)` and `reject(error)`, and returns how to `close()` it. `onhello(position)` is told that the stream gets through, and
   * `onitems(items, reply)` what else there is.
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
        // An item that cannot be read must not be passed over: ask for it again.
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
   * Whether a stream that never opened gives no reason. The same question by fetch does: if that fails as well, it is the server or the
   * network, and the transport is not to blame.
   */
  function gotNothing({ code }) {
    return ['silent', 'refused'].includes(code);
  }

  function channelUrl(base, names) {
    return `${base}/channels/${names.map(encodeURIComponent).join(',')}`;
  }

  /** A URL with those of the parameters that have a value. */
  function withQuery(url, parameters) {
    const pairs = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null);
    const query = pairs.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join('&');
    return query ? `${url}?${query}` : url;
  }

  /** The same with a token in it, for what can set no header. */
  function withToken(url, token) {
    return token ? `${url}${url.includes('?') ? '&' : '?'}token=${encodeURIComponent(token)}` : url;
  }

  function withBearer(headers, token) {
    return token ? { ...headers, Authorization: `Bearer ${token}` } : headers;
  }

  /** A URL as a whole: what is relative is so to the page, or to the worker's script. */
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

  // fetch hands out what has come so far.
  const CAN_STREAM = Boolean(globalThis.fetch && globalThis.TextDecoderStream && globalThis.Response?.prototype && 'body' in Response.prototype);

  /** Whether a transport can be had here. */
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
   * Reads lines of Server-Sent Events as this server writes them. Calls `tell({id, data})` for each event that has data, and
   * `beat()` for one that has none.
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

  /** What JSON says; undefined where it is none. */
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
    // A date is not a number, and unused.
    const retryMs = problem?.retry_ms ?? Number(response.headers.get('Retry-After')) * 1_000;
    const message = problem?.detail ?? problem?.title ?? `The server answered ${response.status}`;
    return new CometError(problem?.code ?? 'http_error', response.status, message, retryMs);
  }

  // JSONP. A script that was given up may still arrive and run: its callback must exist, and do nothing. Looking any
  // name up in this object gives a function, so that nothing is left behind for scripts that never come.
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
      // Comes after the script has run. If that made no call, it was not the server's.
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

  /** A script tag on its way holds up the page's load event, and the browser shows it as still loading. */
  function pageLoaded() {
    if (document.readyState === 'complete') return null;
    const loaded = new Promise((resolve) => addEventListener('load', () => setTimeout(resolve), { once: true }));
    return Promise.race([loaded, sleep(5_000)]);
  }

  /** Ends early, and well, when the signal is aborted. */
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
