//! Requests that wait for their replies.

use std::time::Duration;

use sealed::fault;
use slab::Slab;

use super::request::{Refusal, Reply, Request};
use crate::core::time::LoopTime;

/// Identifies a request when its reply arrives. It is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestId {
    index: u32,
    serial: u32,
}

/// The requests of one loop, each with its context.
#[derive(Debug)]
pub(super) struct PendingRequests<T> {
    requests: Slab<Waiting<T>>,
    last_serial: u32,
    limit: Duration,
}

#[derive(Debug)]
struct Waiting<T> {
    serial: u32,
    context: T,
    /// The time at which it is given up.
    deadline: LoopTime,
    /// The number of shards whose replies are outstanding.
    missing: usize,
    /// The combined replies so far of a request to all shards.
    gathered: Option<Gathered>,
}

/// The combined replies of several shards to one request.
#[derive(Debug)]
enum Gathered {
    Broadcast { channels: u64, refused: Option<Refusal> },
    List { channels: Vec<super::Listed>, limit: usize, refused: Option<Refusal> },
}

impl Gathered {
    /// Returns an empty combination if the request goes to all shards.
    fn of(request: &Request) -> Option<Self> {
        match request {
            Request::Broadcast(_) => Some(Self::Broadcast { channels: 0, refused: None }),
            Request::List { listing } => Some(Self::List { channels: Vec::new(), limit: listing.limit, refused: None }),
            _ => None,
        }
    }

    fn add(&mut self, outcome: Result<Reply, Refusal>) {
        match (self, outcome) {
            (Self::Broadcast { channels, refused }, Ok(Reply::Broadcast { channels: more, refused: also })) => {
                *channels += more;
                *refused = refused.or(also);
            }
            (Self::Broadcast { refused, .. }, Err(why)) => *refused = refused.or(Some(why)),
            (Self::List { channels, .. }, Ok(Reply::List { channels: mut more, .. })) => channels.append(&mut more),
            (Self::List { refused, .. }, Err(why)) => *refused = Some(why),
            (_, outcome) => debug_assert!(false, "not the reply to this request: {outcome:?}"),
        }
    }

    fn into_reply(self) -> Result<Reply, Refusal> {
        match self {
            Self::Broadcast { channels, refused } => Ok(Reply::Broadcast { channels, refused }),
            Self::List { refused: Some(why), .. } => Err(why),
            Self::List { mut channels, limit, .. } => {
                channels.sort_unstable_by(|one, other| one.channel.cmp(&other.channel));
                let has_more = channels.len() > limit;
                channels.truncate(limit);
                Ok(Reply::List { channels, has_more })
            }
        }
    }
}

impl<T> PendingRequests<T> {
    /// Changes how long a request waits for its reply, from the next request on.
    pub(super) fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Creates the list. `limit` is how long a request waits for its reply.
    pub(super) fn new(limit: Duration) -> Self {
        Self { requests: Slab::new(), last_serial: 0, limit }
    }

    /// Adds a request to one shard, or to all of `shards`.
    pub(super) fn add(&mut self, now: LoopTime, request: &Request, shards: usize, context: T) -> RequestId {
        self.last_serial = self.last_serial.wrapping_add(1);
        let (serial, gathered) = (self.last_serial, Gathered::of(request));
        let missing = if gathered.is_some() { shards } else { 1 };
        let deadline = now.plus(self.limit);
        let index = self.requests.insert(Waiting { serial, context, deadline, missing, gathered }) as u32;
        RequestId { index, serial }
    }

    /// Processes the reply of a shard. Returns the request's only reply, if no other shard's is
    /// outstanding.
    pub(super) fn reply(
        &mut self,
        id: RequestId,
        outcome: Result<Reply, Refusal>,
    ) -> Option<(T, Result<Reply, Refusal>)> {
        let index = id.index as usize;
        // The request may have been given up.
        let waiting = self.requests.get_mut(index).filter(|waiting| waiting.serial == id.serial)?;
        waiting.missing -= 1;
        let outcome = match &mut waiting.gathered {
            None => outcome,
            Some(gathered) => {
                gathered.add(outcome);
                if waiting.missing > 0 {
                    return None;
                }
                waiting.gathered.take()?.into_reply()
            }
        };
        Some((self.requests.remove(index).context, outcome))
    }

    /// Gives up the requests that have waited for too long. The reply to a broadcast counts the
    /// channels in which the message is known to be.
    pub(super) fn give_up(&mut self, now: LoopTime) -> Vec<(T, Result<Reply, Refusal>)> {
        let is_late = |waiting: &Waiting<T>| waiting.deadline <= now && !fault!("request-waits-for-ever");
        let late = self.requests.iter().filter(|(_, waiting)| is_late(waiting)).map(|(index, _)| index);
        let given_up = late.collect::<Vec<_>>().into_iter().map(|index| {
            let Waiting { context, gathered, .. } = self.requests.remove(index);
            let outcome = match gathered {
                Some(Gathered::Broadcast { channels, .. }) => {
                    Ok(Reply::Broadcast { channels, refused: Some(Refusal::Unavailable) })
                }
                _ => Err(Refusal::Unavailable),
            };
            (context, outcome)
        });
        let given_up = given_up.collect();
        if self.requests.is_empty() {
            self.requests.shrink_to_fit();
        }
        given_up
    }

    #[cfg(any(feature = "sim", test))]
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::message::{ChannelName, Draft};
    use crate::core::owner::Owner;
    use crate::core::pattern::Pattern;
    use crate::core::time::UnixMillis;
    use crate::engine::{BroadcastOrder, Listing};

    fn at(seconds: u64) -> LoopTime {
        LoopTime::since_start(Duration::from_secs(seconds))
    }

    fn delete() -> Request {
        Request::Delete { channel: ChannelName::new("a").expect("a name") }
    }

    #[test]
    fn a_request_has_one_reply() {
        let mut pending = PendingRequests::new(Duration::from_secs(10));
        let first = pending.add(at(0), &delete(), 2, "first");
        let second = pending.add(at(0), &delete(), 2, "second");
        let ended = |next| Ok(Reply::Ended(Some(next)));
        assert!(matches!(pending.reply(second, ended(2)), Some(("second", Ok(Reply::Ended(Some(2)))))));
        assert!(matches!(pending.reply(first, ended(1)), Some(("first", Ok(Reply::Ended(Some(1)))))));
        let third = pending.add(at(0), &delete(), 2, "third");
        assert!(pending.reply(first, ended(3)).is_none() && pending.reply(second, ended(3)).is_none());
        assert!(pending.reply(third, ended(3)).is_some());
    }

    #[test]
    fn a_request_is_given_up_at_its_deadline_and_later_replies_are_dropped() {
        let mut pending = PendingRequests::new(Duration::from_secs(10));
        let early = pending.add(at(0), &delete(), 2, "early");
        let late = pending.add(at(1), &delete(), 2, "late");
        assert!(pending.give_up(at(9)).is_empty());
        let given_up = pending.give_up(at(10));
        assert!(matches!(given_up[..], [("early", Err(Refusal::Unavailable))]), "{given_up:?}");
        assert!(pending.reply(early, Ok(Reply::Done)).is_none());
        assert!(pending.reply(late, Ok(Reply::Done)).is_some());
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn replies_of_all_shards_are_combined_into_one() {
        let mut pending = PendingRequests::new(Duration::from_secs(10));
        let message = Draft::default().taken_at(UnixMillis::default());
        let order = BroadcastOrder { pattern: Pattern::all(), message, reach_max: 9, owner: Owner::default() };
        let broadcast = Request::Broadcast(order);
        let id = pending.add(at(0), &broadcast, 3, ());
        assert!(pending.reply(id, Ok(Reply::Broadcast { channels: 2, refused: None })).is_none());
        assert!(pending.reply(id, Err(Refusal::BroadcastLimit)).is_none());
        let reply = pending.reply(id, Ok(Reply::Broadcast { channels: 3, refused: None }));
        let refused = Some(Refusal::BroadcastLimit);
        assert!(matches!(reply, Some(((), Ok(Reply::Broadcast { channels: 5, refused: why }))) if why == refused));
        // The reply counts the channels that are known, although a shard has not replied.
        let id = pending.add(at(0), &broadcast, 2, ());
        pending.reply(id, Ok(Reply::Broadcast { channels: 2, refused: None }));
        let given_up = pending.give_up(at(10)).pop();
        let refused = Some(Refusal::Unavailable);
        assert!(matches!(given_up, Some(((), Ok(Reply::Broadcast { channels: 2, refused: why }))) if why == refused));
        let listing = Listing { pattern: Pattern::all(), after: "".into(), limit: 1 };
        let id = pending.add(at(0), &Request::List { listing }, 2, ());
        let list = || Ok(Reply::List { channels: Vec::new(), has_more: false });
        assert!(pending.reply(id, list()).is_none());
        assert!(matches!(pending.reply(id, list()), Some(((), Ok(Reply::List { has_more: false, .. })))));
    }
}
