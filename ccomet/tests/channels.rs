//! Queries and operations on channels: history page by page, the list, information, clearing.

mod common;

use common::{Client, Local, Reply, config, wait_until};

/// The numbers of loops of the tests: one, and several, where a channel's home may be another loop
/// than the client's.
const LOOPS: [usize; 2] = [1, 3];

fn delete(client: &mut Client, target: &str) -> Reply {
    client.ask("DELETE", target, "");
    client.reply()
}

/// Returns all pages of a channel's history from an edge on, as the messages of each page.
fn pages(client: &mut Client, channel: &str, limit: usize, direction: &str, edge: &str) -> Vec<Vec<String>> {
    let (mut pages, mut edge) = (Vec::new(), edge.to_owned());
    loop {
        let reply = client.get(&format!("/channels/{channel}/history?limit={limit}&{direction}={edge}"));
        pages.push(reply.messages());
        if reply.json()["more"] == false {
            return pages;
        }
        edge = reply.position();
    }
}

#[test]
fn history_is_read_page_by_page_in_either_direction() {
    for loops in LOOPS {
        let server = Local::start(config(loops));
        let mut client = Client::connect(server.front);
        let positions: Vec<String> = (0..5).map(|n| client.publish("news", n.to_string())).collect();
        assert_eq!(pages(&mut client, "news", 2, "after", "oldest"), [vec!["0", "1"], vec!["2", "3"], vec!["4"]]);
        assert_eq!(pages(&mut client, "news", 2, "before", "latest"), [vec!["4", "3"], vec!["2", "1"], vec!["0"]]);
        assert_eq!(pages(&mut client, "news", 5, "before", "latest"), [["4", "3", "2", "1", "0"]]);
        // A position is a place between two messages.
        assert_eq!(pages(&mut client, "news", 9, "after", &positions[2]), [["3", "4"]]);
        assert_eq!(pages(&mut client, "news", 9, "before", &positions[2]), [["2", "1", "0"]]);
        let newest = client.get("/channels/news/history?limit=1");
        assert_eq!((newest.messages(), &newest.json()["more"]), (vec!["4".to_owned()], &true.into()));
        let item = &newest.json()["items"][0];
        assert_eq!((&item["type"], item["position"].as_str()), (&"message".into(), Some(positions[4].as_str())));
        // After the end of the history, a page continues with new messages.
        let end = client.get("/channels/news/history?after=oldest").position();
        client.publish("news", "5");
        assert_eq!(client.get(&format!("/channels/news?wait=0&after={end}")).messages(), ["5"]);
    }
}

#[test]
fn a_page_reports_gaps_and_omits_expired_messages() {
    let mut settings = config(1);
    settings.history.messages_max = 3;
    settings.limits.batch_bytes_max = 100;
    let server = Local::start(settings);
    let mut client = Client::connect(server.front);
    let first = client.publish("news", "0");
    for n in 1..6 {
        client.publish("news", n.to_string());
    }
    let page = client.get(&format!("/channels/news/history?after={first}")).json();
    assert_eq!((&page["items"][0]["type"], &page["items"][0]["missed"]), (&"gap".into(), &2.into()));
    assert_eq!(page["items"][1]["data"], "3");
    assert_eq!(client.post("/channels/short?ttl=1", "x").status, 200);
    wait_until("its time is over", || client.get("/channels/short/history").messages().is_empty());
    let long = "x".repeat(90);
    for _ in 0..3 {
        client.publish("long", &long);
    }
    assert_eq!(pages(&mut client, "long", 9, "after", "oldest"), [[long.as_str()]; 3], "by bytes, too");
    let (half, longer) = ("x".repeat(50), "x".repeat(150));
    for text in [&half, &half, &longer] {
        client.publish("mixed", text);
    }
    let expected = [vec![half.as_str(), half.as_str()], vec![longer.as_str()]];
    assert_eq!(pages(&mut client, "mixed", 9, "after", "oldest"), expected, "100 bytes fit, and one message always");
}

#[test]
fn a_page_of_history_has_a_gap_only_if_something_is_missing() {
    let mut settings = config(1);
    settings.history.messages_max = 2;
    let server = Local::start(settings);
    let mut client = Client::connect(server.admin);
    let positions: Vec<String> = (0..4).map(|n| client.publish("news", n.to_string())).collect();
    let items =
        |client: &mut Client, edge: &str| client.get(&format!("/channels/news/history?{edge}")).json()["items"].clone();
    // The channel keeps 2 and 3.
    for (position, missed, first) in [(0, Some(1), "2"), (1, None, "2"), (2, None, "3")] {
        let items = items(&mut client, &format!("after={}", positions[position]));
        let gap = items.get(0).filter(|item| item["type"] == "gap");
        assert_eq!(gap.map(|gap| &gap["missed"]), missed.map(serde_json::Value::from).as_ref(), "{items}");
        assert_eq!(items[usize::from(gap.is_some())]["data"], first, "{items}");
    }
    assert_eq!(items(&mut client, &format!("after={}", positions[3])), serde_json::json!([]));
    // A position of the channel before it was closed means nothing in the new one.
    assert_eq!(delete(&mut client, "/channels/news").status, 204);
    let new = client.publish("news", "new");
    for edge in [format!("after={}", positions[0]), format!("before={}", positions[3])] {
        let items = items(&mut client, &edge);
        assert_eq!((&items[0]["type"], &items[0]["missed"]), (&"gap".into(), &serde_json::Value::Null), "{items}");
        assert_eq!(items[1]["data"], "new", "{items}");
    }
    // Nor does a later number of an earlier channel.
    assert_eq!(items(&mut client, &format!("after={new}")), serde_json::json!([]));
}

#[test]
fn a_new_subscriber_may_request_the_last_messages() {
    for loops in LOOPS {
        let server = Local::start(config(loops));
        let mut client = Client::connect(server.front);
        for n in 0..5 {
            client.publish("news", n.to_string());
        }
        client.publish("sport", "goal");
        let mut stream = Client::connect(server.front).events("/channels/news?last=2", "");
        assert_eq!([stream.next().message(), stream.next().message()], ["3", "4"]);
        assert!(stream.client.is_silent());
        assert_eq!(client.get("/channels/news,sport?last=1").messages(), ["4", "goal"]);
        assert_eq!(client.get("/channels/news?last=99").messages(), ["0", "1", "2", "3", "4"]);
        assert_eq!(client.get("/channels/news?last=0&wait=0").messages(), Vec::<String>::new());
        // The position that a stream resumes from overrides `last`.
        let header = format!("Last-Event-ID: {}\r\n", client.get("/channels/news?last=1").position());
        let mut resumed = Client::connect(server.front).events("/channels/news?last=2", &header);
        client.publish("news", "5");
        assert_eq!(resumed.next().message(), "5");
    }
}

#[test]
fn channels_are_listed_page_by_page_and_shown_singly() {
    for loops in LOOPS {
        let server = Local::start(config(loops));
        let mut admin = Client::connect(server.admin);
        let names = ["a", "b.1", "b.2", "b.3", "c"];
        for name in names {
            admin.publish(name, "hello");
        }
        let position = admin.publish("b.2", "again");
        let _stream = Client::connect(server.admin).events("/channels/b.2,b.*", "");
        let mut list = |query: &str| {
            let reply = admin.get(&format!("/channels?{query}")).json();
            let channels = reply["channels"].as_array().expect("channels").clone();
            let names: Vec<String> =
                channels.iter().map(|channel| channel["channel"].as_str().expect("a name").to_owned()).collect();
            (names, reply["next"].as_str().map(str::to_owned))
        };
        assert_eq!(list(""), (names.map(str::to_owned).to_vec(), None));
        assert_eq!(list("limit=2"), (vec!["a".to_owned(), "b.1".to_owned()], Some("b.1".to_owned())));
        assert_eq!(list("limit=2&after=b.1"), (vec!["b.2".to_owned(), "b.3".to_owned()], Some("b.3".to_owned())));
        assert_eq!(list("limit=2&after=b.3"), (vec!["c".to_owned()], None));
        assert_eq!(list("pattern=b.*&limit=3").0, ["b.1", "b.2", "b.3"]);

        wait_until("its subscriber is counted", || {
            let info = admin.get("/channels/b.2/info").json();
            assert_eq!((&info["messages"], info["position"].as_str()), (&2.into(), Some(position.as_str())));
            assert!(info["bytes"].as_u64() > Some(10), "{info}");
            info["subscribers"] == 1
        });
        let none = admin.get("/channels/nobody/info");
        assert_eq!((none.status, &none.json()["code"]), (404, &"unknown_channel".into()));
        // The front has none of these.
        let mut front = Client::connect(server.front);
        assert_eq!((front.get("/channels").status, front.get("/channels/a/info").status), (404, 404));
    }
}

#[test]
fn a_cleared_channel_continues() {
    for loops in LOOPS {
        let server = Local::start(config(loops));
        let mut admin = Client::connect(server.admin);
        let first = admin.publish("news", "old");
        let mut stream = Client::connect(server.front).events("/channels/news", "");
        admin.publish("news", "older");
        assert_eq!(delete(&mut admin, "/channels/news/history").status, 204);
        admin.publish("news", "new");
        assert_eq!([stream.next().message(), stream.next().message()], ["older", "new"]);
        let page = admin.get(&format!("/channels/news/history?after={first}")).json();
        assert_eq!((&page["items"][0]["missed"], &page["items"][1]["data"]), (&1.into(), &"new".into()));
        assert_eq!(delete(&mut admin, "/channels/nobody/history").status, 404);
    }
}
