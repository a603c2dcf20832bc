//! Conditional requests and ranges: what a request wants of a file (RFC 9110, 13 and 14).

use std::time::SystemTime;

use crate::codec::head::RequestHead;

/// The conditions of a request, and the range that it wants. It owns its fields, so that it can be
/// judged on another thread, where the file is opened.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
    if_unmodified_since: Option<SystemTime>,
    if_modified_since: Option<SystemTime>,
    /// The tag that the file must have for the range to apply; empty if it is no strong tag.
    if_range: Option<String>,
    range: Option<Range>,
}

/// What a request wants of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Whole,
    #[cfg_attr(not(feature = "files"), allow(dead_code))] // other files are sent whole
    /// The bytes from `first` to `last`, both included.
    Part {
        first: u64,
        last: u64,
    },
    /// The client has the file: 304.
    NotModified,
    /// The file is not the one that the client requires: 412.
    Failed,
    /// The range begins after the end of the file: 416.
    Unsatisfiable,
}

/// The entity tags of a field, with `W/` and quotes.
#[derive(Debug, Clone, Default)]
struct Tags {
    is_any: bool,
    list: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
enum Range {
    /// From the first position to the last one, or to the end.
    From(u64, Option<u64>),
    /// The last bytes, this many.
    Last(u64),
}

impl Conditions {
    pub(crate) fn of(head: &RequestHead<'_>) -> Self {
        let mut conditions = Self::default();
        let mut ranges = 0;
        for (name, value) in head.headers() {
            let is = |field: &str| name.eq_ignore_ascii_case(field);
            if is("if-match") {
                conditions.if_match.get_or_insert_default().add(value);
            } else if is("if-none-match") {
                conditions.if_none_match.get_or_insert_default().add(value);
            } else if is("if-unmodified-since") {
                conditions.if_unmodified_since = date(value);
            } else if is("if-modified-since") {
                conditions.if_modified_since = date(value);
            } else if is("if-range") {
                conditions.if_range = Some(strong_tag(value));
            } else if is("range") {
                ranges += 1;
                conditions.range = Range::of(value);
            }
        }
        if ranges > 1 {
            conditions.range = None;
        }
        conditions
    }

    /// Returns what the request wants of a file with this tag, date of change in full seconds, and
    /// length. Conditions by date do not apply to a file without a date. The order is that of RFC
    /// 9110, 13.2.2.
    pub(crate) fn judge(&self, tag: Option<&str>, modified: Option<SystemTime>, length: u64) -> Wanted {
        let is_changed = |since: SystemTime| modified.map(|modified| modified > since);
        let is_required = match &self.if_match {
            Some(tags) => tags.has(tag),
            None => self.if_unmodified_since.and_then(is_changed) != Some(true),
        };
        if !is_required {
            return Wanted::Failed;
        }
        let is_known = match &self.if_none_match {
            Some(tags) => tags.has_weakly(tag),
            None => self.if_modified_since.and_then(is_changed) == Some(false),
        };
        if is_known {
            return Wanted::NotModified;
        }
        let is_range_wanted = self.if_range.as_ref().is_none_or(|wanted| tag == Some(wanted));
        match self.range.filter(|_| is_range_wanted) {
            Some(range) => range.of_length(length),
            None => Wanted::Whole,
        }
    }
}

impl Tags {
    fn add(&mut self, value: &[u8]) {
        self.is_any |= value.trim_ascii() == b"*";
        self.list.extend(tags(value).filter_map(|tag| Some(std::str::from_utf8(tag).ok()?.to_owned())));
    }

    /// Returns whether a file has one of the tags. Weak tags never match.
    fn has(&self, tag: Option<&str>) -> bool {
        self.is_any || tag.is_some_and(|tag| self.list.iter().any(|held| held == tag))
    }

    /// Returns whether a file has one of the tags, weak or strong.
    fn has_weakly(&self, tag: Option<&str>) -> bool {
        let strong = |held: &str| Some(held.strip_prefix("W/").unwrap_or(held)) == tag;
        self.is_any || self.list.iter().any(|held| strong(held))
    }
}

/// Returns the tag of the field `If-Range`. A date there never matches: a file can change twice
/// within the second that a date has.
fn strong_tag(value: &[u8]) -> String {
    let text = std::str::from_utf8(value.trim_ascii()).unwrap_or_default();
    if text.starts_with('"') { text.to_owned() } else { String::new() }
}

impl Range {
    /// Parses a field with a single range of bytes. Others are ignored, as a server may do.
    fn of(value: &[u8]) -> Option<Self> {
        let (unit, list) = std::str::from_utf8(value).ok()?.split_once('=')?;
        let (first, last) = list.trim().split_once('-')?;
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        match (first, last) {
            ("", last) => number(last).map(Self::Last),
            (first, "") => number(first).map(|first| Self::From(first, None)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::From(first, Some(last)))
            }
        }
    }

    fn of_length(self, length: u64) -> Wanted {
        match self {
            Self::From(first, _) if first >= length => Wanted::Unsatisfiable,
            Self::From(first, last) => Wanted::Part { first, last: last.unwrap_or(length - 1).min(length - 1) },
            Self::Last(0) => Wanted::Unsatisfiable,
            // No range of an empty file can be named in a response.
            Self::Last(_) if length == 0 => Wanted::Whole,
            Self::Last(count) => Wanted::Part { first: length.saturating_sub(count), last: length - 1 },
        }
    }
}

fn date(value: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(value).ok()?.trim()).ok()
}

/// Returns the entity tags of a list, including `W/` and quotes, up to its first malformed entry.
/// Quoted tags may contain commas.
fn tags(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        while let [b' ' | b'\t' | b',', rest @ ..] = list {
            list = rest;
        }
        let opening = if list.starts_with(b"W/") { 2 } else { 0 };
        let inside = list.get(opening..)?.strip_prefix(b"\"")?;
        let length = inside.iter().position(|byte| *byte == b'"')?;
        let (tag, rest) = list.split_at(opening + length + 2);
        // Only a comma separates two tags.
        list = match rest.trim_ascii_start() {
            rest @ ([] | [b',', ..]) => rest,
            _ => &[],
        };
        Some(tag)
    })
}
