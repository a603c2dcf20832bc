//! A protocol for tests, which shows the cost of a further protocol: this folder, and a row in a
//! table. The hub's tests use it as well, so that they depend on no real protocol.
//!
//! A client requests `/toy/{channel}` or `/toy/{channel}?poll={number}`, and receives words, one
//! event per line.

use std::io::Write;

use bytes::Bytes;
use sealed_http::Response;
use sealed_http::site::{Field, Query};

use super::call::{Call, RefusedCall};
use super::route::{Incoming, parse_number};
use super::{Answer, Exposure, Protocol};
use crate::config::Api;
use crate::core::message::ChannelName;
use crate::core::position::Spot;
use crate::core::problem::Problem;
use crate::hub::{
    Delivery, Encoder, Encoders, Format, Item, Label, PlacedMessage, PollOutcome, ReplyBody, StartAt, StreamEvent,
    SubscribeRequest,
};

/// The table of protocols that tests pass to the hub.
pub(crate) const TOYS: Encoders = Encoders(&[&Toy]);

pub(super) const ROW: u8 = 0;

/// Its only stream format.
pub(crate) const STREAM: Format = Format::stream(ROW, 0);
pub(crate) const POLL: Format = Format::poll(ROW);

#[derive(Debug)]
struct Toy;

impl Encoder for Toy {
    fn write_message(&self, format: Format, message: &PlacedMessage<'_>, out: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(&message.message.payload);
        let end = if format.is_stream() { "\n" } else { ";" };
        let _ = write!(out, "{}#{} {text}{end}", message.channel, message.spot.next - 1);
    }

    fn write_event(&self, _: Format, label: Option<Label>, event: &StreamEvent<'_>, out: &mut Vec<u8>) {
        if let (Some(Label(label)), false) = (label, matches!(event, StreamEvent::Opening { .. })) {
            let _ = write!(out, "{label}: ");
        }
        let _ = match event {
            StreamEvent::Hello { .. } => writeln!(out, "hello"),
            StreamEvent::Gap { gap, .. } => writeln!(out, "lost {:?} before #{}", gap.missed.0, gap.spot.next),
            StreamEvent::Heartbeat { count, .. } => writeln!(out, "alive {count}"),
            StreamEvent::Closed { channel, .. } => writeln!(out, "{channel} closed"),
            _ => Ok(()),
        };
    }

    fn event_around(&self, _: Format, label: Option<Label>, _: &[Spot], item: &Bytes) -> [Bytes; 3] {
        let before = label.map_or(String::new(), |Label(label)| format!("{label}: "));
        [before.into(), item.clone(), Bytes::from_static(b"\n")]
    }

    fn reply(&self, _: Option<&str>, outcome: &PollOutcome<'_>) -> Option<ReplyBody> {
        let PollOutcome::Items { items, .. } = outcome else { return None };
        let messages =
            items.iter().filter_map(|item| if let Item::Message(bytes) = item { Some(&**bytes) } else { None });
        Some(ReplyBody { kind: 0, bytes: messages.collect::<Vec<_>>().concat().into() })
    }
}

impl Protocol for Toy {
    /// Returns true: no setting refers to this protocol.
    fn is_spoken(&self, _: &[Api]) -> bool {
        true
    }

    fn read(&self, incoming: &Incoming<'_>) -> Option<Result<Call, RefusedCall>> {
        let channel = ChannelName::new(incoming.head.path().strip_prefix("/toy/")?).map_err(|_| Problem::BadChannel);
        let number = Query::new(incoming.head.query()).get("poll").ok().flatten().and_then(|text| parse_number(&text));
        let (format, start) = number.map_or((STREAM, StartAt::Latest), |number| (POLL, StartAt::Number(number)));
        Some(channel.map_err(RefusedCall::from).map(|channel| Call::Subscribe {
            subscription: SubscribeRequest::new(vec![(channel, start)], Delivery::new(format)),
            wait_s: 30,
        }))
    }

    fn stream_head(&self, _: Format, _: &str, _: &[Field]) -> Option<Response> {
        Some(Response::new(200).header("Content-Type", "text/plain"))
    }

    fn answer(&self, _: Format, body: ReplyBody, _: &[Field]) -> Answer {
        Answer::Whole(Response::new(200).header("Content-Type", "text/plain").body(body.bytes))
    }

    fn exposure<'a>(&self, _: &'a Delivery) -> Exposure<'a> {
        Exposure::default()
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::sync::Arc;

    use sealed::ConnectionId;
    use sealed_http::RequestHead;
    use sealed_http::codec::Limits;

    use super::*;
    use crate::config::Config;
    use crate::core::message::Draft;
    use crate::core::position::Epoch;
    use crate::core::time::UnixMillis;
    use crate::engine::{ChannelEvent, Window};
    use crate::hub::{Hub, PollReply, Sink};
    use crate::protocols::call::Door;
    use crate::protocols::route::read_by;

    const NOW: UnixMillis = UnixMillis::from_millis(0);

    /// The output that a client receives.
    #[derive(Default)]
    struct Received(String);

    impl Received {
        fn take(&mut self) -> String {
            std::mem::take(&mut self.0)
        }
    }

    impl Sink for Received {
        fn open(&mut self, _: ConnectionId, format: Format, _: &str) {
            let head = Toy.stream_head(format, "", &[]).expect("a head");
            self.0.push_str(if head.status() == 200 { "opened\n" } else { "refused\n" });
        }

        fn stream(&mut self, _: ConnectionId, chunks: &[Bytes]) -> bool {
            self.0.extend(chunks.iter().map(|chunk| String::from_utf8_lossy(chunk)));
            true
        }

        fn queued(&self, _: ConnectionId) -> usize {
            0
        }

        fn refuse(&mut self, _: ConnectionId, Label(label): Label, problem: Problem) {
            let _ = writeln!(self.0, "{label}: {}", problem.code());
        }

        fn end(&mut self, _: ConnectionId) {
            self.0.push_str("ended\n");
        }

        fn answer(&mut self, _: ConnectionId, _: Format, reply: PollReply) {
            let PollReply::Encoded(body) = reply else { panic!("no reply: {reply:?}") };
            self.0.push_str(&String::from_utf8_lossy(&body.bytes));
        }
    }

    fn request(target: &str) -> SubscribeRequest {
        let text = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let head = RequestHead::parse(text.as_bytes(), &Limits::default()).expect("a head");
        let incoming = Incoming { door: Door::Front, head: &head, body: &[], config: &Config::default() };
        match read_by(&[&Toy], &incoming) {
            Ok(Call::Subscribe { subscription, .. }) => subscription,
            other => panic!("no subscription: {other:?}"),
        }
    }

    #[test]
    fn a_further_protocol_needs_a_folder_and_a_row_only() {
        let (mut hub, mut received) = (Hub::for_tests(TOYS), Received::default());
        let channel = ChannelName::new("news").expect("a name");
        let message = |text: &'static str| {
            let payload = Bytes::from_static(text.as_bytes());
            Arc::new(Draft { payload, ..Draft::default() }.taken_at(NOW))
        };
        hub.subscribe(ConnectionId::default(), request("/toy/news"), NOW, &mut received).expect("room");
        let entries = vec![message("a"), message("b")];
        hub.event(
            &channel,
            ChannelEvent::Opened(Window { epoch: Epoch(1), kept_from: 0, first: 0, entries }),
            NOW,
            &mut received,
        );
        assert_eq!(received.take(), "opened\nhello\n");
        hub.subscribe(ConnectionId::default(), request("/toy/news?poll=0"), NOW, &mut received).expect("room");
        assert_eq!(received.take(), "news#0 a;news#1 b;");
        let poll = hub.subscribe(ConnectionId::default(), request("/toy/news?poll=2"), NOW, &mut received);
        assert_eq!((received.take(), poll.is_ok()), (String::new(), true));
        let entries = vec![message("c")];
        let appended =
            ChannelEvent::Appended { first: 2, entries, announcements: Vec::new(), kept_from: 0, window_from: 0 };
        hub.event(&channel, appended, NOW, &mut received);
        hub.flush(NOW, &mut received);
        assert_eq!(received.take(), "news#2 c;news#2 c\n");
        hub.event(&channel, ChannelEvent::Closed, NOW, &mut received);
        assert_eq!(received.take(), "news closed\nended\n");
    }
}
