//! The events of icomet's API, each with a number.

use sealed::fault;

use crate::core::json;
use crate::core::message::{ChannelName, Message};
use crate::core::problem::Problem;

/// Returns the number in icomet's API: a signed 32-bit number from 1 on, which wraps from the
/// maximum to the minimum.
pub(crate) fn seq_of(number: u64) -> i32 {
    (number as u32).wrapping_add(1).cast_signed()
}

/// Returns the number of the message that a client with `seq` wants next, in a channel whose next
/// message is `next`. Returns `None` if the client needs the current number of the channel instead:
/// `seq` is 0, or a number that the channel has not issued.
pub(crate) fn number_of(seq: i32, next: u64) -> Option<u64> {
    let back = seq_of(next).wrapping_sub(seq);
    if seq == 0 { None } else { next.checked_sub(u64::try_from(back).ok()?) }
}

/// A type of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Data,
    Broadcast,
    NextSeq,
    Noop,
    Close,
    TokenError,
    TooMany,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Broadcast => "broadcast",
            Self::NextSeq => "next_seq",
            Self::Noop => "noop",
            Self::Close => "close",
            Self::TokenError => "401",
            Self::TooMany => "429",
        }
    }
}

/// Returns an event, as JSON.
pub(crate) fn event(kind: Kind, channel: &ChannelName, seq: i32, content: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 64);
    write_event(kind, channel, seq, content, &mut out);
    out
}

/// Returns the event that refuses a subscription, if there is one for the problem.
pub(crate) fn refusal(problem: Problem, channel: &ChannelName) -> Option<Vec<u8>> {
    let (kind, content) = match problem {
        Problem::ChannelLimit => (Kind::TooMany, "Too many channels"),
        Problem::SubscriberLimit | Problem::ChannelFull => (Kind::TooMany, "Too many subscribers"),
        // After a 429, its clients retry after some seconds; after an HTTP error, only when their
        // timeout is over.
        Problem::TooManyRequests(_) if !fault!("icomet-limit-in-other-words") => (Kind::TooMany, "Too many requests"),
        Problem::ShuttingDown => (Kind::TooMany, "Server is going down"),
        Problem::WrongToken => (Kind::TokenError, "Token error"),
        _ => return None,
    };
    Some(event(kind, channel, 0, content))
}

/// Writes the event of message `number`.
pub(crate) fn write_message(channel: &ChannelName, number: u64, message: &Message, out: &mut Vec<u8>) {
    let kind = if message.is_broadcast() { Kind::Broadcast } else { Kind::Data };
    write_event(kind, channel, seq_of(number), &String::from_utf8_lossy(&message.payload), out);
}

fn write_event(kind: Kind, channel: &ChannelName, seq: i32, content: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":""#);
    out.extend_from_slice(kind.name().as_bytes());
    out.extend_from_slice(br#"","cname":"#);
    json::write_string(channel.as_str(), out);
    out.extend_from_slice(br#","seq":"#);
    json::write(&seq, out);
    out.extend_from_slice(br#","content":"#);
    json::write_string(content, out);
    out.push(b'}');
}

/// Returns the reply to a poll: an event and a line break, in a call if there is a callback.
pub(crate) fn reply(callback: Option<&str>, event: &[u8]) -> Vec<u8> {
    match callback {
        Some(callback) if fault!("icomet-call-unended") => [callback.as_bytes(), b"(", event, b")\n"].concat(),
        Some(callback) => [callback.as_bytes(), b"(", event, b");\n"].concat(),
        None => [event, b"\n"].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_start_at_one_and_wrap() {
        let wrap = u64::from(i32::MAX.cast_unsigned());
        assert_eq!((seq_of(0), seq_of(1), seq_of(wrap - 1), seq_of(wrap)), (1, 2, i32::MAX, i32::MIN));
        for next in [0, 1, 5, wrap - 2, wrap, wrap + 1, wrap * 2 + 1, wrap * 2 + 9] {
            for back in 0..next.min(4) {
                let seq = seq_of(next - back);
                let found = if seq == 0 { None } else { Some(next - back) };
                assert_eq!(number_of(seq, next), found, "{next} {back}");
            }
            assert_eq!(number_of(0, next), None);
            assert_eq!(number_of(seq_of(next + 1), next), None, "ahead");
        }
        assert_eq!(number_of(-5, 3), None, "nothing was ever so far behind");
    }

    #[test]
    fn events_are_escaped() {
        let channel = ChannelName::new("a\"</script>").expect("a name");
        let event = String::from_utf8(event(Kind::Data, &channel, 5, "</script>\u{2028}")).expect("UTF-8");
        assert_eq!(
            event,
            "{\"type\":\"data\",\"cname\":\"a\\\"<\\/script>\",\"seq\":5,\"content\":\"<\\/script>\\u2028\"}"
        );
    }
}
