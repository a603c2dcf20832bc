//! Tokens on the wire, and attempts to evade them. On the simulated network, so that hours take no
//! time.

mod common;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ccomet::{Anonymous, Claims, Config, Key, make_token};
use common::Reply;
use common::stage::{LOOPBACK, Stage, bearer, is_fine, key, patterns};

impl Stage {
    fn of(change: impl FnOnce(&mut Config)) -> Self {
        Self::new(|config| {
            config.auth.keys = vec![key("main")];
            change(config);
        })
    }

    /// Returns a token to read and publish to channels that begin with `a`, for a minute.
    fn token(&self) -> String {
        self.sign(&self.claims())
    }

    fn claims(&self) -> Claims {
        self.claims_for("a*", 60)
    }

    fn ask(&self, method: &str, target: &str, headers: &str) -> Reply {
        self.ask_with(method, target, headers, "")
    }

    fn ask_with(&self, method: &str, target: &str, headers: &str, body: &str) -> Reply {
        let fields = format!("Host: comet.example\r\n{headers}");
        self.exchange(&mut self.connect(LOOPBACK), method, target, &fields, body)
    }

    fn assert_refused(&self, token: &str, status: u16, code: &str) {
        for (method, target) in [("POST", "/channels/a"), ("GET", "/channels/a?wait=0")] {
            let answer = self.ask(method, target, &bearer(token));
            assert!(answer.is(status, code), "{method}: {answer}");
            assert_eq!(answer.header("www-authenticate") == Some("Bearer"), status == 401, "{answer}");
        }
    }
}

#[test]
fn a_token_opens_its_channels_by_header_query_and_cookie() {
    let stage = Stage::of(|_| {});
    let token = stage.token();
    let cookie = format!("Cookie: x=1; ccomet_token={token}\r\n");
    assert!(is_fine(&stage.ask("POST", "/channels/a", &bearer(&token))));
    assert!(is_fine(&stage.ask("GET", "/channels/a,ab?wait=0", &bearer(&token))));
    assert!(is_fine(&stage.ask("GET", "/channels/a?wait=0", &cookie)));
    assert!(is_fine(&stage.ask("GET", &format!("/channels/a?wait=0&token={token}"), "")));
    assert!(is_fine(&stage.ask("GET", &format!("/channels/a?publish=x&callback=f&token={token}"), "")));
    // The same token in two places is one token.
    assert!(is_fine(&stage.ask("GET", "/channels/a?wait=0", &format!("{cookie}{}", bearer(&token)))));
    // Other authorization schemes are ignored.
    assert!(is_fine(&stage.ask("GET", "/channels/a?wait=0", &format!("Authorization: Basic eDp5\r\n{cookie}"))));
    // The admin listener needs no token.
    assert!(is_fine(&stage.exchange(&mut stage.admin(), "POST", "/channels/z", "", "")));
}

#[test]
fn without_a_token_nothing_is_allowed_and_jsonp_gets_the_error_too() {
    let stage = Stage::of(|_| {});
    for (method, target) in [("POST", "/channels/a"), ("GET", "/channels/a?wait=0")] {
        let answer = stage.ask(method, target, "");
        assert!(answer.is(401, "token_missing"), "{answer}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{answer}");
    }
    let script = stage.ask("GET", "/channels/a?callback=f", "");
    assert!(is_fine(&script) && script.contains("token_missing"), "{script}");
    // The classic API does not evade tokens.
    for target in ["/sign?channel=a&sname=x&callback=f", "/publish?channel=a&sname=x&msg=x&callback=f"] {
        assert!(stage.ask("GET", target, "").status == 401, "{target}");
        assert!(is_fine(&stage.ask("GET", &format!("{target}&token={}", stage.token()), "")), "{target}");
    }
    assert!(stage.ask("GET", "/subscribe?channel=a&sname=x&seqid=0&callback=f", "").status == 401);
}

#[test]
fn clients_without_a_token_may_do_what_the_settings_allow() {
    let anonymous = Anonymous { subscribe: patterns(&["public.*"]), ..Anonymous::default() };
    let stage = Stage::of(|config| config.auth.anonymous = Some(anonymous));
    assert!(is_fine(&stage.ask("GET", "/channels/public.x?wait=0", "")));
    assert!(stage.ask("GET", "/channels/public.x,a?wait=0", "").status == 401);
    assert!(stage.ask("POST", "/channels/public.x", "").status == 401);
}

#[test]
fn a_token_for_one_channel_does_not_open_another() {
    let stage = Stage::of(|_| {});
    let token = stage.token();
    for (method, target) in [("POST", "/channels/b"), ("GET", "/channels/b?wait=0"), ("GET", "/channels/a,b?wait=0")] {
        let answer = stage.ask(method, target, &bearer(&token));
        assert!(answer.is(403, "not_allowed"), "{target}: {answer}");
    }
    let reader = stage.sign(&Claims { publish: Vec::new(), ..stage.claims() });
    assert!(is_fine(&stage.ask("GET", "/channels/a?wait=0", &bearer(&reader))));
    assert!(stage.ask("POST", "/channels/a", &bearer(&reader)).status == 403);
}

#[test]
fn an_expired_token_opens_nothing() {
    let stage = Stage::of(|_| {});
    let token = stage.token();
    stage.sim.run_for(Duration::from_secs(61));
    stage.assert_refused(&token, 401, "token_expired");
}

#[test]
fn a_token_of_the_future_opens_nothing() {
    let stage = Stage::of(|_| {});
    let day = stage.now_s() + 86_400;
    let body = format!(r#"{{"exp":{},"nbf":{day},"publish":["*"],"subscribe":["*"]}}"#, day + 60);
    let token = by_hand(r#"{"alg":"HS256"}"#, &body, "main");
    stage.assert_refused(&token, 401, "token_not_yet");
}

#[test]
fn an_unsigned_token_opens_nothing() {
    let stage = Stage::of(|_| {});
    let good = stage.token();
    let body = good.split('.').nth(1).expect("a body");
    for alg in ["none", "None", "NONE", ""] {
        let header = BASE64.encode(format!(r#"{{"alg":"{alg}","kid":"main"}}"#));
        stage.assert_refused(&format!("{header}.{body}."), 401, "token_invalid");
    }
}

#[test]
fn a_token_of_a_wrong_or_unknown_key_opens_nothing() {
    let stage = Stage::of(|config| config.auth.keys.push(key("second")));
    let token = stage.token();
    let parts: Vec<&str> = token.split('.').collect();
    for kid in [r#","kid":"second""#, r#","kid":"third""#, r#","kid":"""#, ""] {
        let header = BASE64.encode(format!(r#"{{"typ":"JWT","alg":"HS256"{kid}}}"#));
        stage.assert_refused(&format!("{header}.{}.{}", parts[1], parts[2]), 401, "token_invalid");
    }
    let mut auth = stage.config.auth.clone();
    auth.keys = vec![key("third")];
    let unknown = make_token(&auth, "third", None, &stage.claims()).expect("a token");
    stage.assert_refused(&unknown, 401, "token_invalid");
    let body = format!(r#"{{"exp":{},"publish":["*"],"subscribe":["*"]}}"#, stage.now_s() + 60);
    let unnamed = by_hand(r#"{"alg":"HS256"}"#, &body, "main");
    stage.assert_refused(&unnamed, 401, "token_invalid");
}

#[test]
fn the_public_key_is_not_taken_for_a_secret() {
    // Any 32 bytes; the attack needs no private key.
    let public = BASE64.encode([9; 32]);
    let stage = Stage::of(|config| {
        let algorithm = ccomet::Algorithm::EdDSA;
        config.auth.keys = vec![Key { id: "e".to_owned(), algorithm, public_key: Some(public), ..Key::default() }];
    });
    let body = format!(r#"{{"exp":{},"publish":["*"],"subscribe":["*"]}}"#, stage.now_s() + 60);
    for header in [r#"{"alg":"HS256","kid":"e"}"#, r#"{"alg":"EdDSA","kid":"e"}"#] {
        stage.assert_refused(&hmac(header, &body, &[9; 32]), 401, "token_invalid");
    }
}

#[test]
fn a_tampered_token_opens_nothing() {
    let stage = Stage::of(|_| {});
    let token = stage.token();
    let parts: Vec<&str> = token.split('.').collect();
    let body = String::from_utf8(BASE64.decode(parts[1]).expect("Base64")).expect("text");
    let wider = BASE64.encode(body.replace("a*", "*"));
    stage.assert_refused(&format!("{}.{wider}.{}", parts[0], parts[2]), 401, "token_invalid");
    stage.assert_refused(&format!("{token}x"), 401, "token_invalid");
}

#[test]
fn two_different_tokens_are_refused() {
    let stage = Stage::of(|_| {});
    let (one, other) = (stage.token(), stage.sign(&Claims { sub: Some("ann".to_owned()), ..stage.claims() }));
    let both = format!("{}Cookie: ccomet_token={other}\r\n", bearer(&one));
    assert!(stage.ask("GET", "/channels/a?wait=0", &both).contains("token_invalid"));
    assert!(stage.ask("GET", &format!("/channels/a?wait=0&token={other}"), &bearer(&one)).contains("token_invalid"));
    let cookies = format!("Cookie: ccomet_token={one}; ccomet_token={other}\r\n");
    assert!(stage.ask("GET", "/channels/a?wait=0", &cookies).contains("token_invalid"));
}

#[test]
fn a_cookie_does_not_publish_for_pages_of_other_origins() {
    let listed = "https://listed.example";
    let stage = Stage::of(|config| config.front.origins = vec![listed.to_owned()]);
    let cookie = format!("Cookie: ccomet_token={}\r\n", stage.token());
    for (origin, allowed) in [
        ("Origin: https://comet.example\r\n", true),
        ("Origin: https://listed.example\r\n", true),
        ("Origin: https://evil.example\r\n", false),
        ("Origin: https://comet.example.evil.example\r\n", false),
        ("Origin: https://comet.example\r\nOrigin: https://evil.example\r\n", false),
        ("Origin: null\r\n", false),
        ("", false),
    ] {
        let answer = stage.ask("POST", "/channels/a", &format!("{cookie}{origin}"));
        assert_eq!(is_fine(&answer), allowed, "{origin}: {answer}");
        let several = r#"{"messages":[{"channels":["a"],"data":"x"}]}"#;
        let json = format!("{cookie}{origin}Content-Type: application/json\r\n");
        let answer = stage.ask_with("POST", "/messages", &json, several);
        assert_eq!(is_fine(&answer), allowed, "{origin}: {answer}");
        // It is refused before the body is read.
        let mut peer = stage.connect(LOOPBACK);
        peer.send(format!("POST /messages HTTP/1.1\r\nHost: comet.example\r\n{json}Content-Length: 1000\r\n\r\n"));
        let unread = stage.received(&mut peer);
        assert_eq!(unread.starts_with("HTTP/1.1 403 "), !allowed, "{origin}: {unread}");
    }
    // A script tag sends the cookie, and no origin: it neither publishes nor reads.
    for target in ["/channels/a?publish=x&callback=f", "/channels/a?wait=0&callback=f"] {
        let answer = stage.ask("GET", target, &cookie);
        assert!(answer.contains("not_allowed"), "{target}: {answer}");
    }
    // `*` lists no origin by name.
    let open = Stage::of(|config| config.front.origins = vec!["*".to_owned()]);
    let cookie = format!("Cookie: ccomet_token={}\r\n", open.token());
    let answer = open.ask("POST", "/channels/a", &format!("{cookie}Origin: https://evil.example\r\n"));
    assert!(answer.status == 403, "{answer}");
}

#[test]
fn credentials_are_allowed_for_listed_origins_only() {
    const CREDENTIALS_ALLOWED: &str = "Access-Control-Allow-Credentials: true\r\n";
    let stage = Stage::of(|config| config.front.origins = vec!["https://listed.example".to_owned()]);
    for method in ["GET", "OPTIONS"] {
        let ask = |origin: &str| stage.ask(method, "/channels/a?wait=0", &format!("Origin: {origin}\r\n"));
        assert!(ask("https://listed.example").contains(CREDENTIALS_ALLOWED), "{method}");
        assert!(!ask("https://evil.example").contains(CREDENTIALS_ALLOWED), "{method}");
    }
    let open = Stage::of(|config| config.front.origins = vec!["*".to_owned()]);
    for origin in ["https://evil.example", "*"] {
        for method in ["GET", "OPTIONS"] {
            let answer = open.ask(method, "/channels/a?wait=0", &format!("Origin: {origin}\r\n"));
            assert!(!answer.contains(CREDENTIALS_ALLOWED), "{method} {origin}: {answer}");
        }
    }
}

#[test]
fn a_stream_is_warned_and_ends_with_its_token() {
    let stage = Stage::of(|_| {});
    let fields = format!("Accept: text/event-stream\r\n{}", bearer(&stage.token()));
    let mut peer = stage.begin(LOOPBACK, "GET", "/channels/a", &fields);
    peer.expect("event: hello");
    stage.sim.run_for(Duration::from_secs(29));
    assert!(!stage.received(&mut peer).contains("event: token"), "too early");
    assert_eq!(stage.server.holdings().leases, 1);
    stage.sim.run_for(Duration::from_secs(2));
    let answers = stage.received(&mut peer);
    assert_eq!(
        answers.matches("event: token\ndata: {\"type\":\"token\",\"expires_in_s\":30}\n").count(),
        1,
        "{answers}"
    );
    stage.sim.run_for(Duration::from_secs(28));
    let answers = stage.received(&mut peer);
    assert!(!answers.contains("event: token") && !answers.contains("event: close"), "{answers}");
    stage.sim.run_for(Duration::from_secs(2));
    let answers = stage.received(&mut peer);
    let end = "event: close\ndata: {\"type\":\"close\",\"reason\":\"token_expired\"}\n\n\r\n0\r\n\r\n";
    assert!(answers.ends_with(end), "{answers}");
    let holdings = stage.server.holdings();
    assert_eq!((holdings.leases, holdings.subscribers), (0, 0));
}

#[test]
fn a_poll_does_not_outlast_its_token() {
    let stage = Stage::of(|_| {});
    let short = stage.sign(&stage.claims_for("a*", 5));
    let mut peer = stage.begin(LOOPBACK, "GET", "/channels/a?wait=30", &bearer(&short));
    stage.sim.run_for(Duration::from_secs(6));
    assert!(is_fine(&stage.reply(&mut peer)));
}

/// Returns a token with these parts, signed with the secret of the key of that id.
fn by_hand(header: &str, body: &str, id: &str) -> String {
    hmac(header, body, format!("a secret long enough, for key {id}").as_bytes())
}

fn hmac(header: &str, body: &str, secret: &[u8]) -> String {
    let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(body));
    let signature = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", BASE64.encode(signature))
}

#[test]
fn a_refused_token_is_answered_with_its_wrong_claim_and_nothing_about_its_signature() {
    let stage = Stage::of(|config| config.auth.audience = Some("us".to_owned()));
    let detail = |token: &str| {
        let answer = stage.ask("POST", "/channels/a", &bearer(token));
        assert!(answer.is(401, "token_invalid"), "{answer}");
        answer.text().split("\"detail\":").nth(1).expect("a sentence").to_owned()
    };
    assert!(detail(&stage.token()).contains("'aud'"));
    let claims = Claims { aud: Some("us".to_owned()), ..stage.claims() };
    let mut parts: Vec<String> = stage.sign(&claims).split('.').map(str::to_owned).collect();
    parts[2] = BASE64.encode([0; 32]);
    let forged = detail(&parts.join("."));
    assert!(forged.contains("not signed by a key of this server"), "{forged}");
    assert_eq!(detail("nonsense"), forged, "malformed tokens get the same answer");
}

#[test]
fn an_idempotency_key_belongs_to_its_subject() {
    let stage = Stage::of(|_| {});
    let publish = |subject: Option<&str>, body: &str| {
        let claims = Claims { sub: subject.map(str::to_owned), ..stage.claims() };
        let headers = format!("{}Idempotency-Key: k\r\n", bearer(&stage.sign(&claims)));
        stage.ask_with("POST", "/channels/a", &headers, body)
    };
    assert!(is_fine(&publish(Some("mallory"), "squatted")));
    assert!(is_fine(&publish(Some("ann"), "hello")), "neither refused nor taken for the other");
    assert!(is_fine(&publish(None, "nobody's")));
    assert!(is_fine(&publish(Some("ann"), "hello")), "a retry is kept once");
    assert!(publish(Some("ann"), "other").status == 422);
    let kept = stage.ask("GET", "/channels/a?after=oldest&wait=0", &bearer(&stage.token()));
    for text in ["squatted", "hello", "nobody's"] {
        assert_eq!(kept.text().matches(text).count(), 1, "{text}: {kept}");
    }
}

#[test]
fn publishing_to_a_pattern_requires_permission_to_read_it() {
    let stage = Stage::of(|_| {});
    let publish = |subscribe: &[&str]| {
        let claims = Claims { subscribe: patterns(subscribe), ..stage.claims() };
        stage.ask("POST", "/channels/a.*", &bearer(&stage.sign(&claims)))
    };
    for too_little in [&[][..], &["a.b"]] {
        let refused = publish(too_little);
        assert!(refused.is(403, "not_allowed"), "{refused}");
    }
    assert!(is_fine(&publish(&["a.*"])));
}

#[test]
fn a_token_whose_issuers_clock_is_ahead_is_accepted() {
    let stage = Stage::of(|_| {});
    // `Claims` has no `nbf`, so that the test signs the body itself.
    let sign = |nbf: u64| {
        let claims = serde_json::json!({"exp": stage.now_s() + 600, "nbf": nbf, "publish": ["a"]});
        let header = BASE64.encode(r#"{"alg":"HS256","kid":"main"}"#);
        let message = format!("{header}.{}", BASE64.encode(claims.to_string()));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"a secret long enough, for key main");
        format!("{message}.{}", BASE64.encode(ring::hmac::sign(&key, message.as_bytes())))
    };
    assert!(is_fine(&stage.ask("POST", "/channels/a", &bearer(&sign(stage.now_s() + 1)))));
    let early = stage.ask("POST", "/channels/a", &bearer(&sign(stage.now_s() + 120)));
    assert!(early.is(401, "token_not_yet"), "{early}");
}

#[test]
fn a_token_that_expires_while_its_body_is_in_transit_publishes_nothing() {
    let stage = Stage::of(|_| {});
    for target in ["/channels/a", "/messages"] {
        let body = r#"{"messages":[{"channel":"a","data":"late"}]}"#;
        let token = bearer(&stage.sign(&stage.claims_for("a*", 10)));
        let mut peer = stage.connect(LOOPBACK);
        let head =
            format!("POST {target} HTTP/1.1\r\nHost: comet.example\r\nContent-Length: {}\r\n{token}", body.len());
        peer.send(format!("{head}\r\n{}", &body[..1]));
        stage.sim.run_for(Duration::from_secs(12));
        peer.send(&body[1..]);
        let reply = stage.reply(&mut peer);
        assert!(reply.is(401, "token_expired"), "{target}: {reply}");
    }
}

#[test]
fn head_of_a_channel_requires_permission_to_read_it() {
    let stage = Stage::of(|_| {});
    let mine = bearer(&stage.token());
    for (target, headers, expected) in [
        ("/channels/a?wait=0", mine.as_str(), 200),
        ("/channels/a?wait=0", "", 401),
        ("/channels/b?wait=0", mine.as_str(), 403),
        ("/channels/a,b?wait=0", mine.as_str(), 403),
        ("/channels/a?wait=0", "Authorization: Bearer x.y.z\r\n", 401),
    ] {
        let answers = ["GET", "HEAD"].map(|method| stage.ask(method, target, headers).status);
        assert_eq!(answers, [expected; 2], "{target} {headers}");
    }
}
