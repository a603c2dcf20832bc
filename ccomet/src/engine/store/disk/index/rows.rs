//! The rows of the index, with checksums: the database does not verify its pages when it reads
//! them. A row that was changed on the disk is an error of its channel, and never other numbers.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use crc32fast::Hasher;
use sealed::fault;
use tracing::error;

use super::{ChannelRow, IndexError, LogPosition, Result, StoreState, damaged};
use crate::core::message::ChannelName;
use crate::core::position::Epoch;
use crate::core::time::UnixMillis;
use crate::engine::store::KeptKey;
use crate::engine::store::binary::Input;
use crate::engine::store::disk::places::SegmentId;
use crate::engine::store::disk::record::{ChannelId, Salt, VERSION};
use crate::engine::store::disk::shared::lock;

/// The beginning of the description of a damaged row.
const ROW_DAMAGED: &str = "the index has a damaged row: ";

/// The maximum number of damaged rows that are logged.
const REPORTED_MAX: usize = 1_000;

/// The keys of the state of a store.
const VERSION_KEY: &str = "version";
const CHECKSUM_KEY: &str = "checksum";
const STATE_KEYS: [&str; 6] = ["salt", "segment", "offset", "sequence", "last channel", "last epoch"];

/// The version of an index that does not say which it has.
const FIRST_VERSION: u32 = 1;

fn checksum(numbers: &[u64], rest: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(rest);
    hasher.finalize()
}

/// Returns the error for a row that was changed.
#[allow(clippy::unnecessary_box_returns)] // as in results
pub(in super::super) fn damaged_row(what: &str) -> IndexError {
    damaged(&format!("{ROW_DAMAGED}{what}"))
}

/// Describes a damaged row; `None` for any other error. Opening the index again does not help.
pub(in super::super) fn row_damage(error: &IndexError) -> Option<&str> {
    match &**error {
        redb::Error::Corrupted(what) if what.starts_with(ROW_DAMAGED) => Some(what),
        _ => None,
    }
}

/// Logs that a row is damaged.
pub(in super::super) fn report_row(error: &IndexError) {
    if let Some(what) = row_damage(error) {
        error!(
            "the store is damaged: {what}. Stop the server, run `ccomet store check`, and restore a backup, or keep \
             what can be read with `ccomet store salvage`"
        );
    }
}

/// The channels whose rows were logged as damaged.
#[derive(Debug, Default)]
pub(super) struct Reported(Mutex<BTreeSet<ChannelId>>);

impl Reported {
    /// Logs once that the row of a channel is damaged.
    pub(super) fn report(&self, id: ChannelId, error: &IndexError) {
        let mut reported = lock(&self.0);
        if reported.len() < REPORTED_MAX && reported.insert(id) {
            report_row(error);
        }
    }
}

impl ChannelRow {
    /// Returns the row of the channel of that id, which its checksum covers too.
    pub(in super::super) fn encode(&self, id: ChannelId) -> Vec<u8> {
        let mut out = Vec::with_capacity(52 + self.name.as_str().len());
        let kept_for = u64::try_from(self.kept_for.as_millis()).unwrap_or(u64::MAX);
        for number in [self.epoch.0, self.first, self.next, self.bytes, self.used.as_millis(), kept_for] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(self.name.as_str().as_bytes());
        let checksum = checksum(&[id], &out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    pub(super) fn decode(id: ChannelId, bytes: &[u8]) -> Result<Self> {
        Self::read(id, bytes).ok_or_else(|| damaged_row(&format!("that of the channel with id {id}")))
    }

    fn read(id: ChannelId, bytes: &[u8]) -> Option<Self> {
        let (row, found) = bytes.split_last_chunk::<4>()?;
        if u32::from_le_bytes(*found) != checksum(&[id], row) && !fault!("row-of-index-not-checked") {
            return None;
        }
        let mut rest = Input(row);
        let (epoch, first, next, bytes) = (Epoch(rest.u64()?), rest.u64()?, rest.u64()?, rest.u64()?);
        let (used, kept_for) = (UnixMillis::from_millis(rest.u64()?), Duration::from_millis(rest.u64()?));
        let name = ChannelName::new(std::str::from_utf8(rest.0).ok()?).ok()?;
        Some(Self { name, epoch, first, next, bytes, used, kept_for })
    }
}

/// Returns the value of a block of places, which begins with that of message `begin`.
pub(in super::super) fn encode_block(id: ChannelId, begin: u64, mut places: Vec<u8>) -> Vec<u8> {
    let checksum = checksum(&[id, begin], &places);
    places.extend_from_slice(&checksum.to_le_bytes());
    places
}

/// Returns the places in the value of a block; `None` if it is damaged.
pub(in super::super) fn block_places(id: ChannelId, begin: u64, value: &[u8]) -> Option<&[u8]> {
    let (places, found) = value.split_last_chunk::<4>()?;
    let is_right = u32::from_le_bytes(*found) == checksum(&[id, begin], places);
    (is_right || fault!("places-in-index-not-checked")).then_some(places)
}

/// The value of an idempotency key: the digest, the number after the message, the time, and a
/// checksum.
pub(in super::super) type KeyValue = (u64, u64, u64, u32);

/// Returns the row of an idempotency key of a channel.
pub(in super::super) fn encode_key(id: ChannelId, key: &KeptKey) -> KeyValue {
    let KeptKey { key, digest, next, time } = key;
    let numbers = [id, *digest, *next, time.as_millis()];
    (*digest, *next, time.as_millis(), checksum(&numbers, key.as_bytes()))
}

/// Reads the row of an idempotency key.
pub(in super::super) fn decode_key(id: ChannelId, key: &str, value: KeyValue) -> Result<KeptKey> {
    let (digest, next, time, _) = value;
    let found = KeptKey { key: key.into(), digest, next, time: UnixMillis::from_millis(time) };
    let is_right = encode_key(id, &found) == value || fault!("key-in-index-not-checked");
    is_right.then_some(found).ok_or_else(|| damaged_row(&format!("an idempotency key of the channel with id {id}")))
}

/// Returns the row of a segment of which so many bytes are kept.
pub(in super::super) fn encode_count(segment: SegmentId, bytes: u64) -> (u64, u32) {
    (bytes, checksum(&[segment.into(), bytes], &[]))
}

/// Reads the row of a segment: if its number were too small, messages would go with the segment.
pub(in super::super) fn decode_count(segment: SegmentId, row: (u64, u32)) -> Result<u64> {
    let is_right = encode_count(segment, row.0) == row || fault!("count-of-segment-not-checked");
    if is_right { Ok(row.0) } else { Err(damaged_row(&format!("that of segment {segment}"))) }
}

/// Returns the values that say which version an index has, and which state.
pub(in super::super) fn encode_state(state: &StoreState) -> impl Iterator<Item = (&'static str, u64)> {
    let StoreState { salt, position, last_channel, last_epoch } = state;
    let (segment, offset) = (u64::from(position.segment), u64::from(position.offset));
    let values = [salt.0.into(), segment, offset, position.sequence, *last_channel, last_epoch.0];
    let more = [(VERSION_KEY, encode_version(VERSION)), (CHECKSUM_KEY, checksum(&values, &[]).into())];
    STATE_KEYS.into_iter().zip(values).chain(more)
}

/// Reads the state of a store, whose values `get` returns.
pub(super) fn decode_state(get: impl Fn(&str) -> Result<Option<u64>>) -> Result<StoreState> {
    let lacks = || damaged("it lacks the state of the store");
    let mut values = [0; STATE_KEYS.len()];
    for (value, key) in values.iter_mut().zip(STATE_KEYS) {
        *value = get(key)?.ok_or_else(lacks)?;
    }
    let is_right = get(CHECKSUM_KEY)? == Some(checksum(&values, &[]).into());
    if !is_right && !fault!("state-of-index-not-checked") {
        return Err(damaged_row("the state of the store"));
    }
    let [salt, segment, offset, sequence, last_channel, last_epoch] = values;
    let position = LogPosition { segment: segment as u32, offset: offset as u32, sequence };
    Ok(StoreState { salt: Salt(salt as u32), position, last_channel, last_epoch: Epoch(last_epoch) })
}

/// Returns a version with its own checksum: an index of another version may have another one for
/// its state.
fn encode_version(version: u32) -> u64 {
    u64::from(checksum(&[version.into()], &[])) << 32 | u64::from(version)
}

/// Reads the version of an index.
pub(super) fn decode_version(get: impl Fn(&str) -> Result<Option<u64>>) -> Result<u32> {
    let Some(value) = get(VERSION_KEY)? else { return Ok(FIRST_VERSION) };
    let version = value as u32;
    if encode_version(version) == value { Ok(version) } else { Err(damaged_row("the version of the index")) }
}
