//! The keys of a Redis, and the changes of each write.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

/// The number of writes that can be taken back.
const UNDO_MAX: usize = 10_000;

/// A message in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) number: i64,
    pub(super) time: i64,
    pub(super) token: Vec<u8>,
    pub(super) blob: Vec<u8>,
}

/// A stream: messages in nodes, of which the oldest goes as a whole.
#[derive(Debug, Clone, Default)]
pub(super) struct Stream {
    pub(super) messages: VecDeque<Rc<Message>>,
    nodes: VecDeque<usize>,
}

impl Stream {
    /// Appends a message, and trims as `XADD MAXLEN ~` does if nodes have a number of messages and
    /// any number of bytes.
    pub(super) fn append(&mut self, message: Message, messages_max: usize, node_max: usize) {
        match self.nodes.back_mut() {
            Some(count) if *count < node_max => *count += 1,
            _ => self.nodes.push_back(1),
        }
        self.messages.push_back(Rc::new(message));
        let mut removed = 0;
        while let Some(count) = self.nodes.front() {
            let length = self.messages.len();
            // Redis removes the messages of at most 100 nodes at once.
            let is_kept = length <= messages_max || length - count < messages_max || removed + count > 100 * node_max;
            if is_kept {
                return;
            }
            removed += count;
            self.messages.drain(..*count);
            self.nodes.pop_front();
        }
    }
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    Text(Vec<u8>),
    Hash(BTreeMap<&'static str, Vec<u8>>),
    Stream(Stream),
    /// A sorted set, whose scores are all 0.
    Names(BTreeSet<Vec<u8>>),
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) content: Content,
    /// The time, in ms since 1970, from which on it is gone.
    pub(super) expires: Option<i64>,
}

type Place = (u32, Vec<u8>);

/// What a write has changed.
#[derive(Debug, Clone, Default)]
struct Changes {
    /// The keys, with their entries before.
    entries: BTreeMap<Place, Option<Entry>>,
    /// It has changed more than when keys expire.
    is_of_content: bool,
}

/// The keys of all databases.
#[derive(Debug, Clone, Default)]
pub(super) struct Data {
    entries: BTreeMap<Place, Entry>,
    /// For each of the newest writes, the former entries of the keys that it changed.
    undo: VecDeque<Rc<Changes>>,
    current: Changes,
}

impl Data {
    /// Ends a command, which is a write if it has changed anything, even if only the time at which
    /// a key expires.
    pub(super) fn end_command(&mut self) {
        if !self.current.entries.is_empty() {
            self.undo.push_back(Rc::new(std::mem::take(&mut self.current)));
            if self.undo.len() > UNDO_MAX {
                self.undo.pop_front();
            }
        }
    }

    /// Takes back the newest writes. Those that changed only when keys expire do not count.
    pub(super) fn take_back(&mut self, mut writes: usize) {
        while writes > 0 {
            let Some(changes) = self.undo.pop_back() else { return };
            writes -= usize::from(changes.is_of_content);
            for (place, entry) in &changes.entries {
                match entry {
                    Some(entry) => self.entries.insert(place.clone(), entry.clone()),
                    None => self.entries.remove(place),
                };
            }
        }
    }

    /// Removes all keys.
    pub(super) fn clear(&mut self, db: Option<u32>) {
        let places = self.entries.keys().filter(|(of, _)| db.is_none_or(|db| db == *of)).cloned();
        for place in places.collect::<Vec<_>>() {
            self.note(&place, true);
            self.entries.remove(&place);
        }
    }

    fn note(&mut self, place: &Place, is_of_content: bool) {
        self.current.is_of_content |= is_of_content;
        if !self.current.entries.contains_key(place) {
            self.current.entries.insert(place.clone(), self.entries.get(place).cloned());
        }
    }
}

/// One database at one moment, for the time of one command.
#[derive(Debug)]
pub(super) struct Db<'a> {
    pub(super) data: &'a mut Data,
    pub(super) number: u32,
    /// In ms since 1970.
    pub(super) now: i64,
    pub(super) node_max: usize,
}

impl Db<'_> {
    fn place(&self, key: &[u8]) -> Place {
        (self.number, key.to_vec())
    }

    pub(super) fn entry(&self, key: &[u8]) -> Option<&Entry> {
        let entry = self.data.entries.get(&self.place(key))?;
        entry.expires.is_none_or(|expires| self.now < expires).then_some(entry)
    }

    /// Returns the entry of a key for a change; one of this content if there is none.
    fn entry_or(&mut self, key: &[u8], content: Content) -> &mut Entry {
        let place = self.place(key);
        self.data.note(&place, true);
        if self.entry(key).is_none() {
            self.data.entries.remove(&place);
        }
        self.data.entries.entry(place).or_insert(Entry { content, expires: None })
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> bool {
        let is_there = self.entry(key).is_some();
        let place = self.place(key);
        if self.data.entries.contains_key(&place) {
            self.data.note(&place, true);
            self.data.entries.remove(&place);
        }
        is_there
    }

    pub(super) fn expire(&mut self, key: &[u8], ttl_s: i64) {
        if self.entry(key).is_none() {
            return;
        }
        if ttl_s <= 0 {
            self.remove(key);
            return;
        }
        let expires = self.now + ttl_s * 1_000;
        let place = self.place(key);
        self.data.note(&place, false);
        if let Some(entry) = self.data.entries.get_mut(&place) {
            entry.expires = Some(expires);
        }
    }

    pub(super) fn text(&self, key: &[u8]) -> Option<&[u8]> {
        match &self.entry(key)?.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn set_text(&mut self, key: &[u8], text: Vec<u8>, ttl_s: i64) {
        self.remove(key);
        self.entry_or(key, Content::Text(text));
        self.expire(key, ttl_s);
    }

    pub(super) fn field(&self, key: &[u8], field: &str) -> Option<&[u8]> {
        match &self.entry(key)?.content {
            Content::Hash(fields) => fields.get(field).map(Vec::as_slice),
            _ => None,
        }
    }

    /// Returns a field that has a number; 0 if there is none.
    pub(super) fn number_in(&self, key: &[u8], field: &str) -> i64 {
        let field = self.field(key, field).and_then(|text| std::str::from_utf8(text).ok());
        field.and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    pub(super) fn set_fields<const N: usize>(&mut self, key: &[u8], fields: [(&'static str, Vec<u8>); N]) {
        if let Content::Hash(map) = &mut self.entry_or(key, Content::Hash(BTreeMap::new())).content {
            map.extend(fields);
        }
    }

    pub(super) fn stream(&self, key: &[u8]) -> Option<&Stream> {
        match &self.entry(key)?.content {
            Content::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    pub(super) fn length(&self, key: &[u8]) -> i64 {
        self.stream(key).map_or(0, |stream| i64::try_from(stream.messages.len()).unwrap_or(i64::MAX))
    }

    pub(super) fn append(&mut self, key: &[u8], message: Message, messages_max: usize) {
        let node_max = self.node_max;
        if let Content::Stream(stream) = &mut self.entry_or(key, Content::Stream(Stream::default())).content {
            stream.append(message, messages_max, node_max);
        }
    }

    pub(super) fn names(&self, key: &[u8]) -> Option<&BTreeSet<Vec<u8>>> {
        match &self.entry(key)?.content {
            Content::Names(names) => Some(names),
            _ => None,
        }
    }

    pub(super) fn add_name(&mut self, key: &[u8], name: &[u8]) {
        if let Content::Names(names) = &mut self.entry_or(key, Content::Names(BTreeSet::new())).content {
            names.insert(name.to_vec());
        }
    }

    pub(super) fn remove_name(&mut self, key: &[u8], name: &[u8]) {
        if self.names(key).is_none_or(|names| !names.contains(name)) {
            return;
        }
        let entry = self.entry_or(key, Content::Names(BTreeSet::new()));
        if let Content::Names(names) = &mut entry.content {
            names.remove(name);
            if !names.is_empty() {
                return;
            }
        }
        self.remove(key);
    }
}
