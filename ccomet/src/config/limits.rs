//! The sections of numbers: `[limits]`, `[history]`, `[times]` and `[icomet]`.

use serde::{Deserialize, Serialize};

use super::table::settings;

settings! {
    /// Limits on counts and bytes. A limit of the whole server is divided evenly among its loops.
    #[derive(Copy)]
    pub struct Limits in [limits] {
        /// Connections to the server. At the limit, new connections wait in the kernel's backlog.
        connections_max: usize = 1_000_000, [1..], applied_by = restart;
        /// Connections to the front from one address (for IPv6, from one /64), on each loop. A
        /// connection beyond the limit is answered 429 and closed; from twice the limit on, it is
        /// closed without an answer. Loopback and trusted proxies are not limited: each request,
        /// poll, stream and WebSocket that a proxy forwards counts as a connection of the address
        /// that the proxy names, for as long as it lasts.
        connections_per_address_max: u32 = 2_000, [1..], answers = "too_many_requests";
        /// Subscriptions that clients of one address (for IPv6, of one /64) have added to
        /// WebSockets, on each loop, in addition to the channels of the WebSockets' URLs. Loopback
        /// is not limited.
        subscriptions_per_address_max: u32 = 2_000, [1..], answers = "too_many_requests";
        // Counts per minute are kept in microseconds.
        /// Subscribes from one address per minute, on each loop, all at once or spread out. Each
        /// poll is a subscribe. Loopback is not limited.
        subscribes_per_address_minute: u32 = 12_000, [1..=60_000_000], answers = "too_many_requests";
        /// Publishes from one address per minute, on each loop. Loopback is not limited.
        publishes_per_address_minute: u32 = 6_000, [1..=60_000_000], answers = "too_many_requests";
        /// Bytes of request bodies in transit to the front, by the lengths that their heads name. A
        /// request beyond the limit is refused before its body is read. Messages in transit on
        /// WebSockets count, too. Bodies and messages of up to 16 KiB, and those from loopback, are
        /// not counted.
        body_bytes_max: usize = 64 MiB, [1 B..], answers = "body_limit";
        /// Bytes of request bodies of more than 16 KiB in transit to the front from one address, on
        /// each loop. Loopback is not limited. A single body may exceed the limit.
        body_bytes_per_address_max: usize = 4 MiB, [1 B..], answers = "too_many_requests";
        /// Addresses whose usage is recorded. The limits by address do not apply to further
        /// addresses.
        addresses_max: usize = 100_000, [1..];
        /// Channels of the server. A sixteenth of them is reserved for the admin listener and
        /// loopback. With a store on disk, only the channels in memory count, and the store may
        /// have any number of others: a channel that is not used for `times.channel_linger_s`, or
        /// the longest unused one at this limit, is unloaded, and loaded again when it is used.
        channels_max: usize = 100_000, [1..], answers = "channel_limit";
        /// Channels on each loop that one message from the front to a pattern may reach. A message
        /// for more of them reaches none. It counts as a publish in each channel.
        channels_per_broadcast_max: usize = 10_000, [1..], answers = "broadcast_too_wide";
        /// Messages to patterns that are in transit to their channels at a time, on each loop.
        broadcasts_under_way_max: usize = 100, [1..=10_000], answers = "broadcast_limit";
        /// Existing channels that clients of one address of the front (for IPv6, of one /64)
        /// created, and those created with tokens of one subject. Loopback's address is not
        /// limited. A channel no longer counts when it passes to the back end
        /// (`history.total_bytes_max`), or when a store on disk unloads it (`channels_max`).
        channels_per_client_max: usize = 5_000, [1..], answers = "client_limit";
        /// Followed patterns to which one client, an address or a subject, subscribed first.
        patterns_per_client_max: usize = 20, [1..=10_000], answers = "client_limit";
        /// Patterns that are followed at a time: those with readers, and those whose last reader
        /// left a short time ago. Each published message is matched against all of them.
        patterns_max: usize = 100, [1..=10_000], answers = "pattern_limit";
        /// Subscribers of the server.
        subscribers_max: usize = 1_000_000, [1..], answers = "subscriber_limit";
        /// Members of one channel that the server records. It ignores further ones, and marks the
        /// list of members as incomplete.
        members_per_channel_max: usize = 1_000, [1..=1_000_000];
        /// Subscribers of one channel on one loop.
        subscribers_per_channel_max: usize = 1_000_000, [1..], answers = "subscriber_limit";
        /// Channels of one subscription.
        channels_per_subscription_max: usize = 32, [1..=255], answers = "too_many_channels";
        /// Subscriptions that a client may add to one WebSocket. Only one subscription on a
        /// WebSocket may have a channel for which a rule has `subscribers_max`.
        subscriptions_per_connection_max: usize = 100, [1..=10_000], answers = "too_many_subscriptions";
        /// Bytes of one message.
        message_bytes_max: usize = 64 KiB, [1 B..=8 MiB], answers = "message_too_large";
        /// Messages that one request publishes, counted in each of their channels.
        publications_per_request_max: usize = 100, [1..=10_000], answers = "too_many_messages";
        /// Messages or channels that one reply lists.
        page_items_max: usize = 1_000, [1..=100_000];
        /// Bytes of a request that publishes several messages.
        request_bytes_max: usize = 1 MiB, [1 B..=64 MiB], answers = "message_too_large";
        /// Bytes of a request's head.
        head_bytes_max: usize = 16 KiB, [1 KiB..=1 MiB], answers = "head_too_large";
        /// Bytes that the server sends one subscriber at a time; a single message may exceed it.
        batch_bytes_max: usize = 64 KiB, [1 B..=1 MiB];
        /// Bytes of encoded messages, kept for a second at most for subscribers that read them in
        /// the same form. A single message may exceed the share of a loop.
        encoded_bytes_max: usize = 16 MiB, [1 B..];
        /// Deliveries in transit from one loop to another. Later ones wait in the channels'
        /// history.
        deliveries_under_way_max: usize = 1_024, [1..=1_048_576];
    }
}

settings! {
    /// The past messages that channels keep.
    #[derive(Copy)]
    pub struct History in [history] {
        /// Messages that one channel keeps.
        messages_max: usize = 500, [1..=1_048_576];
        /// Bytes that one channel keeps. A message that other channels keep as well counts in full
        /// here.
        bytes_max: usize = 1 MiB, [1 B..];
        /// Time for which a message is kept.
        age_max_s: u64 = 86_400 s, [1 s..];
        /// Bytes that all channels of the process keep in memory together; each loop has an equal
        /// share for its own channels. Beyond it, the client whose channels keep most loses its
        /// oldest messages. With a store on disk or in Redis, these messages leave the memory only,
        /// and are read from the store. *Limits* in OPERATING.md says what counts, and whose
        /// channels come last.
        total_bytes_max: usize = 256 MiB, [1 B..];
        /// Idempotency keys of all channels together; each loop has an equal share for its own
        /// channels. Beyond it, the oldest keys are dropped, those of the publisher with most keys
        /// first. A retry is recognised as long as its key is known. The number of keys in a Redis
        /// is not limited.
        keys_max: usize = 65_536, [1..];
        /// Time for which an idempotency key is known, if it is not dropped before (`keys_max`).
        keys_age_max_s: u64 = 300 s, [1..=86_400 s];
    }
}

settings! {
    /// Durations, in seconds.
    #[derive(Copy)]
    pub struct Times in [times] {
        /// Interval of the heartbeats of a stream on which nothing else is sent. A reload does not
        /// lengthen it: clients of open streams rely on the interval that the server has announced.
        heartbeat_s: u64 = 15 s, [1..=86_400 s], applied_by = reload_if_lower;
        /// Wait of a long poll that does not name a wait; at most `poll_wait_max_s`.
        poll_wait_s: u64 = 30 s, [0..];
        /// Longest wait of a long poll. A poll that names a longer one waits for this time.
        poll_wait_max_s: u64 = 60 s, [1..=86_400 s];
        /// Wait of a classic poll. The default is longer than its clients' own limits, and shorter
        /// than those of most proxies.
        classic_poll_s: u64 = 55 s, [1..=86_400 s];
        /// Time for the head of a request to arrive, and longest pause in its body. On average, a
        /// body has to arrive at 1,000 bytes per second or more.
        request_s: u64 = 20 s, [1..=86_400 s], answers = "request_timeout";
        /// Time for a message on a WebSocket to arrive completely, from its first byte.
        message_s: u64 = 20 s, [1..=86_400 s];
        /// Time that a kept-alive connection may be idle between two requests.
        keep_alive_s: u64 = 75 s, [1..=86_400 s];
        /// Time for a peer to acknowledge what the server sent, before it counts as dead.
        silence_max_s: u64 = 60 s, [1..=86_400 s], applied_by = restart;
        /// Time for a member of a channel to return after the member's last connection ends. After
        /// it, the `leave` of the member is published.
        presence_grace_s: u64 = 5 s, [1..=86_400 s];
        /// Time for the loop of a channel to reply to a request. A request without a reply is
        /// refused, and its message may or may not be published: a publisher that sent an
        /// idempotency key can publish the message again.
        reply_s: u64 = 10 s, [1..=3_600 s], answers = "unavailable";
        /// Time for which a loop continues to follow a channel after its last reader on this loop
        /// has left, and for which a channel that nobody uses stays in memory if it is in a store
        /// on disk.
        channel_linger_s: u64 = 60 s, [1..=86_400 s];
        /// Time for which a channel without history, readers and members keeps its message
        /// numbering after its last use.
        channel_idle_s: u64 = 3_600 s, [1 s..];
        /// Longest time of a shutdown. Within it, the server closes its streams one after the
        /// other.
        drain_s: u64 = 10 s, [1..=86_400 s], applied_by = restart;
    }
}

settings! {
    /// The behaviour of the API of icomet.
    #[derive(Copy)]
    pub struct Icomet in [icomet] {
        /// Whether a subscription needs the token that `/sign` has issued for its channel (`token`)
        /// or not (`none`).
        auth: IcometAuth = "none" => IcometAuth::None;
        /// Silence after which the server sends a client a `noop`. A reload does not lengthen it.
        polling_timeout_s: u64 = 60 s, [1..=86_400 s], applied_by = reload_if_lower;
        /// Time for which a channel without subscribers counts as in use.
        channel_timeout_s: u64 = 60 s, [1..=86_400 s];
    }
}

/// The subscriptions that icomet's API accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IcometAuth {
    /// All subscriptions.
    None,
    /// Subscriptions with the token of the channel.
    Token,
}
