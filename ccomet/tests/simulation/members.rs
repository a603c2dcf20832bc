//! Members that connect by WebSocket with tokens, and know the other members: from one list, and
//! from later joins and leaves.

use std::collections::BTreeSet;

use ccomet::{Claims, Config, Pattern, make_token};
use sealed::sim::{Peer, Random};
use serde_json::{Value, json};
use testing::http::UPGRADE;

use crate::frames::{Frame, Frames};
use crate::http::{Answer, Http};
use crate::oracle::{Cursor, Oracle, Spot, spots};
use crate::world::Place;

/// The channel of the members, which no other client uses.
pub const ROOM: &str = "room";

/// A member, perhaps on several connections.
pub struct Member {
    label: String,
    id: String,
    token: String,
    http: Option<Http>,
    frames: Frames,
    is_open: bool,
    live: bool,
    position: Option<String>,
    /// The positions in the room, and in its presence.
    cursors: [Cursor; 2],
    /// The present members, once they are known.
    known: Option<BTreeSet<String>>,
    sent: u64,
}

impl Member {
    pub fn new(number: usize, config: &Config, place: &Place, random: &mut Random) -> Self {
        let id = format!("m{}", random.below(3));
        let iat = place.sim.unix_time().as_secs();
        let room = vec![Pattern::new(ROOM).expect("a pattern")];
        // The token does not expire, whatever the clocks do.
        let claims = Claims {
            sub: Some(id.clone()),
            iat,
            exp: iat + 100_000_000,
            subscribe: room.clone(),
            publish: room.clone(),
            presence: room,
            ..Claims::default()
        };
        let token = make_token(&config.auth, "main", None, &claims).expect("a token");
        Self {
            label: format!("member {number}, {id}"),
            id,
            token,
            http: None,
            frames: Frames::default(),
            is_open: false,
            live: false,
            position: None,
            cursors: [Cursor::default(); 2],
            known: None,
            sent: 0,
        }
    }

    pub fn act(&mut self, place: &Place, random: &mut Random, oracle: &mut Oracle) {
        self.hear(oracle);
        let Some(http) = &mut self.http else {
            if random.chance(0.5) {
                self.http = Some(place.visit());
                self.ask();
            }
            return;
        };
        match random.below(60) {
            0 => self.leave(random),
            1 => http.peer.stall(),
            2..=6 => http.peer.unstall(),
            7..=9 if self.live => self.publish(),
            _ if !http.waits() && random.chance(0.5) => self.ask(),
            _ => {}
        }
    }

    pub fn calm_down(&mut self) {
        if let Some(http) = &mut self.http {
            http.calm_down();
        }
    }

    fn leave(&mut self, random: &mut Random) {
        if let Some(mut http) = self.http.take()
            && random.chance(0.5)
        {
            http.peer.vanish();
        }
        self.lost();
    }

    fn lost(&mut self) {
        self.http = None;
        (self.is_open, self.live) = (false, false);
        self.frames.clear();
    }

    /// Requests the list of members, or, once that is known, later joins and leaves.
    fn ask(&mut self) {
        let Some(http) = &mut self.http else { return };
        let token = &self.token;
        match (&self.known, &self.position) {
            (Some(_), Some(position)) => {
                http.get(&format!("/channels/{ROOM}?presence=1&after={position}&token={token}"), UPGRADE);
            }
            _ => http.get(&format!("/channels/{ROOM}/presence?token={token}"), ""),
        }
    }

    fn publish(&mut self) {
        self.sent += 1;
        let data = format!("{ROOM}-{}-{}", self.label, self.sent);
        let message = json!({"type": "publish", "channel": ROOM, "data": data}).to_string();
        if let Some(http) = &mut self.http {
            http.say(&message);
        }
    }

    pub fn hear(&mut self, oracle: &mut Oracle) {
        while let Some(answer) = self.http.as_mut().and_then(Http::next) {
            match answer {
                Answer::Over => self.lost(),
                Answer::Stream => self.is_open = true,
                Answer::Data(bytes) => {
                    self.frames.push(&bytes);
                    while let Some(frame) = self.frames.next(&mut self.http) {
                        self.frame(frame, oracle);
                    }
                }
                Answer::Whole { status: 200, body } => {
                    let who: Value = serde_json::from_slice(&body).expect("JSON");
                    let members = who["members"].as_array().expect("members");
                    let id = |member: &Value| member["id"].as_str().expect("a name").to_owned();
                    self.known = Some(members.iter().map(id).collect());
                    let position = who["position"].as_str().expect("a position");
                    self.cursors = [0, 1].map(|index| Cursor(Some(spots(position)[index])));
                    self.position = Some(position.to_owned());
                }
                Answer::Whole { status, body } => {
                    let text = String::from_utf8_lossy(&body);
                    assert!(matches!(status, 503 | 507 | 408), "{}: {status} {text}", self.label);
                }
                Answer::StreamEnd => panic!("{}: there is no such end", self.label),
            }
        }
    }

    fn frame(&mut self, frame: Frame, oracle: &mut Oracle) {
        match frame {
            Frame::Reply(reply) => self.reply(&reply, oracle),
            Frame::Close => self.live = false,
        }
    }

    fn reply(&mut self, reply: &Value, oracle: &mut Oracle) {
        for item in reply["items"].as_array().expect("items") {
            self.item(item, oracle);
        }
        match reply["position"].as_str() {
            Some("") | None => {}
            Some(position) => {
                for (cursor, spot) in self.cursors.iter_mut().zip(spots(position)) {
                    cursor.check(&self.label, spot);
                }
                self.position = Some(position.to_owned());
            }
        }
    }

    fn item(&mut self, item: &Value, oracle: &mut Oracle) {
        let index = usize::from(item["of"] == "presence");
        let spot = || -> Spot { spots(item["position"].as_str().expect("a position"))[0] };
        let id = || item["id"].as_str().expect("a name").to_owned();
        let known = self.known.as_mut();
        match item["type"].as_str() {
            Some("hello") => self.live = true,
            Some("message") => {
                self.cursors[0].message(&self.label, spot());
                oracle.saw(ROOM, spot(), item["data"].as_str().expect("text"));
            }
            Some("join") => {
                self.cursors[1].message(&self.label, spot());
                assert!(known.is_none_or(|known| known.insert(id())), "{}: he was there: {item}", self.label);
            }
            Some("leave") => {
                self.cursors[1].message(&self.label, spot());
                assert!(known.is_none_or(|known| known.remove(&id())), "{}: he was not there: {item}", self.label);
            }
            Some("gap") => {
                self.cursors[index].gap(&self.label, item["missed"].as_u64(), spot());
                if index == 1 {
                    self.known = None;
                }
            }
            Some("close" | "bye" | "published" | "error") => {}
            _ => panic!("{}: {item}", self.label),
        }
    }

    /// Returns the name of the member, if it is present.
    pub fn here(&self) -> Option<&str> {
        self.live.then_some(self.id.as_str())
    }

    /// Asserts that the member knows the present ones, once nothing happens any more.
    pub fn check_knows(&self, who: &BTreeSet<String>) {
        if let (true, Some(known)) = (self.live, &self.known) {
            assert_eq!(known, who, "{} knows the present members", self.label);
        }
    }

    pub fn into_peer(self) -> Option<Peer> {
        self.http.map(|http| http.peer)
    }
}
