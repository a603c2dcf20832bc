//! Readers that are slow: their connections accept no more output for now, and messages wait.

use sealed::ConnectionId;

use super::Hub;
use super::subscriber::{Flags, Subscriber};
use crate::core::message::ChannelName;

impl Hub {
    /// Returns the number of slow readers, and at most `limit` of them, those farthest behind: the
    /// connection, a channel in which the reader is behind, and the number of messages that it has
    /// not been sent yet. Visits all subscribers of the loop.
    pub(crate) fn slow_readers(&self, limit: usize) -> (usize, Vec<(ConnectionId, ChannelName, u64)>) {
        let blocked = self.subscribers.iter().filter(|(_, subscriber)| subscriber.is(Flags::BLOCKED));
        let mut found: Vec<_> = blocked.filter_map(|(_, subscriber)| self.lag(subscriber)).collect();
        found.sort_by_key(|(_, _, behind)| std::cmp::Reverse(*behind));
        let count = found.len();
        found.truncate(limit);
        let name = |channel: u32| self.channels[channel as usize].name.clone();
        (count, found.into_iter().map(|(peer, channel, behind)| (peer, name(channel), behind)).collect())
    }

    /// Returns how far a subscriber is behind, and a channel in which it is; `None` if it is not.
    fn lag(&self, subscriber: &Subscriber) -> Option<(ConnectionId, u32, u64)> {
        let only = subscriber.only_channel().map(|channel| (channel, subscriber.cursor));
        let several = subscriber.cursors().iter().map(|cursor| (cursor.channel, cursor.next));
        let (mut farthest, mut behind) = (None, 0);
        for (channel, next) in only.into_iter().chain(several) {
            let Some(held) = self.channels.get(channel as usize) else { continue };
            let lag = held.log.next().saturating_sub(next);
            if lag > 0 && farthest.is_none_or(|(_, farthest)| lag > farthest) {
                farthest = Some((channel, lag));
            }
            behind += lag;
        }
        farthest.map(|(channel, _)| (subscriber.peer, channel, behind))
    }
}
