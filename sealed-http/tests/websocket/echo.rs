//! A server that sends messages back, closes if a message asks for it, and checks origins.

#![allow(unreachable_pub)] // it is a part of test programs

use sealed::{ConnectionId, Input};
use sealed_http::websocket::{self, CloseCode, Codec, Event, Kind, Limits};
use sealed_http::{Handler, Http, Request, Response};

#[derive(Debug)]
pub struct Echo {
    pub limits: Limits,
    pub notes: Vec<String>,
}

impl Echo {
    pub fn new(limits: Limits) -> Self {
        Self { limits, notes: Vec::new() }
    }
}

impl Handler for Echo {
    type Connection = Codec;
    type Message = ();
    type Timer = ();

    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
        match websocket::accept(&request.head, &["echo"]) {
            Ok(accepted) if accepted.origin.is_some_and(|origin| origin != "https://h") => {
                http.respond(id, &Response::new(403));
            }
            Ok(accepted) => assert!(http.upgrade(id, &accepted.response)),
            Err(refusal) => http.respond(id, &refusal.into()),
        }
    }

    fn raw(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, input: &mut Input<'_>) {
        let Some(socket) = http.state_mut(id) else { return };
        let mut out = Vec::new();
        let is_over = loop {
            match socket.read(input, &self.limits, &mut out) {
                Ok(Some(Event::Text(text))) if text == "close" => {
                    socket.close(CloseCode::POLICY, "as asked", &mut out);
                }
                Ok(Some(Event::Text(text))) => {
                    socket.encode(Kind::Text, text.as_bytes(), &mut out);
                }
                Ok(Some(Event::Binary(bytes))) => {
                    socket.encode(Kind::Binary, &bytes, &mut out);
                }
                Ok(Some(event @ Event::Close { .. })) => {
                    self.notes.push(format!("{event:?}"));
                    break true;
                }
                Err(violation) => {
                    self.notes.push(format!("{violation:?}"));
                    break true;
                }
                Ok(Some(_)) => {}
                Ok(None) => break false,
            }
        };
        if !http.write(id, &out) {
            http.pause(id);
        }
        if is_over {
            http.close(id);
        }
    }

    fn drained(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        http.resume(id);
    }
}
