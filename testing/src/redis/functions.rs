//! The functions of the library `ccomet1`, as `functions.lua` in the crate `ccomet` has them.

use std::rc::Rc;

use super::data::{Db, Message};
use super::resp::Value;

/// A mistake in the arguments of a function, which Redis reports as an error of the script.
#[derive(Debug)]
pub(super) struct Mistake;

type Result<T> = std::result::Result<T, Mistake>;

/// A call of a function.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) db: Db<'a>,
    pub(super) keys: &'a [Vec<u8>],
    pub(super) args: &'a [Vec<u8>],
    /// What it has published: topics and payloads.
    pub(super) published: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The state of a channel.
struct Channel {
    epoch: Vec<u8>,
    next: i64,
    average: i64,
}

/// Returns whether the library has a function of this name.
pub(super) fn is_known(function: &str) -> bool {
    let names = ["hello", "open", "publish", "read", "clear", "remove", "names", "sweep", "touch"];
    function.strip_prefix("ccomet1_").is_some_and(|name| names.contains(&name))
}

/// Returns whether a full Redis runs a function.
pub(super) fn runs_when_full(function: &str) -> bool {
    function != "ccomet1_publish"
}

fn array<const N: usize>(values: [Value; N]) -> Value {
    Value::Array(values.into())
}

fn status(text: &str) -> Value {
    array([text.into()])
}

fn number(value: i64) -> Vec<u8> {
    value.to_string().into_bytes()
}

impl<'a> Call<'a> {
    /// Runs a known function.
    pub(super) fn run(&mut self, function: &str) -> Result<Value> {
        match function {
            "ccomet1_hello" => self.hello(),
            "ccomet1_sweep" => self.sweep(),
            _ if self.db.field(self.key(0)?, "gen") != Some(self.arg(0)?) => Ok(status("STALE")),
            "ccomet1_open" => self.open(),
            "ccomet1_publish" => self.publish(),
            "ccomet1_read" => self.read(),
            "ccomet1_clear" => self.clear(),
            "ccomet1_remove" => self.remove(),
            "ccomet1_names" => self.names(),
            _ => self.touch(),
        }
    }

    fn key(&self, index: usize) -> Result<&'a [u8]> {
        self.keys.get(index).map(Vec::as_slice).ok_or(Mistake)
    }

    fn arg(&self, index: usize) -> Result<&'a [u8]> {
        self.args.get(index).map(Vec::as_slice).ok_or(Mistake)
    }

    fn text(&self, index: usize) -> Result<&'a str> {
        std::str::from_utf8(self.arg(index)?).map_err(|_| Mistake)
    }

    fn integer(&self, index: usize) -> Result<i64> {
        self.text(index)?.parse().map_err(|_| Mistake)
    }

    fn new_epoch(&mut self, old: &[u8], random: &[u8]) -> Result<Vec<u8>> {
        let g = self.key(0)?;
        let greatest = old.max(self.db.field(g, "e").unwrap_or_default());
        let with = |time: i64| [format!("{time:011x}").as_bytes(), random].concat();
        let mut epoch = with(self.db.now);
        if epoch.as_slice() <= greatest {
            let time = greatest.get(..11).and_then(|digits| std::str::from_utf8(digits).ok());
            epoch = with(i64::from_str_radix(time.ok_or(Mistake)?, 16).map_err(|_| Mistake)? + 1);
        }
        self.db.set_fields(g, [("e", epoch.clone())]);
        Ok(epoch)
    }

    /// Returns a channel, if there is one, with its epoch renewed if it is of another generation.
    fn channel(&mut self, m: &[u8], random: Option<&[u8]>) -> Result<Option<Channel>> {
        let Some(mut epoch) = self.db.field(m, "e").map(<[u8]>::to_vec) else { return Ok(None) };
        let generation = self.arg(0)?;
        if self.db.field(m, "g") != Some(generation) {
            let own = epoch.get(11..).unwrap_or_default().to_vec();
            epoch = self.new_epoch(&epoch, random.unwrap_or(&own))?;
            self.db.set_fields(m, [("e", epoch.clone()), ("g", generation.to_vec())]);
        }
        Ok(Some(Channel { epoch, next: self.db.number_in(m, "n"), average: self.db.number_in(m, "z") }))
    }

    fn make(&mut self, name: &[u8], random: &[u8]) -> Result<Channel> {
        let epoch = self.new_epoch(b"", random)?;
        self.db.remove(self.key(2)?);
        let fields = [("e", epoch.clone()), ("g", self.arg(0)?.to_vec()), ("n", number(0)), ("z", number(0))];
        self.db.set_fields(self.key(1)?, fields);
        self.db.add_name(self.key(3)?, name);
        Ok(Channel { epoch, next: 0, average: 0 })
    }

    fn expire(&mut self, ttl_s: i64) -> Result<()> {
        self.db.expire(self.key(1)?, ttl_s);
        self.db.expire(self.key(2)?, ttl_s);
        Ok(())
    }

    fn publish_text(&mut self, topic: &[u8], text: &str, blobs: &[&[u8]]) {
        self.published.push((topic.to_vec(), [text.as_bytes(), &blobs.concat()].concat()));
    }

    fn hello(&mut self) -> Result<Value> {
        let (g, run) = (self.key(0)?, self.arg(0)?);
        let mut generation = self.db.number_in(g, "gen");
        if generation == 0 || self.db.field(g, "run") != Some(run) {
            generation = self.db.now.max(generation + 1);
            self.db.set_fields(g, [("run", run.to_vec()), ("gen", number(generation))]);
        }
        Ok(array(["OK".into(), generation.into(), self.db.now.into()]))
    }

    fn open(&mut self) -> Result<Value> {
        let (name, creates, random) = (self.arg(1)?, self.arg(2)? == b"1", self.arg(3)?);
        let (count, ttl_s, bytes_max) = (self.integer(4)?, self.integer(5)?, self.integer(6)?);
        let (m, s) = (self.key(1)?, self.key(2)?);
        let channel = match self.channel(m, Some(random))? {
            Some(channel) => channel,
            None if creates => self.make(name, random)?,
            None => return Ok(status("ABSENT")),
        };
        self.expire(ttl_s)?;
        let stream = self.db.stream(s).into_iter().flat_map(|stream| stream.messages.iter());
        let mut messages = first_of(stream.rev(), count, bytes_max)?;
        messages.reverse();
        let first = channel.next - self.db.length(s);
        let now = self.db.now.into();
        let epoch = Value::Bytes(channel.epoch);
        Ok(array(["OK".into(), epoch, channel.next.into(), first.into(), now, Value::Array(messages)]))
    }

    /// Returns, for each of the keys of messages, the number of the message that it was used for
    /// and its digest; `None` if a key was used for another message.
    fn numbers_of_keys(&self, epoch: Option<&[u8]>) -> Result<Option<Vec<Option<i64>>>> {
        let keys = self.keys.get(4..).unwrap_or_default();
        let stored = keys.iter().map(|key| {
            let text = std::str::from_utf8(self.db.text(key)?).ok()?;
            let (digest, rest) = text.split_once(':')?;
            let (number, of) = rest.split_once(':')?;
            (Some(of.as_bytes()) == epoch).then_some((number.parse::<i64>().ok()?, digest.as_bytes().to_vec()))
        });
        let (numbers, mut digests): (Vec<_>, Vec<_>) = stored.map(Option::unzip).unzip();
        for i in (9..self.args.len()).step_by(3) {
            let (key, digest) = (self.integer(i + 1)?, self.arg(i + 2)?);
            if key > 0 {
                let known = digests.get_mut(usize::try_from(key - 1).map_err(|_| Mistake)?).ok_or(Mistake)?;
                if known.get_or_insert_with(|| digest.to_vec()) != digest {
                    return Ok(None);
                }
            }
        }
        Ok(Some(numbers))
    }

    fn publish(&mut self) -> Result<Value> {
        let (name, topic, random, token) = (self.arg(1)?, self.arg(2)?, self.arg(3)?, self.arg(4)?);
        let messages_max = usize::try_from(self.integer(5)?).map_err(|_| Mistake)?;
        let (ttl_s, key_ttl_s) = (self.integer(6)?, self.integer(7)?);
        let (m, s, now) = (self.key(1)?, self.key(2)?, self.db.now);
        let epoch = if self.db.field(m, "g") == Some(self.arg(0)?) { self.db.field(m, "e") } else { None };
        let Some(mut known) = self.numbers_of_keys(epoch)? else { return Ok(status("KEY")) };
        let mut channel = match self.channel(m, Some(random))? {
            Some(channel) => channel,
            None => self.make(name, random)?,
        };
        let (begin, mut numbers, mut is_new, mut blobs) = (channel.next, Vec::new(), Vec::new(), Vec::new());
        for i in (9..self.args.len()).step_by(3) {
            let (blob, digest) = (self.arg(i)?, self.text(i + 2)?);
            let key = usize::try_from(self.integer(i + 1)?).map_err(|_| Mistake)?;
            let known = key.checked_sub(1).and_then(|key| known.get_mut(key));
            is_new.push(i64::from(known.as_ref().is_none_or(|known| known.is_none())).into());
            if let Some(Some(number)) = known {
                numbers.push(Value::Integer(*number));
                continue;
            }
            let number = channel.next;
            channel.next += 1;
            let message = Message { number, time: now, token: token.to_vec(), blob: blob.to_vec() };
            self.db.append(s, message, messages_max);
            if let Some(known) = known {
                *known = Some(number);
                let text = format!("{digest}:{number}:{}", String::from_utf8_lossy(&channel.epoch));
                self.db.set_text(self.key(3 + key)?, text.into_bytes(), key_ttl_s);
            }
            let bytes = i64::try_from(blob.len()).map_err(|_| Mistake)?;
            channel.average = if number == 0 { bytes } else { (15 * channel.average + bytes + 8) / 16 };
            blobs.push(blob);
            numbers.push(number.into());
        }
        if channel.next > begin {
            self.db.set_fields(m, [("n", number(channel.next)), ("z", number(channel.average))]);
            let [epoch, token] = [&channel.epoch, token].map(String::from_utf8_lossy);
            let lengths: Vec<_> = blobs.iter().map(|blob| blob.len().to_string()).collect();
            let (count, lengths) = (channel.next - begin, lengths.join(" "));
            let text = format!("A {epoch} {begin} {count} {now} {token} {lengths}\n");
            self.publish_text(topic, &text, &blobs);
        }
        self.expire(ttl_s)?;
        let first = channel.next - self.db.length(s);
        let [numbers, is_new] = [numbers, is_new].map(Value::Array);
        Ok(array(["OK".into(), Value::Bytes(channel.epoch), first.into(), now.into(), numbers, is_new]))
    }

    fn read(&mut self) -> Result<Value> {
        let (epoch, random, begin) = (self.arg(1)?, self.arg(2)?, self.integer(3)?);
        let (limit, bytes_max, backward) = (self.integer(4)?, self.integer(5)?, self.arg(6)? == b"1");
        let s = self.key(2)?;
        let Some(channel) = self.channel(self.key(1)?, Some(random))? else { return Ok(status("ABSENT")) };
        let first = channel.next - self.db.length(s);
        let all = self.db.stream(s).map(|stream| &stream.messages);
        let mut wanted: Vec<_> = all.into_iter().flatten().collect();
        wanted.retain(|message| epoch == channel.epoch && (message.number < begin) == backward);
        if backward {
            wanted.reverse();
        }
        let messages = first_of(wanted.iter().copied(), limit, bytes_max)?;
        let (next, now) = (channel.next.into(), self.db.now.into());
        let has_more = Value::Integer(i64::from(messages.len() < wanted.len()));
        let epoch = Value::Bytes(channel.epoch);
        Ok(array(["OK".into(), epoch, next, first.into(), now, Value::Array(messages), has_more]))
    }

    fn clear(&mut self) -> Result<Value> {
        let (topic, random, token) = (self.arg(1)?, self.arg(2)?, self.text(3)?);
        let Some(channel) = self.channel(self.key(1)?, Some(random))? else { return Ok(status("ABSENT")) };
        self.db.remove(self.key(2)?);
        let epoch = String::from_utf8_lossy(&channel.epoch);
        self.publish_text(topic, &format!("C {epoch} {} {token}\n", channel.next), &[]);
        Ok(array(["OK".into(), Value::Bytes(channel.epoch), channel.next.into()]))
    }

    fn remove(&mut self) -> Result<Value> {
        let (name, topic, token) = (self.arg(1)?, self.arg(2)?, self.text(3)?);
        let (g, m) = (self.key(0)?, self.key(1)?);
        let Some(epoch) = self.db.field(m, "e").map(<[u8]>::to_vec) else { return Ok(status("ABSENT")) };
        let next = self.db.number_in(m, "n");
        self.db.remove(m);
        self.db.remove(self.key(2)?);
        self.db.remove_name(self.key(3)?, name);
        if self.db.field(g, "e").unwrap_or_default() < epoch.as_slice() {
            self.db.set_fields(g, [("e", epoch.clone())]);
        }
        self.publish_text(topic, &format!("R {} {next} {token}\n", String::from_utf8_lossy(&epoch)), &[]);
        Ok(array(["OK".into(), Value::Bytes(epoch), next.into()]))
    }

    fn names(&mut self) -> Result<Value> {
        let [of_m, of_s, prefix, after] = [self.arg(1)?, self.arg(2)?, self.arg(3)?, self.arg(4)?];
        let (limit, l) = (self.integer(5)?, self.key(1)?);
        let all = self.db.names(l).cloned().unwrap_or_default();
        let (mut found, mut visits, mut has_more) = (Vec::new(), 10 * limit, 0);
        for name in all.into_iter().filter(|name| name.starts_with(prefix) && name.as_slice() > after) {
            if found.len() == usize::try_from(limit).unwrap_or(0) || visits == 0 {
                has_more = 1;
                break;
            }
            visits -= 1;
            let Some(channel) = self.channel(&[of_m, &name].concat(), None)? else {
                self.db.remove_name(l, &name);
                continue;
            };
            let length = self.db.length(&[of_s, &name].concat());
            let (next, first) = (channel.next.into(), (channel.next - length).into());
            let epoch = Value::Bytes(channel.epoch);
            found.push(array([Value::Bytes(name), epoch, next, first, (length * channel.average).into()]));
        }
        Ok(array(["OK".into(), has_more.into(), Value::Array(found)]))
    }

    fn sweep(&mut self) -> Result<Value> {
        let (l, of_m, after, count) = (self.key(0)?, self.arg(0)?, self.arg(1)?, self.integer(2)?);
        let count = usize::try_from(count).map_err(|_| Mistake)?;
        let all = self.db.names(l).cloned().unwrap_or_default();
        let some: Vec<_> = all.into_iter().filter(|name| name.as_slice() > after).take(count).collect();
        for name in &some {
            if self.db.entry(&[of_m, name].concat()).is_none() {
                self.db.remove_name(l, name);
            }
        }
        let last = some.last().filter(|_| some.len() == count);
        Ok(array(["OK".into(), Value::Bytes(last.cloned().unwrap_or_default())]))
    }

    fn touch(&mut self) -> Result<Value> {
        let ttl_s = self.integer(1)?;
        self.keys.iter().skip(1).for_each(|key| self.db.expire(key, ttl_s));
        Ok(status("OK"))
    }
}

/// Returns the first messages: at most `limit`, and at most `bytes_max` bytes but at least one.
fn first_of<'a>(wanted: impl Iterator<Item = &'a Rc<Message>>, limit: i64, bytes_max: i64) -> Result<Vec<Value>> {
    let (mut bytes, mut messages) = (0, Vec::new());
    for message in wanted {
        let (count, is_enough) = (i64::try_from(messages.len()).map_err(|_| Mistake)?, bytes >= bytes_max);
        bytes += i64::try_from(message.blob.len()).map_err(|_| Mistake)?;
        if count >= limit || (is_enough || bytes > bytes_max) && count > 0 {
            break;
        }
        messages.push(value_of(message));
    }
    Ok(messages)
}

/// Returns a message as an entry of a reply.
fn value_of(message: &Message) -> Value {
    let [token, blob] = [&message.token, &message.blob].map(|bytes| Value::Bytes(bytes.clone()));
    array([message.number.into(), message.time.into(), token, blob])
}
