//! The use of an embedded server from inside, by the program that contains it.
//!
//! [`Server::handle`](crate::Server::handle) returns a [`Handle`], which any thread and any task
//! can use concurrently. A handle has the permissions of a client of the admin listener: neither
//! tokens, nor rules about publishers, nor limits by address apply to it. The limits on sizes and
//! counts apply.

mod error;
mod events;
mod loop_thread;
mod message;
mod pending;
mod reload;
mod request;
mod subscription;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sealed::{Mailbox, PostError, Stopper};

pub use error::HandleError;
pub use events::Events;
pub(crate) use loop_thread::LoopThread;
pub use message::{ChannelInfo, ChannelList, HistoryPage, Message, Position, Received};
pub use pending::Pending;
pub(crate) use reload::{NewSettings, ReloadAsker, ReloadMail, ReloadOutcome};
pub(crate) use request::{HandleAsker, HandleRequest, LoopMessage};
pub(crate) use subscription::Reader;
pub use subscription::{Event, Start, Subscription};

use crate::core::message::ChannelName;
use crate::core::pattern::Pattern;
use crate::engine::{Edge, Listed, Listing, Range, Reply, Request};
use crate::hub;
use crate::in_force::SharedInForce;
use crate::protocols::native::publication::read_target;
use events::Queue;
use request::UntimedRequest;
use subscription::Target;

/// The last number given to a subscription, over all handles: loops identify their subscriptions by
/// these numbers.
static LAST_ID: AtomicU64 = AtomicU64::new(0);

/// Access to a server from inside its process. Clones refer to the same server.
///
/// No call blocks. Calls with a result return a [`Pending`] answer, for which the caller can block
/// or `.await`. An error that the handle detects itself, such as [`HandleError::BadChannel`], is
/// there at once. Calls of one thread about one
/// channel are executed in their order. Calls before the server [runs](crate::Server::run) are
/// executed when it does.
///
/// Any answer can be [`HandleError::Busy`], [`HandleError::Unavailable`] or
/// [`HandleError::Stopped`]. The documentation of each call names the other errors.
///
/// ```
/// use ccomet::handle::{Event, Message, Start};
/// use ccomet::{Config, Server};
///
/// let mut config = Config::default();
/// config.front.listen = "127.0.0.1:0".parse()?;
/// config.admin.listen = "127.0.0.1:0".parse()?;
/// let server = Server::bind(config)?;
/// let handle = server.handle();
/// let running = std::thread::spawn(move || server.run());
///
/// let mut news = handle.events(["news"], &Start::Latest, 64)?;
/// assert!(matches!(news.recv(), Some(Event::Started { .. })));
/// handle.publish("news", Message::new("hello").event("greeting")).wait()?;
/// let Some(Event::Message(message)) = news.recv() else { panic!("no message") };
/// assert_eq!(message.data, "hello");
///
/// handle.stop();
/// running.join().expect("no panic")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    mailboxes: Vec<Mailbox<LoopMessage>>,
    stopper: Stopper,
    in_force: Arc<SharedInForce>,
}

impl Handle {
    pub(crate) fn new(mailboxes: Vec<Mailbox<LoopMessage>>, stopper: Stopper, in_force: Arc<SharedInForce>) -> Self {
        Self { shared: Arc::new(Shared { mailboxes, stopper, in_force }) }
    }

    /// Publishes a message in a channel; for patterns, there is [`broadcast`](Self::broadcast). The
    /// answer is the position just after the message, at which a reader of this one channel can
    /// resume.
    ///
    /// The data may be as long as `limits.message_bytes_max` and the rule for the channel allow, in
    /// bytes. Hooks are not asked.
    ///
    /// The answer can be [`HandleError::BadChannel`], [`HandleError::IsPattern`],
    /// [`HandleError::BadOption`], [`HandleError::TooLarge`], or [`HandleError::Refused`], at a
    /// limit on channels or if the key was used for another message.
    pub fn publish(&self, channel: &str, message: impl Into<Message>) -> Pending<Position> {
        let message = message.into();
        let checked = channel_named(channel).and_then(|channel| {
            let rules = self.shared.in_force.get().rules;
            let bytes_max = rules.bounds(rules.find(&channel)).message_bytes_max;
            if message.len() > bytes_max {
                return Err(HandleError::TooLarge { bytes_max });
            }
            Ok((message.into_draft()?, channel))
        });
        let (draft, channel) = match checked {
            Ok(checked) => checked,
            Err(error) => return Pending::ready(Err(error)),
        };
        self.ask(self.loop_of(&channel), UntimedRequest::Publish { channel, draft }, |reply| match reply {
            Reply::Published(spots) => Some(Ok(Position::new([spots.first]))),
            _ => None,
        })
    }

    /// Publishes a message in every existing channel of a pattern. The answer is the number of
    /// channels.
    ///
    /// The answer can be [`HandleError::BadOption`], [`HandleError::TooLarge`] or
    /// [`HandleError::Refused`]. After `Refused` and [`HandleError::Unavailable`], the message may
    /// be in any number of channels.
    pub fn broadcast(&self, pattern: &Pattern, message: impl Into<Message>) -> Pending<u64> {
        let message = message.into();
        let bytes_max = self.shared.in_force.get().config.limits.message_bytes_max;
        if message.len() > bytes_max {
            return Pending::ready(Err(HandleError::TooLarge { bytes_max }));
        }
        let draft = match message.into_draft() {
            Ok(draft) => draft,
            Err(error) => return Pending::ready(Err(error)),
        };
        self.ask(0, UntimedRequest::Broadcast { pattern: pattern.clone(), draft }, |reply| match reply {
            Reply::Broadcast { refused: Some(why), .. } => Some(Err(why.into())),
            Reply::Broadcast { channels, refused: None } => Some(Ok(channels)),
            _ => None,
        })
    }

    /// Returns a page of the list of channels: those that match a pattern, with names after
    /// `after`, at most `limit` of them. `limit` is raised to 1, and reduced to
    /// `limits.page_items_max`.
    pub fn list(&self, pattern: &Pattern, after: Option<&str>, limit: usize) -> Pending<ChannelList> {
        let (pattern, after) = (pattern.clone(), after.unwrap_or_default().into());
        let listing = Listing { pattern, after, limit: self.page_limit(limit) };
        self.ask(0, UntimedRequest::Other(Request::List { listing }), |reply| match reply {
            Reply::List { channels, has_more } => {
                let channels = channels.into_iter().map(ChannelInfo::from).collect();
                Some(Ok(ChannelList { channels, has_more }))
            }
            _ => None,
        })
    }

    /// Returns the state of a channel; `None` if there is no such channel. The answer can be
    /// [`HandleError::BadChannel`] or [`HandleError::IsPattern`].
    pub fn info(&self, channel: &str) -> Pending<Option<ChannelInfo>> {
        self.ask_of(
            channel,
            |channel| Request::Inspect { channel },
            |channel, reply| match reply {
                Reply::Info(info) => Some(info.map(|info| Listed { channel, info }.into())),
                _ => None,
            },
        )
    }

    /// Returns a page of a channel's history, the oldest message first; `None` if there is no such
    /// channel. [`Start::Oldest`] reads from the beginning, and [`Start::After`] goes on from a
    /// position. With [`Start::Latest`] the page is empty, and its position is the end of the
    /// channel. The page has at most `limit` messages; `limit` is raised to 1, and reduced to
    /// `limits.page_items_max`. The page ends at `limits.batch_bytes_max`, but contains at least
    /// one message.
    ///
    /// The answer can be [`HandleError::BadChannel`], [`HandleError::IsPattern`] or
    /// [`HandleError::BadPosition`].
    pub fn history(&self, channel: &str, start: &Start, limit: usize) -> Pending<Option<HistoryPage>> {
        let edge = match start {
            Start::Latest => Edge::End,
            Start::Oldest => Edge::Begin,
            Start::After(position) => match position.spots() {
                [spot] => Edge::At(*spot),
                _ => return Pending::ready(Err(HandleError::BadPosition)),
            },
        };
        let (limit, bytes_max) = (self.page_limit(limit), self.shared.in_force.get().config.limits.batch_bytes_max);
        let range = Range { edge, is_backward: false, limit, bytes_max };
        self.ask_of(
            channel,
            |channel| Request::Read { channel, range },
            |channel, reply| match reply {
                Reply::Page(page) => Some(page.map(|page| HistoryPage::new(&channel, &page))),
                _ => None,
            },
        )
    }

    /// Closes a channel: its readers are notified and end, its history is dropped, and its numbers
    /// start anew. The answer is whether the channel existed, or [`HandleError::BadChannel`] or
    /// [`HandleError::IsPattern`].
    pub fn close(&self, channel: &str) -> Pending<bool> {
        self.ask_of(
            channel,
            |channel| Request::Delete { channel },
            |_, reply| match reply {
                Reply::Ended(next) => Some(next.is_some()),
                _ => None,
            },
        )
    }

    /// Drops the history of a channel; its readers and its numbers continue. The answer is whether
    /// the channel existed, or [`HandleError::BadChannel`] or [`HandleError::IsPattern`].
    pub fn clear(&self, channel: &str) -> Pending<bool> {
        self.ask_of(
            channel,
            |channel| Request::Clear { channel },
            |_, reply| match reply {
                Reply::Ended(next) => Some(next.is_some()),
                _ => None,
            },
        )
    }

    /// Subscribes a closure to channels, or to patterns of channels, until the returned value is
    /// dropped.
    ///
    /// The closure runs on the thread of an event loop, for one event after the other. It must not
    /// block, since all clients of that loop would wait, and a panic in it ends the server. It may
    /// publish, as long as it does not [wait](Pending::wait) for the answer. For longer work, use
    /// [`events`](Self::events).
    ///
    /// There may be at most `limits.channels_per_subscription_max` channels, each named once, in
    /// any order. The limits on subscribers apply as for clients: beyond them, the subscription
    /// ends with [`Event::Refused`].
    ///
    /// # Errors
    /// If a name is not that of a channel or a pattern, if there are too many, or none, or one
    /// twice, if the position does not belong to them, or if the server has stopped or is
    /// overloaded.
    pub fn subscribe<N: AsRef<str>>(
        &self,
        channels: impl IntoIterator<Item = N>,
        start: &Start,
        f: impl FnMut(Event) + Send + 'static,
    ) -> Result<Subscription, HandleError> {
        self.read(channels, start, Target::Closure(Box::new(f)))
    }

    /// Subscribes to channels like [`subscribe`](Self::subscribe), for a thread or a task that
    /// takes the events at its own pace: at most `capacity` of them are queued; 0 counts as 1.
    /// [`Events`] describes the treatment of a slow reader.
    ///
    /// # Errors
    /// As for [`subscribe`](Self::subscribe).
    pub fn events<N: AsRef<str>>(
        &self,
        channels: impl IntoIterator<Item = N>,
        start: &Start,
        capacity: usize,
    ) -> Result<Events, HandleError> {
        let queue = Arc::new(Queue::new(capacity));
        let subscription = self.read(channels, start, Target::Queue(queue.clone()))?;
        Ok(Events::new(queue, subscription))
    }

    /// Stops the server: it drains within `times.drain_s` seconds, and [`run`](crate::Server::run)
    /// returns. A second call makes that time expire at once. This call does not block.
    pub fn stop(&self) {
        self.shared.stopper.stop();
    }

    fn read<N: AsRef<str>>(
        &self,
        names: impl IntoIterator<Item = N>,
        start: &Start,
        target: Target,
    ) -> Result<Subscription, HandleError> {
        let channels = self.channels(names)?;
        let starts = start.in_each(channels.len())?;
        let first = channels.first().ok_or(HandleError::BadChannelCount)?;
        let mailbox = &self.shared.mailboxes[self.loop_of(first)];
        let id = LAST_ID.fetch_add(1, Ordering::Relaxed);
        let channels: Vec<(ChannelName, hub::StartAt)> = channels.into_iter().zip(starts).collect();
        let (reader, subscription) = Reader::new(id, mailbox.clone(), channels, target);
        match mailbox.post(HandleRequest::Subscribe(reader).into()) {
            Ok(()) => Ok(subscription),
            Err(error) => {
                subscription.detach();
                Err(if matches!(error, PostError::Full(_)) { HandleError::Busy } else { HandleError::Stopped })
            }
        }
    }

    /// Returns the channels of a subscription, sorted, so that a position does not depend on the
    /// order in which they are named.
    fn channels<N: AsRef<str>>(&self, names: impl IntoIterator<Item = N>) -> Result<Vec<ChannelName>, HandleError> {
        let count_max = self.shared.in_force.get().config.limits.channels_per_subscription_max;
        let mut channels = Vec::new();
        for name in names {
            if channels.len() == count_max {
                return Err(HandleError::BadChannelCount);
            }
            channels.push(read_target(name.as_ref()).map_err(|_| HandleError::BadChannel)?);
        }
        channels.sort();
        let is_one_named_twice = channels.windows(2).any(|pair| pair[0] == pair[1]);
        if is_one_named_twice { Err(HandleError::BadChannelCount) } else { Ok(channels) }
    }

    /// Sends a request to the shard of a channel.
    fn ask_of<T: Send + 'static>(
        &self,
        channel: &str,
        request: impl FnOnce(ChannelName) -> Request,
        convert: impl FnOnce(ChannelName, Reply) -> Option<T> + Send + 'static,
    ) -> Pending<T> {
        match channel_named(channel) {
            Ok(channel) => {
                let action = UntimedRequest::Other(request(channel.clone()));
                self.ask(self.loop_of(&channel), action, move |reply| convert(channel, reply).map(Ok))
            }
            Err(error) => Pending::ready(Err(error)),
        }
    }

    fn ask<T: Send + 'static>(
        &self,
        index: usize,
        action: UntimedRequest,
        convert: impl FnOnce(Reply) -> Option<Result<T, HandleError>> + Send + 'static,
    ) -> Pending<T> {
        let (asker, pending) = HandleAsker::new(convert);
        // If the loop has gone, the dropped asker reports it.
        if let Err(PostError::Full(LoopMessage::Handle(request))) =
            self.shared.mailboxes[index].post(HandleRequest::Ask { action, asker }.into())
            && let HandleRequest::Ask { asker, .. } = *request
        {
            asker.answer(Err(HandleError::Busy));
        }
        pending
    }

    /// Returns the loop that has a channel, so that requests about the channel need no forwarding.
    fn loop_of(&self, channel: &ChannelName) -> usize {
        channel.shard(self.shared.mailboxes.len())
    }

    fn page_limit(&self, limit: usize) -> usize {
        limit.clamp(1, self.shared.in_force.get().config.limits.page_items_max)
    }
}

/// Parses the name of a single channel.
fn channel_named(text: &str) -> Result<ChannelName, HandleError> {
    let is_pattern = || text.contains('*') && Pattern::new(text).is_ok();
    ChannelName::new(text).map_err(|_| if is_pattern() { HandleError::IsPattern } else { HandleError::BadChannel })
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}
