//! The site's back end is asked before something is done, and told of what happened.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sealed::ConnectionId;
use sealed_http::{Fetch, FetchId, Fetched, Http, RequestHead, Upstream, UpstreamId};
use slab::Slab;

use super::answers::respond_problem;
use super::{App, Caller, Chore, Doing, done, now_ms, unix_ms};
use crate::auth::callback_of;
use crate::hooks::{Answer, Answers, Deed, Hooks, Key, Movements, Question, Told, Verdict, WhenDown};
use crate::message::{ChannelName, Draft, Movement};
use crate::wire::icomet::request as icomet;
use crate::wire::problem::Problem;
use crate::wire::request::Call;

/// Bytes of an answer; a longer one is none.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

/// The way to the back end, and what is under way.
#[derive(Debug)]
pub(super) struct Site {
    way: Option<Way>,
    questions: Slab<Asked>,
    fetches: HashMap<FetchId, Sent>,
    answers: Answers,
    movements: Movements,
    /// It is not told anything before a timer runs out.
    is_resting: bool,
    /// What it said last was no answer.
    is_down: bool,
}

#[derive(Debug)]
struct Way {
    upstream: Upstream,
    /// Once something was sent there.
    id: Option<UpstreamId>,
    /// What every request has.
    fetch: Fetch,
}

/// What a request to the back end is about.
#[derive(Debug, Clone, Copy)]
enum Sent {
    /// A question, by its place among them.
    Question(u32),
    Movements,
}

/// A question that is not answered yet.
#[derive(Debug)]
struct Asked {
    fetch: FetchId,
    peer: ConnectionId,
    /// Under which its answer may be kept.
    key: Option<Key>,
    then: Then,
}

/// What is done where it is allowed.
#[derive(Debug)]
enum Then {
    Call(Box<Call>, Caller),
    /// What a client said on its WebSocket, which is not listened to meanwhile.
    Publish {
        socket: u32,
        channel: ChannelName,
        draft: Draft,
        reference: Option<i64>,
    },
}

impl Site {
    /// Looks its name up, which may take a while: before the loop runs.
    pub(super) fn new(hooks: &Hooks) -> Self {
        let is_wanted = hooks.subscribe || hooks.publish || hooks.presence;
        let limit = Duration::from_millis(hooks.timeout_ms);
        let way = hooks.place().filter(|_| is_wanted).and_then(|(host, path)| {
            let upstream = Upstream::to(host.as_str()).connections_max(hooks.connections_max);
            let upstream = upstream.waiting_max(hooks.waiting_max).connect_limit(limit);
            let fetch = Fetch::post(path).ok()?.header("Content-Type", "application/json");
            let mut fetch = fetch.limit(Some(limit)).silence_max(limit).body_bytes_max(ANSWER_BYTES_MAX);
            if let Some(secret) = &hooks.secret {
                fetch = fetch.try_header("Authorization", format!("Bearer {}", secret.as_str())).ok()?;
            }
            Some(Way { upstream, id: None, fetch })
        });
        Self {
            way,
            questions: Slab::new(),
            fetches: HashMap::new(),
            answers: Answers::new(hooks.answers_max),
            movements: Movements::new(hooks.movements_max),
            is_resting: false,
            is_down: false,
        }
    }

    pub(super) fn sweep(&mut self, now_ms: u64) {
        self.answers.sweep(now_ms);
    }

    /// Questions that are not answered yet.
    #[cfg(feature = "sim")]
    pub(super) fn asking(&self) -> usize {
        self.questions.len()
    }
}

impl App {
    /// Does what a client of the front wants, when the back end allows it where it is to be asked.
    pub(super) fn call_if_allowed(
        &mut self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        head: &RequestHead<'_>,
        call: Call,
        caller: Caller,
    ) {
        let hooks = &self.config.hooks;
        let question = question_of(hooks, &call, caller.grant.as_ref().and_then(|grant| grant.subject.as_deref()));
        // Who comes by the admin listener may do anything.
        let Some(mut question) = question.filter(|_| caller.grant.is_some() && self.site.way.is_some()) else {
            return self.call(http, id, head, call, &caller);
        };
        let passed_on = |name: &String| Some((name.as_str().into(), head.header_str(name)?.into()));
        question.headers = hooks.headers.iter().filter_map(passed_on).collect();
        let key = (question.deed == Deed::Subscribe).then(|| Key {
            member: question.member.map(Into::into),
            channels: question.channels.iter().map(|channel| (*channel).clone()).collect(),
            headers: question.headers.clone(),
        });
        let known = key.as_ref().and_then(|key| self.site.answers.find(key, now_ms(http)));
        let body = question.to_json();
        match known {
            Some(true) => self.call(http, id, head, call, &caller),
            Some(false) => self.refuse_call(http, id, call, Problem::HookRefused),
            None => {
                let question = self.ask_site(http, id, body, key, Then::Call(Box::new(call), caller));
                if let (Some(question), Some(client)) = (question, http.state_mut(id)) {
                    client.doing = Doing::Hooked(question);
                }
            }
        }
    }

    /// Asks the back end whether a client may publish what it said on its WebSocket, where that is to be asked. Gives the draft
    /// back where it is not.
    pub(super) fn ask_about_publishing(
        &mut self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        socket: u32,
        channel: ChannelName,
        draft: Draft,
        reference: Option<i64>,
    ) -> Option<(ChannelName, Draft)> {
        let hooks = &self.config.hooks;
        let grant = self.sockets[socket as usize].caller.grant.clone();
        if !hooks.publish || self.site.way.is_none() || grant.is_none() || !hooks.concern(&channel) {
            return Some((channel, draft));
        }
        let member = grant.as_ref().and_then(|grant| grant.subject.as_deref());
        let question = Question { member, drafts: vec![(&channel, &draft)], ..Question::about(Deed::Publish) };
        let body = question.to_json();
        let then = Then::Publish { socket, channel, draft, reference };
        self.sockets[socket as usize].question = self.ask_site(http, id, body, None, then);
        http.pause(id);
        None
    }

    fn ask_site(
        &mut self,
        http: &mut Http<'_, Self>,
        peer: ConnectionId,
        body: Bytes,
        key: Option<Key>,
        then: Then,
    ) -> Option<u32> {
        let fetch = self.send_to_site(http, body)?;
        let question = self.site.questions.insert(Asked { fetch, peer, key, then }) as u32;
        self.site.fetches.insert(fetch, Sent::Question(question));
        Some(question)
    }

    fn send_to_site(&mut self, http: &mut Http<'_, Self>, body: Bytes) -> Option<FetchId> {
        let way = self.site.way.as_mut()?;
        let upstream = *way.id.get_or_insert_with(|| http.add_upstream(way.upstream.clone()));
        Some(http.fetch(upstream, &way.fetch.clone().body(body)))
    }

    /// Something came of a request to the back end.
    pub(super) fn site_answered(&mut self, http: &mut Http<'_, Self>, id: FetchId, fetched: &Fetched<'_>) {
        let answer = match fetched {
            Fetched::Whole(head, body) => Answer::read(head, body),
            Fetched::Failed(_) => Answer::DOWN,
            _ => return,
        };
        let heard = matches!(fetched, Fetched::Whole(head, _) if head.is_success());
        let is_down = match self.site.fetches.remove(&id) {
            Some(Sent::Question(question)) => {
                let asked = self.site.questions.remove(question as usize);
                self.go_on(http, asked, answer);
                answer.verdict == Verdict::Down
            }
            // Whatever it says to that.
            Some(Sent::Movements) => {
                self.movements_told(http, heard);
                !heard
            }
            None => return,
        };
        // Once, and not for each client that comes meanwhile.
        if is_down && !self.site.is_down {
            tracing::warn!(?fetched, "the back end does not answer as it should");
        }
        self.site.is_down = is_down;
    }

    fn go_on(&mut self, http: &mut Http<'_, Self>, asked: Asked, answer: Answer) {
        let Asked { peer, key, then, .. } = asked;
        if let Some(key) = key {
            self.site.answers.keep(key, answer.verdict, answer.kept_s, now_ms(http));
        }
        let outcome = match (answer.verdict, self.config.hooks.when_down) {
            (Verdict::Allowed, _) | (Verdict::Down, WhenDown::Allow) => Ok(()),
            (Verdict::Refused, _) => Err(Problem::HookRefused),
            (Verdict::Down, WhenDown::Refuse) => Err(Problem::HookUnavailable),
        };
        match (then, outcome) {
            (Then::Call(call, caller), outcome) => {
                done(http, peer);
                match outcome {
                    Ok(()) => self.act(http, peer, *call, &caller),
                    Err(problem) => self.refuse_call(http, peer, *call, problem),
                }
            }
            (Then::Publish { socket, channel, draft, reference }, outcome) => {
                if let Some(held) = self.sockets.get_mut(socket as usize) {
                    held.question = None;
                }
                match outcome {
                    Ok(()) => self.publish_said(http, peer, socket, channel, draft, reference),
                    Err(problem) => Self::tell(http, peer, &crate::wire::socket::refused(problem, reference)),
                }
                http.resume(peer);
            }
        }
    }

    fn refuse_call(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, call: Call, problem: Problem) {
        let callback = callback_of(&call);
        match call {
            Call::Subscribe { subscription, .. } | Call::Icomet(icomet::Call::Subscribe { subscription, .. }) => {
                self.refuse(http, id, subscription, problem);
            }
            _ => respond_problem(http, id, problem, callback.as_deref(), &self.cross_origin),
        }
    }

    /// Whoever asked is gone.
    pub(super) fn forget_question(&mut self, http: &mut Http<'_, Self>, question: u32) {
        let asked = self.site.questions.remove(question as usize);
        self.site.fetches.remove(&asked.fetch);
        http.cancel_fetch(asked.fetch);
    }

    /// Somebody came into a channel that has its home here, or went.
    pub(super) fn note_movement(
        &mut self,
        http: &Http<'_, Self>,
        channel: ChannelName,
        id: Arc<str>,
        movement: Movement,
    ) {
        if self.site.way.is_some()
            && self.config.hooks.concern(&channel)
            && !self.site.movements.push(channel, id, movement, unix_ms(http))
        {
            tracing::warn!("the back end is not told of all who come and go: too many wait to be told");
        }
    }

    /// Tells the back end what there is to be told, if it is not being told something already.
    pub(super) fn tell_site(&mut self, http: &mut Http<'_, Self>) {
        if self.site.is_resting {
            return;
        }
        if let Some(body) = self.site.movements.next()
            && let Some(fetch) = self.send_to_site(http, body)
        {
            self.site.fetches.insert(fetch, Sent::Movements);
        }
    }

    fn movements_told(&mut self, http: &mut Http<'_, Self>, heard: bool) {
        match self.site.movements.told(heard) {
            Told::Heard => {}
            Told::Again(seconds) => {
                self.site.is_resting = true;
                http.set_timer(Duration::from_secs(seconds), Chore::TellSite);
            }
            Told::GivenUp(count) => tracing::warn!(count, "the back end could not be told of who came and went"),
        }
    }

    pub(super) fn site_has_rested(&mut self) {
        self.site.is_resting = false;
    }
}

/// What is to be asked about a call, if anything is.
fn question_of<'a>(hooks: &Hooks, call: &'a Call, member: Option<&'a str>) -> Option<Question<'a>> {
    let (mut channels, mut drafts) = (Vec::new(), Vec::new());
    match call {
        Call::Publish { channel, draft, .. } => drafts.push((channel, draft)),
        Call::PublishAll { publications } => {
            drafts.extend(publications.iter().map(|publication| (&publication.channel, &publication.draft)));
        }
        Call::Subscribe { subscription, .. }
        | Call::Socket { subscription, .. }
        | Call::Icomet(icomet::Call::Subscribe { subscription, .. }) => {
            let named = subscription.channels.iter().map(|(channel, _)| channel);
            channels.extend(named.filter(|channel| !channel.is_presence()));
        }
        // What is in a channel is no other matter than what comes; and who signs in, all who read it hear of.
        Call::Read { channel, .. } | Call::Who { channel } | Call::Sign { channel, .. } => channels.push(channel),
        _ => return None,
    }
    channels.retain(|channel| hooks.concern(channel));
    drafts.retain(|(channel, _)| hooks.concern(channel));
    if !drafts.is_empty() && hooks.publish {
        return Some(Question { member, drafts, ..Question::about(Deed::Publish) });
    }
    let is_asked = !channels.is_empty() && hooks.subscribe;
    is_asked.then_some(Question { member, channels, ..Question::about(Deed::Subscribe) })
}
