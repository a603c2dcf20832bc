//! Messages that have their publisher, number and time in their text.

use memchr::memmem::Finder;

/// Finds the messages of a run in what a server sends, in whatever form it wraps them: JSON, events
/// or plain text.
#[derive(Debug)]
pub(super) struct Markers {
    start: Vec<u8>,
    finder: Finder<'static>,
}

/// A message that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marked {
    pub(super) publisher: usize,
    pub(super) number: u32,
    /// When the message was due, in microseconds since the start of the run.
    pub(super) due_us: u64,
}

impl Markers {
    pub(super) fn new(run: u32) -> Self {
        let start = format!("ccb.{run:08x}.").into_bytes();
        Self { finder: Finder::new(&start).into_owned(), start }
    }

    /// Makes a message of this many bytes, or longer if the marker is.
    pub(super) fn message(&self, marked: Marked, size: usize) -> String {
        let Marked { publisher, number, due_us } = marked;
        let start = String::from_utf8_lossy(&self.start);
        let mut text = format!("{start}{publisher}.{number}.{due_us}.");
        let padding = size.saturating_sub(text.len());
        text.extend(std::iter::repeat_n('x', padding));
        text
    }

    /// Passes each message in `bytes` to `found`.
    pub(super) fn find(&self, bytes: &[u8], mut found: impl FnMut(Marked)) {
        let mut rest = bytes;
        while let Some(at) = self.finder.find(rest) {
            rest = &rest[at + self.start.len()..];
            if let Some(marked) = parse(rest) {
                found(marked);
            }
        }
    }
}

fn parse(text: &[u8]) -> Option<Marked> {
    let mut numbers = text.splitn(4, |byte| *byte == b'.').map(|part| std::str::from_utf8(part).ok());
    let mut next = || numbers.next().flatten()?.parse::<u64>().ok();
    let (publisher, number, due_us) = (next()?, next()?, next()?);
    Some(Marked { publisher: usize::try_from(publisher).ok()?, number: u32::try_from(number).ok()?, due_us })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_in_any_wrapping() {
        let markers = Markers::new(7);
        let one = Marked { publisher: 3, number: 0, due_us: 12 };
        let other = Marked { publisher: 4, number: 70_000, due_us: 5_000_000 };
        let text = format!(
            r#"{{"items":[{{"data":"{}"}},{{"data":"{}"}}]}} ccb.00000007.1 {}"#,
            markers.message(one, 100),
            markers.message(other, 1),
            Markers::new(8).message(one, 50),
        );
        let mut found = Vec::new();
        markers.find(text.as_bytes(), |marked| found.push(marked));
        assert_eq!(found, [one, other]);
        assert_eq!(markers.message(one, 100).len(), 100);
    }
}
