//! Requests that publish several messages, or in several channels. Each gets one answer, after the
//! engine has replied to all of its parts.

use sealed::ConnectionId;
use sealed_http::{Http, Response};

use super::answers::{fields_for, note_refusal};
use super::pending::PendingRequest;
use super::{Caller, Gateway, SessionState, done, unix_time};
use crate::core::message::{ChannelName, Message};
use crate::core::one_or_more::OneOrMore;
use crate::core::problem::Problem;
use crate::engine::{BroadcastOrder, Reply, Request};
use crate::protocols::call::ReplyTo;
use crate::protocols::format::jsonp;
use crate::protocols::format::response::json_response;
use crate::protocols::native::publication::{AddressedDraft, PublicationOutcome, write_results};

/// A request whose publications are in transit.
#[derive(Debug)]
pub(super) struct PendingBatch {
    /// The outcome of each publication, if it is known.
    results: Vec<(ChannelName, Option<PublicationOutcome>)>,
    /// The number of missing replies.
    missing: usize,
}

/// The messages of a batch for one channel, or for one pattern.
struct Group {
    channel: ChannelName,
    places: Vec<usize>,
    messages: OneOrMore<Message>,
}

impl Gateway {
    /// Publishes messages in their order; those of one channel go together.
    pub(super) fn publish_all(
        &mut self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        publications: Vec<AddressedDraft>,
        caller: &Caller,
    ) {
        let results: Vec<_> = publications.iter().map(|publication| (publication.channel.clone(), None)).collect();
        let mut groups: Vec<Group> = Vec::new();
        for (place, AddressedDraft { channel, draft }) in publications.into_iter().enumerate() {
            let message = draft.taken_at(unix_time(http));
            // Messages for other channels in the same request have this payload, too.
            if !message.payload.is_unique() {
                message.share();
            }
            match groups.iter_mut().find(|group| group.channel == channel && !channel.is_pattern()) {
                Some(group) => {
                    group.places.push(place);
                    group.messages.rest.push(message);
                }
                None => groups.push(Group { channel, places: vec![place], messages: OneOrMore::one(message) }),
            }
        }
        let missing = groups.len();
        // A connection has one request at a time.
        self.batches.insert(id, PendingBatch { results, missing });
        if let Some(client) = http.state_mut(id) {
            client.session = SessionState::Publishing;
        }
        let reach_max = match caller.grant {
            None => usize::MAX,
            Some(_) => self.config.limits.channels_per_broadcast_max,
        };
        for Group { channel, places, messages } in groups {
            let pending = PendingRequest::new(id, ReplyTo::Part { places });
            let owner = caller.owner();
            match channel.to_pattern() {
                Some(pattern) => {
                    let order = BroadcastOrder { pattern, message: messages.first, reach_max, owner };
                    self.request(http, Request::Broadcast(order), pending.paid_by(caller.asking));
                }
                None => self.request(http, Request::Publish { channel, messages, owner }, pending),
            }
        }
    }

    /// Handles the engine's reply to one of the requests. After the last reply, the publisher is
    /// answered.
    pub(super) fn complete_part(
        &mut self,
        http: &mut Http<'_, Self>,
        peer: ConnectionId,
        places: &[usize],
        outcome: &Result<Reply, Problem>,
    ) {
        // The publisher has gone and needs no answer.
        let Some(batch) = self.batches.get_mut(&peer) else { return };
        batch.missing -= 1;
        for (index, place) in places.iter().enumerate() {
            batch.results[*place].1 = match outcome {
                Ok(Reply::Published(spots)) => spots.iter().nth(index).copied().map(PublicationOutcome::At),
                Ok(Reply::Broadcast { channels, .. }) => Some(PublicationOutcome::In(*channels)),
                Ok(_) => None,
                Err(problem) => Some(PublicationOutcome::Refused(*problem)),
            };
        }
        if batch.missing > 0 {
            return;
        }
        let results = self.batches.remove(&peer).map_or_else(Vec::new, |batch| batch.results);
        done(http, peer, &self.answering.meter);
        let (response, problem) = respond(&results);
        if let Some(problem) = problem {
            note_refusal(http, peer, problem, &self.answering);
        }
        http.respond(peer, &response.with(fields_for(&self.answering, http.state(peer))));
    }
}

/// Returns the answer, which lists the outcome of each publication, and the first problem, if there
/// is one.
fn respond(results: &[(ChannelName, Option<PublicationOutcome>)]) -> (Response, Option<Problem>) {
    let outcomes = || results.iter().filter_map(|(channel, outcome)| Some((channel, (*outcome)?)));
    let problem = outcomes().find_map(|(_, outcome)| match outcome {
        PublicationOutcome::Refused(problem) => Some(problem),
        _ => None,
    });
    let mut list = Vec::new();
    write_results(outcomes(), &mut list);
    let Some(problem) = problem else {
        return (json_response(jsonp::wrap(None, [b"{".as_slice(), &list, b"}"].concat())), None);
    };
    let response = super::answers::problem_response(problem);
    let mut body = problem.details().to_json();
    body.pop();
    (response.body([body.as_slice(), b",", &list, b"}"].concat()), Some(problem))
}
