//! Those who wait for the broker's answer.

use sealed::{ConnectionId, fault};
use sealed_http::{Http, Response};

use super::answers::{fields_for, respond_problem};
use super::{App, Doing, done, loop_time};
use crate::broker::{ChannelInfo, Listed, Page, Ticket, Token, Who};
use crate::doorkeeper::Asking;
use crate::one_or_more::OneOrMore;
use crate::position::Spot;
use crate::protocols::call::ReplyTo;
use crate::protocols::format::jsonp;
use crate::protocols::format::response::{json_response, script_response};
use crate::protocols::native::items as native;
use crate::protocols::v1::items as v1;
use crate::wire::problem::Problem;

/// Who waits for the broker's answer.
#[derive(Debug)]
pub(super) struct Asker {
    serial: u32,
    peer: ConnectionId,
    reply: ReplyTo,
    /// Answers that are still to come.
    answers: usize,
    /// The publisher of a message to a pattern, which pays for each channel that it reaches.
    payer: Option<Payer>,
}

/// A client that is charged when it is known how much it has asked for.
#[derive(Debug)]
struct Payer {
    asking: Asking,
    /// What it has paid beforehand.
    paid: u64,
}

/// What the broker did for an asker.
pub(super) enum Settled {
    /// The messages have their numbers: the spot behind each.
    Published(OneOrMore<Spot>),
    /// The message is in so many channels of one home.
    Broadcast(u64),
    /// The channel was closed or cleared; the number of its next message, if it was there.
    Ended(Option<u64>),
    /// The number of the oldest message kept, and the channel's token.
    Signed(u64, Token),
    /// Whether the token is right.
    Admitted(bool),
    /// What is known of the channel, if it is there.
    Inspected(Option<ChannelInfo>),
    /// What there is of a part of the channel's history, if it is there.
    Read(Option<Page>),
    /// Who is in the channel.
    Present(Who),
    /// Channels of one home.
    Listed(Vec<Listed>),
}

impl App {
    /// Notes who waits for the broker's answer.
    pub(super) fn ask(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, reply: ReplyTo) -> Ticket {
        self.ask_all(http, id, reply, 1)
    }

    /// The same of one who waits for several answers.
    pub(super) fn ask_all(
        &mut self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        reply: ReplyTo,
        answers: usize,
    ) -> Ticket {
        let ticket = self.note_asker_of(id, reply, answers);
        if let Some(client) = http.state_mut(id) {
            client.doing = Doing::Asking(ticket.0 as u32);
        }
        ticket
    }

    /// The same of one that does not only wait for that.
    pub(super) fn note_asker(&mut self, id: ConnectionId, reply: ReplyTo) -> Ticket {
        self.note_asker_of(id, reply, 1)
    }

    /// The same of one who waits for several answers.
    pub(super) fn note_asker_of(&mut self, id: ConnectionId, reply: ReplyTo, answers: usize) -> Ticket {
        self.last_serial = self.last_serial.wrapping_add(1);
        let serial = self.last_serial;
        let key = self.askers.insert(Asker { serial, peer: id, reply, answers, payer: None }) as u32;
        Ticket(u64::from(serial) << 32 | u64::from(key))
    }

    /// Notes that a client has paid for one publication, and pays for those that its message comes to, also when it is gone
    /// by then.
    pub(super) fn let_pay(&mut self, ticket: Ticket, asking: Asking) {
        if let Some(asker) = self.askers.get_mut(ticket.0 as u32 as usize) {
            asker.payer = Some(Payer { asking, paid: 1 });
        }
    }

    /// Answers who waited for the broker's answer, if he is still there.
    pub(super) fn settle(&mut self, http: &mut Http<'_, Self>, ticket: Ticket, mut outcome: Result<Settled, Problem>) {
        let key = ticket.0 as u32 as usize;
        let Some(asker) = self.askers.get_mut(key).filter(|asker| u64::from(asker.serial) == ticket.0 >> 32) else {
            return;
        };
        if let (Some(payer), Ok(Settled::Broadcast(channels))) = (&mut asker.payer, &outcome) {
            let covered = payer.paid.min(*channels);
            payer.paid -= covered;
            if !fault!("reach-not-charged") {
                self.doorkeeper.charge_reached(payer.asking, channels - covered, loop_time(http));
            }
        }
        if let ReplyTo::Part(part) = &asker.reply {
            let part = part.clone();
            asker.answers -= 1;
            if asker.answers == 0 {
                self.askers.remove(key);
            }
            return self.settle_part(http, &part, outcome.as_ref().map_err(|problem| *problem));
        }
        if let (ReplyTo::List { channels, .. }, Ok(Settled::Listed(more))) = (&mut asker.reply, &mut outcome) {
            channels.append(more);
            asker.answers -= 1;
            if asker.answers > 0 {
                return;
            }
        }
        let Asker { peer, reply, .. } = self.askers.remove(key);
        if let ReplyTo::Socket { channel, reference } = reply {
            let outcome = outcome.map(|settled| match settled {
                Settled::Published(spots) => Some(spots.first),
                _ => None,
            });
            return self.settle_socket(http, peer, &channel, reference, outcome);
        }
        done(http, peer);
        let fields = fields_for(&self.answering, http.state(peer));
        match (outcome, reply) {
            (Ok(Settled::Published(spots)), ReplyTo::Native { channel, callback }) => {
                let mut json = Vec::with_capacity(128);
                native::write_published(&channel, spots.first, &mut json);
                let body = jsonp::wrap(callback.as_deref(), json);
                let response = if callback.is_some() { script_response(body) } else { json_response(body) };
                let response = response.with(fields);
                http.respond(peer, &response);
            }
            (Ok(_), ReplyTo::V1 { callback }) => {
                http.respond(peer, &script_response(v1::envelope_fixed(&callback, v1::PUBLISHED)));
            }
            (outcome, ReplyTo::Icomet(reply)) => self.icomet_settled(http, peer, reply, outcome),
            (Ok(Settled::Read(Some(page))), ReplyTo::History { channel }) => {
                http.respond(peer, &json_response(native::history(&channel, &page)).with(fields));
            }
            (Ok(Settled::Inspected(Some(info))), ReplyTo::Info { channel }) => {
                http.respond(peer, &json_response(native::info(&Listed { channel, info })).with(fields));
            }
            (Ok(Settled::Present(who)), ReplyTo::Who { channel, with_members }) => {
                http.respond(peer, &json_response(native::presence(&channel, &who, with_members)).with(fields));
            }
            (Ok(Settled::Listed(_)), ReplyTo::List { mut channels, limit }) => {
                channels.sort_unstable_by(|one, other| one.channel.cmp(&other.channel));
                let more = channels.len() > limit;
                channels.truncate(limit);
                http.respond(peer, &json_response(native::list(&channels, more)).with(fields));
            }
            (Ok(Settled::Ended(None) | Settled::Read(None) | Settled::Inspected(None)), _) => {
                respond_problem(http, peer, Problem::UnknownChannel, None, &self.answering);
            }
            (Ok(_), _) => {
                http.respond(peer, &Response::new(204).with(fields));
            }
            (Err(problem), reply) => {
                let callback = match &reply {
                    ReplyTo::Native { callback, .. } => callback.as_deref(),
                    _ => None,
                };
                respond_problem(http, peer, problem, callback, &self.answering);
            }
        }
    }
}
