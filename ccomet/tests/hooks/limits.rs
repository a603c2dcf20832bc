//! Limits of hooks: no client harms others, and a decision that took long is checked again.

use ccomet::WhenDown;
use sealed::sim::Peer;

use super::stage::{self, Backend, Stage, frame, get, post, upgrade};

const ANN: [u8; 4] = [192, 0, 2, 1];
const BOB: [u8; 4] = [192, 0, 2, 2];

fn poll() -> String {
    get("/channels/news?wait=0")
}

fn count(clients: &mut [Peer], text: &str) -> usize {
    clients.iter_mut().map(|client| String::from_utf8_lossy(&client.take()).contains(text)).filter(|has| *has).count()
}

#[test]
fn one_client_cannot_take_all_connections_to_the_back_end() {
    let stage = Stage::new(1, |config| {
        (config.hooks.connections_max, config.hooks.connections_per_address_max) = (4, 2);
    });
    let _greedy: Vec<Peer> = (0..10).map(|_| stage.client_from(ANN, &poll())).collect();
    let held: Vec<Peer> = std::iter::from_fn(|| stage.accept()).collect();
    assert_eq!(held.len(), 2);
    let mut other = stage.client_from(BOB, &poll());
    stage.backend().answer_next(204, "");
    other.expect("\"items\"");
}

#[test]
fn a_client_with_too_many_questions_gets_retry_after_and_others_are_served() {
    let stage = Stage::new(1, |config| {
        (config.hooks.questions_per_address_max, config.hooks.connections_per_address_max) = (3, 1);
        config.hooks.when_down = WhenDown::Allow;
    });
    let mut greedy: Vec<Peer> = (0..8).map(|_| stage.client_from(ANN, &poll())).collect();
    stage.wait(1);
    assert_eq!(count(&mut greedy, "too_many_requests"), 5);
    let mut first = stage.backend();
    let mut other = stage.client_from(BOB, &poll());
    stage.backend().answer_next(204, "");
    other.expect("\"items\"");
    // The rest waits for its turn.
    for _ in 0..3 {
        first.answer_next(204, "");
    }
    stage.wait(1);
    assert_eq!(count(&mut greedy, "\"items\""), 3);
    let mut again = stage.client_from(ANN, &poll());
    first.answer_next(204, "");
    again.expect("\"items\"");
}

#[test]
fn too_many_questions_are_refused_even_if_the_server_allows_when_down() {
    let stage = Stage::new(1, |config| {
        (config.hooks.connections_max, config.hooks.questions_max) = (2, 5);
        config.hooks.when_down = WhenDown::Allow;
    });
    let mut clients: Vec<Peer> = (0..8).map(|_| stage.client(&poll())).collect();
    stage.wait(1);
    assert_eq!(count(&mut clients, "hook_unavailable"), 3);
}

#[test]
fn a_question_that_waited_too_long_is_refused_unless_the_back_end_is_silent() {
    let stage = Stage::new(1, |config| {
        (config.hooks.connections_max, config.hooks.when_down) = (1, WhenDown::Allow);
    });
    let mut clients: Vec<Peer> = (0..4).map(|_| stage.client(&poll())).collect();
    let mut backend = stage.backend();
    stage.wait(1);
    // The back end is slow, but alive: by then, two questions have waited for more than two
    // seconds.
    backend.answer_next(403, "");
    backend.next_question();
    stage.wait(2);
    assert_eq!(count(&mut clients, "hook_unavailable"), 2);
    // A silent back end counts as down.
    stage.wait(5);
    assert_eq!(count(&mut clients, "\"items\""), 1);
    let stage = Stage::new(1, |config| {
        (config.hooks.connections_max, config.hooks.when_down) = (1, WhenDown::Allow);
    });
    let mut clients: Vec<Peer> = (0..4).map(|_| stage.client(&poll())).collect();
    stage.wait(5);
    assert_eq!(count(&mut clients, "\"items\""), 4);
}

#[test]
fn a_kept_connection_closed_by_the_back_end_causes_no_refusal() {
    let end: [fn(Peer); 2] = [|mut peer| peer.finish(), Peer::reset];
    for end in end {
        let stage = Stage::new(1, |_| {});
        let mut client = stage.client(&post("/channels/news", "one"));
        let mut backend = stage.backend();
        backend.answer_next(204, "");
        client.expect("\"position\"");
        client.send(post("/channels/news", "two"));
        backend.next_question();
        end(backend.0);
        let question = stage.backend().answer_next(204, "");
        assert_eq!(question["messages"][0]["data"], "two");
        client.expect("\"position\"");
    }
}

#[test]
fn a_token_that_expires_while_the_back_end_is_asked_opens_nothing() {
    let stage = Stage::new(1, |config| {
        stage::need_tokens(config);
        config.hooks.timeout_ms = 60_000;
    });
    let target = format!("/channels/news?wait=0&token={}", stage.token("news", 5));
    let mut reader = stage.client(&get(&target));
    let mut backend = stage.backend();
    backend.next_question();
    stage.wait(3);
    backend.answer(204, "", "");
    reader.expect("\"items\"");
    reader.send(get(&target));
    backend.next_question();
    stage.wait(3);
    backend.answer(204, "", "");
    reader.expect("token_expired");
}

#[test]
fn a_publication_on_a_websocket_whose_token_expires_meanwhile_is_not_published() {
    let stage = Stage::new(1, |config| {
        stage::need_tokens(config);
        (config.hooks.timeout_ms, config.hooks.subscribe) = (60_000, false);
    });
    let mut socket = stage.client(&upgrade(&format!("/channels/news?token={}", stage.token("news", 5))));
    socket.expect("hello");
    socket.send(frame(r#"{"type":"publish","channel":"news","data":"late"}"#));
    let mut backend: Backend = stage.backend();
    backend.next_question();
    stage.wait(6);
    backend.answer(204, "", "");
    stage.wait(1);
    let mut admin = stage.sim.connect(stage.server.admin());
    admin.send("GET /channels/news/history HTTP/1.1\r\nHost: x\r\n\r\n");
    stage.wait(1);
    let history = String::from_utf8_lossy(&admin.take()).into_owned();
    assert!(history.contains("HTTP/1.1 ") && !history.contains("late"), "{history}");
}
