//! Questions to the site's back end, before a call is carried out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sealed::{ConnectionId, Resolver, fault};
use sealed_http::client::{Fetch, FetchId, Fetched, Upstream, UpstreamId};
use sealed_http::{Http, RequestHead};
use slab::Slab;

use super::answers::{refuse_on_socket, respond_problem};
use super::caller::{Opening, PassedOn};
use super::reporting::Reporting;
use super::socket_calls::SocketCall;
use super::{Caller, Chore, Gateway, SessionState, done, loop_time, unix_time};
use crate::access::client::Asking;
use crate::access::origin;
use crate::access::{Access, Course};
use crate::config::webhooks::{BackEndPlace, Hooks, WhenDown};
use crate::core::problem::{Denial, Problem};
use crate::core::time::LoopTime;
use crate::on_call::KeptFields;
use crate::protocols::call::Call;
use crate::webhooks::{
    Answers, BackEndAnswer, Full, Movements, Question, QuestionDigest, QuestionKind, Turns, Verdict, is_ambient,
    reason_of,
};

/// The maximum length of an answer, in bytes; a longer one counts as a failure.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

/// The minimum time between two checks for questions that have waited for too long.
const LOOK_MIN: Duration = Duration::from_millis(10);

/// The minimum time between two warnings in the log that the back end is down.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The time in seconds after which a client with too many open questions should retry.
const CLIENT_RETRY_S: u32 = 1;

/// The site's back end, with the questions and reports to it.
#[derive(Debug)]
pub(super) struct Site {
    /// The way to the back end. It stays for what is open if the hooks are turned off.
    way: Option<Way>,
    /// Whether calls and movements are passed to the back end.
    is_on: bool,
    questions: Slab<Asked>,
    turns: Turns<Asking>,
    pub(super) fetches: HashMap<FetchId, Sent>,
    answers: Answers,
    pub(super) movements: Movements,
    pub(super) reporting: Reporting,
    /// A timer is set for questions that wait for too long.
    is_looking: bool,
    /// The last response was a failure.
    is_down: bool,
    /// The time from which the log may repeat the warning.
    warns_again: LoopTime,
    /// The time of the last response other than a server error.
    answered: Option<LoopTime>,
}

#[derive(Debug)]
struct Way {
    upstream: Upstream,
    /// The upstream, after the first request to it.
    id: Option<UpstreamId>,
    /// The template of all requests.
    fetch: Fetch,
}

/// The purpose of a request to the back end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sent {
    /// A question, by its index.
    Question(u32),
    Movements,
}

/// A question that is not answered yet.
#[derive(Debug)]
struct Asked {
    peer: ConnectionId,
    client: Asking,
    progress: Progress,
    bytes: usize,
    /// The time at which it was created.
    since: LoopTime,
    /// The key under which its answer may be kept.
    key: Option<QuestionDigest>,
    then: Then,
}

#[derive(Debug)]
enum Progress {
    /// It waits for its turn.
    Waiting(Bytes),
    Sent(FetchId),
}

/// The action that follows if the answer allows it.
#[derive(Debug)]
enum Then {
    Call(Box<Call>, Caller),
    /// A command on a WebSocket, which is not read meanwhile.
    SocketCall(u32, SocketCall),
}

impl Site {
    /// Creates the state for these hooks. The resolver looks up the host name of the back end for
    /// each connection to it.
    pub(super) fn new(hooks: &Hooks, resolver: &Resolver) -> Self {
        let is_wanted = hooks.subscribe || hooks.publish || hooks.presence;
        let limit = hooks.timeout();
        let way = hooks.place().filter(|_| is_wanted).and_then(|BackEndPlace { host, port, path }| {
            let upstream = Upstream::by_name(resolver, &host, port);
            let upstream = upstream.connections_max(hooks.connections_max).connect_limit(limit);
            // Questions and reports may be repeated without harm.
            let fetch = Fetch::post(path).ok()?.header("Content-Type", "application/json");
            let fetch = if fault!("question-not-repeated") { fetch } else { fetch.repeatable() };
            let mut fetch = fetch.limit(Some(limit)).silence_max(limit).body_bytes_max(ANSWER_BYTES_MAX);
            if let Some(secret) = &hooks.secret {
                fetch = fetch.try_header("Authorization", format!("Bearer {}", secret.as_str())).ok()?;
            }
            Some(Way { upstream, id: None, fetch })
        });
        Self {
            is_on: way.is_some(),
            way,
            questions: Slab::new(),
            turns: Turns::new(hooks),
            fetches: HashMap::new(),
            answers: Answers::new(hooks.answers_bytes_max),
            movements: Movements::new(hooks.movements_max),
            reporting: Reporting::default(),
            is_looking: false,
            is_down: false,
            warns_again: LoopTime::default(),
            answered: None,
        }
    }

    /// Changes the hooks. Open questions stay; those that wait go to the new back end, if any.
    pub(super) fn set_hooks(&mut self, hooks: &Hooks, resolver: &Resolver) {
        let changed = Self::new(hooks, resolver);
        self.is_on = changed.is_on;
        self.way = changed.way.or(self.way.take());
        self.answers = changed.answers;
        self.turns.set_bounds(hooks);
        self.movements.set_max(hooks.movements_max);
        self.warns_again = LoopTime::default();
    }

    pub(super) fn is_there(&self) -> bool {
        self.is_on
    }

    pub(super) fn sweep(&mut self, now: LoopTime) {
        self.answers.sweep(now);
    }

    /// Returns whether a question is about a subscription, which is void once its client has gone.
    pub(super) fn is_about_subscribing(&self, question: u32) -> bool {
        let then = self.questions.get(question as usize).map(|asked| &asked.then);
        matches!(then, Some(Then::Call(call, _)) if call.access().course != Course::Answer)
    }

    /// Removes a question that is over.
    fn take(&mut self, question: u32) -> Option<Asked> {
        let asked = self.questions.try_remove(question as usize)?;
        let was_sent = matches!(asked.progress, Progress::Sent(_));
        self.turns.over(asked.client, asked.client.is_limited(), question, was_sent, asked.bytes);
        Some(asked)
    }

    /// Returns the number of questions that are not answered yet.
    pub(super) fn asking(&self) -> usize {
        self.questions.len()
    }
}

impl Gateway {
    /// Executes a call of a client, after the back end has allowed it if it has to be asked.
    pub(super) fn call_if_allowed(
        &mut self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        head: &RequestHead<'_>,
        call: Call,
        mut caller: Caller,
    ) {
        // A client of the admin listener may do anything.
        if caller.grant.is_none() {
            return self.call(http, id, head, call, &caller);
        }
        let access = call.access();
        if access.course == Course::Conversation {
            caller.opening = self.opening_of(head, &access).map(Arc::new);
        }
        if !self.site.is_there() {
            return self.call(http, id, head, call, &caller);
        }
        let hooks = &self.config.hooks;
        let (headers, is_forged) = self.passed_on(head, &access);
        let member = caller.grant.as_ref().and_then(|grant| grant.subject.as_deref());
        let Some(mut question) = question_of(hooks, &access, member) else {
            return self.call(http, id, head, call, &caller);
        };
        (question.origin, question.headers) = (origin::origin(head), headers);
        if is_forged {
            return self.refuse_call(http, id, call, Problem::NotAllowed(Denial::Page));
        }
        let Some(body) = question.to_json(hooks.question_bytes_max) else {
            return self.refuse_call(http, id, call, Problem::HookTooLarge);
        };
        let key = (question.action == QuestionKind::Subscribe).then(|| QuestionDigest::of(&body));
        match key.as_ref().and_then(|key| self.site.answers.find(key, loop_time(http))) {
            Some(true) => self.call(http, id, head, call, &caller),
            Some(false) => self.refuse_call(http, id, call, Problem::HookRefused),
            None => {
                let client = caller.asking;
                if let Err(problem) = self.make_room(client, body.len()) {
                    return self.refuse_call(http, id, call, problem);
                }
                let question = self.put_question(http, id, client, body, key, Then::Call(Box::new(call), caller));
                if let Some(client) = http.state_mut(id) {
                    client.session = SessionState::Hooked(question);
                }
                self.send_questions(http);
            }
        }
    }

    /// Returns the fields of a request that are passed on to the back end, and whether a page of
    /// any site could have made a browser add some of them.
    fn passed_on(&self, head: &RequestHead<'_>, access: &Access<'_>) -> (Vec<PassedOn>, bool) {
        let field = |name: &String| Some((name.as_str().into(), head.header_str(name)?.into()));
        let fields: Vec<PassedOn> = self.config.hooks.headers.iter().filter_map(field).collect();
        let has_ambient = fields.iter().any(|(name, value)| is_ambient(name, value));
        let is_forged = has_ambient && self.authorizer.may_be_forged(head, access);
        (fields, is_forged && !fault!("cookies-act-for-anybody"))
    }

    /// Returns the kept parts of a request that opens a WebSocket, if the back end or the embedder
    /// is asked about its commands.
    fn opening_of(&self, head: &RequestHead<'_>, access: &Access<'_>) -> Option<Opening> {
        let hooks = &self.config.hooks;
        let is_asked = self.site.is_there() && (hooks.publish || hooks.subscribe);
        if !is_asked && self.judge.is_none() {
            return None;
        }
        // Questions about later commands do not contain fields that a browser sends for pages of
        // any site.
        let passed_on = match self.passed_on(head, access) {
            (_, true) if !fault!("foreign-socket-keeps-cookie") => Box::default(),
            (fields, _) => fields.into(),
        };
        let may_be_forged = self.authorizer.may_be_forged(head, access);
        let fields = self.judge.as_ref().map(|_| KeptFields::of(head, may_be_forged)).unwrap_or_default();
        Some(Opening { origin: origin::origin(head).map(Into::into), passed_on, fields })
    }

    /// Asks the back end about a command on a WebSocket, which is not read meanwhile. Returns the
    /// call if the back end need not be asked, and an error if it cannot be asked or its kept
    /// answer refuses the call.
    pub(super) fn ask_about_socket_call(
        &mut self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        socket: u32,
        call: SocketCall,
    ) -> Result<Option<SocketCall>, Problem> {
        let (hooks, caller) = (&self.config.hooks, self.sockets[socket as usize].caller.clone());
        let Some(grant) = caller.grant.as_ref().filter(|_| self.site.is_there()) else { return Ok(Some(call)) };
        let question = question_of(hooks, &call.access(), grant.subject.as_deref());
        let is_left_out =
            |question: &Question<'_>| question.action == QuestionKind::Subscribe && fault!("added-not-asked-about");
        let Some(question) = question.filter(|question| !is_left_out(question)) else { return Ok(Some(call)) };
        let opening = caller.opening.as_deref();
        let headers = opening.map_or_else(Vec::new, |opening| opening.passed_on.to_vec());
        let question = Question { origin: opening.and_then(|opening| opening.origin.as_deref()), headers, ..question };
        let body = question.to_json(hooks.question_bytes_max).ok_or(Problem::HookTooLarge)?;
        let key = (question.action == QuestionKind::Subscribe).then(|| QuestionDigest::of(&body));
        match key.as_ref().and_then(|key| self.site.answers.find(key, loop_time(http))) {
            Some(true) => return Ok(Some(call)),
            Some(false) => return Err(Problem::HookRefused),
            None => self.make_room(caller.asking, body.len())?,
        }
        let question = self.put_question(http, id, caller.asking, body, key, Then::SocketCall(socket, call));
        if !fault!("publication-overtakes-question") {
            self.sockets[socket as usize].question = Some(question);
            http.pause(id);
        }
        self.send_questions(http);
        Ok(None)
    }

    /// Reserves room for the next question of a client, if there is any.
    fn make_room(&mut self, client: Asking, bytes: usize) -> Result<(), Problem> {
        let question = self.site.questions.vacant_key() as u32;
        self.site.turns.add(client, client.is_limited(), question, bytes).map_err(|full| match full {
            Full::Client => Problem::TooManyRequests(CLIENT_RETRY_S),
            Full::All => Problem::HookUnavailable,
        })
    }

    /// Stores a question for which room was reserved.
    fn put_question(
        &mut self,
        http: &Http<'_, Self>,
        peer: ConnectionId,
        client: Asking,
        body: Bytes,
        key: Option<QuestionDigest>,
        then: Then,
    ) -> u32 {
        let (bytes, since) = (body.len(), loop_time(http));
        let progress = Progress::Waiting(body);
        self.site.questions.insert(Asked { peer, client, progress, bytes, since, key, then }) as u32
    }

    /// Sends the next questions, as far as there are connections for them.
    fn send_questions(&mut self, http: &mut Http<'_, Self>) {
        let others = usize::from(self.site.reporting == Reporting::UnderWay);
        while let Some(question) = self.site.turns.next(others, Asking::is_limited) {
            let Some(asked) = self.site.questions.get(question as usize) else { continue };
            let Progress::Waiting(body) = &asked.progress else { continue };
            let body = body.clone();
            let Some(fetch) = self.send_to_site(http, body) else { return };
            self.site.fetches.insert(fetch, Sent::Question(question));
            if let Some(asked) = self.site.questions.get_mut(question as usize) {
                asked.progress = Progress::Sent(fetch);
            }
        }
        self.look_later(http);
    }

    pub(super) fn send_to_site(&mut self, http: &mut Http<'_, Self>, body: Bytes) -> Option<FetchId> {
        let way = self.site.way.as_mut()?;
        let upstream = *way.id.get_or_insert_with(|| http.add_upstream(way.upstream.clone()));
        Some(http.fetch(upstream, &way.fetch.clone().body(body)))
    }

    /// Sets a timer for the first timeout of a waiting question, if there is one and no timer is
    /// set.
    fn look_later(&mut self, http: &mut Http<'_, Self>) {
        if self.site.is_looking {
            return;
        }
        let waiting = self.site.questions.iter().map(|(_, asked)| asked);
        let first = waiting.filter(|asked| asked.is_waiting()).map(|asked| asked.since).min();
        if let Some(since) = first {
            let left = since.plus(self.config.hooks.timeout()).saturating_since(loop_time(http));
            http.set_timer(left.max(LOOK_MIN), Chore::LookAtQuestions);
            self.site.is_looking = true;
        }
    }

    /// Gives up the questions that have waited for their turn for too long. The back end counts as
    /// down if it has answered nothing meanwhile; otherwise there were only too many questions,
    /// which clients can cause.
    pub(super) fn look_at_questions(&mut self, http: &mut Http<'_, Self>) {
        self.site.is_looking = false;
        let (now, timeout) = (loop_time(http), self.config.hooks.timeout());
        let is_late = |asked: &Asked| asked.is_waiting() && asked.since.plus(timeout) <= now;
        let late = self.site.questions.iter().filter(|(_, asked)| is_late(asked)).map(|(key, _)| key as u32);
        for question in late.collect::<Vec<u32>>() {
            let Some(asked) = self.site.take(question) else { continue };
            self.answering.meter.hook_errors.add(1);
            let has_answered = self.site.answered.is_some_and(|answered| answered >= asked.since);
            let verdict = if has_answered && !fault!("late-counts-as-down") { Verdict::Unclear } else { Verdict::Down };
            self.go_on(http, asked, BackEndAnswer { verdict, kept_s: 0 });
        }
        self.look_later(http);
    }

    /// Handles the result of a request to the back end.
    pub(super) fn site_answered(&mut self, http: &mut Http<'_, Self>, id: FetchId, fetched: &Fetched<'_>) {
        let Some(answer) = BackEndAnswer::of(fetched) else { return };
        match self.site.fetches.remove(&id) {
            Some(Sent::Question(question)) => {
                let is_answer = matches!(answer.verdict, Verdict::Allowed | Verdict::Refused);
                self.note_whether_down(http, !is_answer, fetched);
                if let Some(asked) = self.site.take(question) {
                    let waited = loop_time(http).saturating_since(asked.since);
                    self.answering.meter.hook_answers.note(waited);
                    self.go_on(http, asked, answer);
                }
            }
            Some(Sent::Movements) => {
                let is_received = matches!(fetched, Fetched::Whole(head, _) if head.is_success());
                self.note_whether_down(http, !is_received, fetched);
                self.report_ended(http, fetched);
            }
            None => return,
        }
        self.send_questions(http);
    }

    /// Logs a failure of the back end: once, and not for each client that is affected.
    fn note_whether_down(&mut self, http: &Http<'_, Self>, is_down: bool, fetched: &Fetched<'_>) {
        let now = loop_time(http);
        self.answering.meter.hook_errors.add(is_down.into());
        if matches!(fetched, Fetched::Whole(head, _) if head.status() < 500) {
            self.site.answered = Some(now);
        }
        if is_down && !self.site.is_down && now >= self.site.warns_again {
            let (url, reason) = (self.config.hooks.shown_url(), reason_of(fetched));
            tracing::warn!(url, reason, "the back end does not answer as it should");
            self.site.warns_again = now.plus(WARNING_INTERVAL);
        }
        self.site.is_down = is_down;
    }

    fn go_on(&mut self, http: &mut Http<'_, Self>, asked: Asked, answer: BackEndAnswer) {
        let Asked { peer, key, then, .. } = asked;
        if let Some(key) = key {
            self.site.answers.keep(key, answer.verdict, answer.kept_s, loop_time(http));
        }
        let outcome = match (answer.verdict, self.config.hooks.when_down) {
            (Verdict::Allowed, _) | (Verdict::Down, WhenDown::Allow) => Ok(()),
            (Verdict::Refused, _) if fault!("refused-question-goes-on") => Ok(()),
            (Verdict::Refused, _) => Err(Problem::HookRefused),
            (Verdict::Down, WhenDown::Refuse) | (Verdict::Unclear, _) => Err(Problem::HookUnavailable),
        };
        let now = unix_time(http);
        // A token may have expired while the back end was asked.
        let in_time = |caller: &Caller| {
            if caller.has_expired(now) && !fault!("expiry-not-seen-again") {
                Err(Problem::TokenExpired)
            } else {
                Ok(())
            }
        };
        match then {
            Then::Call(call, caller) => {
                done(http, peer, &self.answering.meter);
                match outcome.and_then(|()| in_time(&caller)) {
                    Ok(()) => self.act(http, peer, *call, &caller),
                    Err(problem) => self.refuse_call(http, peer, *call, problem),
                }
            }
            Then::SocketCall(socket, call) => {
                let Some(held) = self.sockets.get_mut(socket as usize) else { return };
                held.question = None;
                match outcome.and_then(|()| in_time(&held.caller)) {
                    Ok(()) => self.carry_out(http, peer, socket, call),
                    Err(problem) => {
                        self.answering.meter.note_refused(call.access().publishes);
                        refuse_on_socket(http, peer, problem, call.reference(), &self.answering);
                    }
                }
                http.resume(peer);
            }
        }
    }

    pub(super) fn refuse_call(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, call: Call, problem: Problem) {
        self.answering.meter.note_refused(call.access().publishes);
        let callback = call.access().callback.map(Box::<str>::from);
        match call.into_subscription() {
            Some(subscription) => self.refuse(http, id, &subscription, problem),
            None => respond_problem(http, id, problem, callback.as_deref(), &self.answering),
        }
    }

    /// Drops a question whose client has gone.
    pub(super) fn forget_question(&mut self, http: &mut Http<'_, Self>, question: u32) {
        let Some(asked) = self.site.take(question) else { return };
        if let Progress::Sent(fetch) = asked.progress {
            self.site.fetches.remove(&fetch);
            http.cancel_fetch(fetch);
            self.send_questions(http);
        }
    }
}

impl Asked {
    fn is_waiting(&self) -> bool {
        matches!(self.progress, Progress::Waiting(_))
    }
}

/// Returns the question to the back end about a call, if there is one.
fn question_of<'a>(hooks: &Hooks, access: &Access<'a>, member: Option<&'a str>) -> Option<Question<'a>> {
    let drafts = access.writes().filter_map(|write| Some((write.channel, write.draft?)));
    let drafts: Vec<_> = drafts.filter(|(channel, _)| hooks.concern(channel)).collect();
    if !drafts.is_empty() && hooks.publish {
        return Some(Question { member, drafts, ..Question::about(QuestionKind::Publish) });
    }
    // Reading history is treated like subscribing. Joins and leaves are exempt: they require
    // `presence` in a token.
    let channels = access.reads().filter(|channel| !channel.is_presence() && hooks.concern(channel));
    let channels: Vec<_> = channels.collect();
    let is_asked = !channels.is_empty() && hooks.subscribe;
    is_asked.then_some(Question { member, channels, ..Question::about(QuestionKind::Subscribe) })
}
