//! Files of a directory, served on the simulated network: paths, conditions, ranges, codings, and
//! clients that take a file slowly or not at all.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use sealed::sim::{Faults, Link, Peer, Simulation};
use sealed::{Config, Workers};
use sealed_http::site::Directory;
use sealed_http::{Server, Settings, Site};
use testing::Folder;
use testing::http::{Reply, request};
use testing::sim::{Served, ask};

const SECOND: Duration = Duration::from_secs(1);
/// A file that is sent in many pieces.
const LARGE: usize = 500_003;

fn large() -> Vec<u8> {
    (0..LARGE as u32).map(|number| (number % 251) as u8).collect()
}

struct Stage {
    folder: Folder,
    run: Served<Site<()>>,
    workers: Workers,
}

fn stage(seed: u64, workers: (usize, usize)) -> Stage {
    let folder = Folder::new("directory");
    fs::create_dir_all(folder.join("public/docs")).expect("a folder");
    fs::create_dir_all(folder.join("public/empty")).expect("a folder");
    fs::create_dir_all(folder.join("public/.well-known")).expect("a folder");
    for (name, text) in [
        ("secret.txt", "outside"),
        ("public/index.html", "home"),
        ("public/a b.txt", "0123456789"),
        ("public/none.txt", ""),
        ("public/.hidden", "hidden"),
        ("public/.well-known/token", "token"),
        ("public/docs/index.html", "documents"),
        ("public/app.js", "let plain;"),
        ("public/app.js.gz", "gzip"),
        ("public/app.js.br", "brotli"),
    ] {
        folder.write(name, text);
    }
    folder.write("public/large.bin", large());
    let sim = Simulation::new(seed);
    let workers = sim.workers(workers.0, workers.1);
    let files = Directory::new(folder.join("public"), &workers).expect("it exists");
    let site =
        Site::new(()).directory("/plain/{path...}", files.clone()).directory("/{path...}", files.precompressed());
    Stage { folder, run: Served::on(&sim, Config::default(), Settings::default(), site), workers }
}

impl Stage {
    /// Connects a client that takes nothing of the large file, which it has requested.
    fn stalled(&self) -> Peer {
        self.run.sim.set_link(Link { buffer_bytes: 16_384, ..Link::default() });
        let mut client = self.run.connect();
        client.stall();
        client.send(request("GET", "/large.bin", "", ""));
        self.run.sim.run_for(SECOND);
        client
    }

    fn get(&self, target: &str, fields: &str) -> Reply {
        ask(&self.run.sim, &mut self.run.connect(), "GET", target, fields, "")
    }
}

fn field<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    reply.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn a_path_names_a_file_below_the_directory_and_nothing_else() {
    let stage = stage(1, (2, 10));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(stage.folder.join("secret.txt"), stage.folder.join("public/out")).expect("a link");
        std::os::unix::fs::symlink(stage.folder.join("public/app.js"), stage.folder.join("public/in")).expect("a link");
        std::os::unix::fs::symlink("loop", stage.folder.join("public/loop")).expect("a link");
        fs::create_dir(stage.folder.join("away")).expect("a folder");
        stage.folder.write("away/index.html", "outside");
        std::os::unix::fs::symlink("../away", stage.folder.join("public/outside")).expect("a link");
        std::os::unix::net::UnixListener::bind(stage.folder.join("public/socket")).expect("a socket");
    }
    let found = [
        ("/", "home"),
        ("/index.html", "home"),
        ("/a%20b.txt", "0123456789"),
        ("/none.txt", ""),
        ("/docs/", "documents"),
        ("/plain/docs/index.html", "documents"),
        ("/.well-known/token", "token"),
    ];
    for (target, text) in found {
        let reply = stage.get(target, "");
        assert_eq!((reply.status, reply.body), (200, text.as_bytes().to_vec()), "{target}");
    }
    #[cfg(unix)]
    assert_eq!(stage.get("/in", "").body, b"let plain;");
    let hidden = [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/docs/../../secret.txt",
        "/docs/%2e%2e/a%20b.txt",
        "//a%20b.txt",
        "//",
        "/docs//",
        "/docs//index.html",
        "/./index.html",
        "/.hidden",
        "/docs/.well-known/token",
        "/index.html/",
        "/index.html/x",
        "/a%00b",
        "/none",
        "/empty",
        "/empty/",
        "/out",
        "/socket",
        "/docs%5cindex.html",
        // Other spellings of a path, which would evade a route for a part of the directory.
        "/docs%2findex.html",
        "/docs%2F",
        "/%64ocs/index.html",
        "/docs/index%2ehtml",
        "/loop",
        "/outside",
    ];
    for target in hidden {
        let reply = stage.get(target, "");
        assert_eq!(reply.status, 404, "{target}: {}", reply.body.escape_ascii());
    }
    let long = stage.get(&format!("/{}", "x".repeat(300)), "");
    assert_eq!(long.status, 404);
    let moved = stage.get("/docs?a=1", "");
    assert_eq!((moved.status, field(&moved, "Location")), (301, Some("./docs/?a=1")));
    assert!(Directory::new(stage.folder.join("secret.txt"), &stage.workers).is_err());
}

#[test]
fn conditions_are_judged_by_tag_and_date() {
    let stage = stage(1, (2, 10));
    let first = stage.get("/a%20b.txt", "");
    let (tag, date) = (field(&first, "ETag").expect("a tag"), field(&first, "Last-Modified").expect("a date"));
    assert_eq!(field(&first, "Content-Type"), Some("text/plain; charset=utf-8"));
    assert_eq!(field(&first, "Cache-Control"), Some("no-cache"));
    let old = "Thu, 01 Jan 1970 00:00:01 GMT";
    for (fields, status) in [
        (format!("If-None-Match: {tag}\r\n"), 304),
        (format!("If-None-Match: \"x\", W/{tag}\r\n"), 304),
        (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {date}\r\n"), 200),
        (format!("If-Modified-Since: {date}\r\n"), 304),
        (format!("If-Modified-Since: {old}\r\n"), 200),
        ("If-Modified-Since: yesterday\r\n".to_owned(), 200),
        (format!("If-Match: {tag}\r\n"), 200),
        (format!("If-Match: W/{tag}\r\n"), 412),
        ("If-Match: *\r\n".to_owned(), 200),
        ("If-Match: \"x\"\r\n".to_owned(), 412),
        ("If-Match: \"x\", \"y\"\r\nIf-Unmodified-Since: yesterday\r\n".to_owned(), 412),
        (format!("If-Unmodified-Since: {date}\r\n"), 200),
        (format!("If-Unmodified-Since: {old}\r\n"), 412),
    ] {
        let reply = stage.get("/a%20b.txt", &fields);
        assert_eq!(reply.status, status, "{fields}");
        assert_eq!(reply.body.is_empty(), status == 304, "{fields}");
    }
    stage.folder.write("public/a b.txt", "9876543210");
    let later = SystemTime::now() + SECOND;
    File::options()
        .append(true)
        .open(stage.folder.join("public/a b.txt"))
        .and_then(|file| file.set_modified(later))
        .expect("a file");
    let changed = stage.get("/a%20b.txt", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!((changed.status, &changed.body[..]), (200, &b"9876543210"[..]));
}

#[test]
fn a_range_gets_its_part() {
    let stage = stage(1, (2, 10));
    let tag = field(&stage.get("/a%20b.txt", ""), "ETag").expect("a tag").to_owned();
    for (range, status, body, content_range) in [
        ("bytes=0-3", 206, "0123", Some("bytes 0-3/10")),
        ("bytes=4-", 206, "456789", Some("bytes 4-9/10")),
        ("bytes=8-100", 206, "89", Some("bytes 8-9/10")),
        ("bytes=-3", 206, "789", Some("bytes 7-9/10")),
        ("bytes=-30", 206, "0123456789", Some("bytes 0-9/10")),
        ("bytes=9-9", 206, "9", Some("bytes 9-9/10")),
        ("bytes=10-", 416, "", Some("bytes */10")),
        ("bytes=-0", 416, "", Some("bytes */10")),
        ("bytes=3-2", 200, "0123456789", None),
        ("bytes=0-1,3-4", 200, "0123456789", None),
        ("bytes=+1-2", 200, "0123456789", None),
        ("bytes=99999999999999999999-", 200, "0123456789", None),
        ("lines=0-3", 200, "0123456789", None),
        ("bytes", 200, "0123456789", None),
    ] {
        let reply = stage.get("/a%20b.txt", &format!("Range: {range}\r\n"));
        assert_eq!((reply.status, field(&reply, "Content-Range")), (status, content_range), "{range}");
        assert!(status == 416 || reply.body == body.as_bytes(), "{range}");
    }
    let if_range = |validator: &str| stage.get("/a%20b.txt", &format!("Range: bytes=0-0\r\nIf-Range: {validator}\r\n"));
    assert_eq!(if_range(&tag).status, 206);
    assert_eq!(if_range(&format!("W/{tag}")).status, 200);
    assert_eq!(if_range("\"x\"").status, 200);
    let date = field(&stage.get("/a%20b.txt", ""), "Last-Modified").expect("a date").to_owned();
    assert_eq!(if_range(&date).status, 200, "it may have changed within the same second");
    assert_eq!(stage.get("/none.txt", "Range: bytes=0-0\r\n").status, 416);
    assert_eq!(stage.get("/none.txt", "Range: bytes=-1\r\n").status, 200);
    let part = stage.get("/large.bin", "Range: bytes=1000-400000\r\n");
    assert_eq!(part.status, 206);
    assert!(part.body == large()[1_000..=400_000]);
}

#[test]
fn a_precompressed_file_is_sent_to_those_who_accept_it() {
    let stage = stage(1, (2, 10));
    for (target, accepted, coding, body) in [
        ("/app.js", "gzip, deflate, br", Some("br"), "brotli"),
        ("/app.js", "gzip", Some("gzip"), "gzip"),
        ("/app.js", "br;q=0, gzip;q=0.5", Some("gzip"), "gzip"),
        ("/app.js", "zstd", None, "let plain;"),
        ("/app.js", "identity", None, "let plain;"),
        ("/plain/app.js", "gzip, br", None, "let plain;"),
        ("/index.html", "gzip, br", None, "home"),
    ] {
        let reply = stage.get(target, &format!("Accept-Encoding: {accepted}\r\n"));
        assert_eq!((reply.status, field(&reply, "Content-Encoding")), (200, coding), "{target} {accepted}");
        assert_eq!(reply.body, body.as_bytes());
        assert_eq!(field(&reply, "Vary").is_some(), !target.starts_with("/plain"));
    }
    let tags: Vec<_> = ["br", "gzip", "x"]
        .map(|coding| {
            field(&stage.get("/app.js", &format!("Accept-Encoding: {coding}\r\n")), "ETag").map(str::to_owned)
        })
        .into();
    assert!(tags[0] != tags[1] && tags[1] != tags[2] && tags[0] != tags[2], "{tags:?}");
    let types: Vec<_> = ["br", "x"]
        .map(|coding| {
            field(&stage.get("/app.js", &format!("Accept-Encoding: {coding}\r\n")), "Content-Type").map(str::to_owned)
        })
        .into();
    assert_eq!(types[0], types[1]);
}

#[test]
fn head_gets_the_length_and_no_body() {
    let stage = stage(1, (2, 10));
    let mut client = stage.run.connect();
    for (target, length) in [("/large.bin", LARGE.to_string()), ("/a%20b.txt", "10".to_owned())] {
        let reply = ask(&stage.run.sim, &mut client, "HEAD", target, "Range: bytes=0-0\r\n", "");
        assert_eq!((reply.status, field(&reply, "Content-Length")), (200, Some(&length[..])));
        assert!(reply.body.is_empty());
    }
}

#[test]
fn a_large_file_arrives_whole_over_faults_and_the_connection_goes_on() {
    for seed in 0..15 {
        let stage = stage(seed, (1, 2));
        let sim = &stage.run.sim;
        sim.set_link(Link { buffer_bytes: 16_384, ..Link::default() });
        sim.set_faults(Faults {
            slow_work: 0.1,
            short_write: 0.3,
            would_block: 0.2,
            late_wake: 0.2,
            delay_max: SECOND / 100,
            ..Faults::default()
        });
        let mut clients: Vec<_> = (0..3).map(|_| stage.run.connect()).collect();
        for client in &mut clients {
            client.send(request("GET", "/large.bin", "", ""));
            client.send(request("GET", "/docs/", "", ""));
        }
        let is_done = || clients.iter().all(|client| client.peek().ends_with(b"documents"));
        assert!(sim.run_until(SECOND * 60, is_done), "seed {seed}\n{}", sim.trace());
        for client in &mut clients {
            let reply = Reply::decode("GET", &client.take());
            assert!(reply.body == large(), "seed {seed}");
        }
        assert_eq!(stage.run.act(|_, http| (http.works(), http.timers())), (0, 0), "seed {seed}");
    }
}

#[test]
fn a_client_that_takes_nothing_holds_little_and_not_for_long() {
    let stage = stage(1, (2, 10));
    let sim = &stage.run.sim;
    let _client = stage.stalled();
    let queued = stage.run.act(|_, http| http.connection_ids().iter().map(|id| http.queued(*id)).sum::<usize>());
    assert!(queued > 0 && queued < Config::default().output_high_bytes + 3 * 64 * 1024, "{queued} bytes");
    sim.run_for(Settings::default().write_timeout * 2);
    assert_eq!(stage.run.act(|_, http| http.connections()), 0);
}

#[test]
fn a_slow_client_gets_everything() {
    let stage = stage(1, (2, 10));
    let sim = &stage.run.sim;
    // The whole file takes several times as long as a client may take nothing.
    sim.set_link(Link { bandwidth: Some(5_000), buffer_bytes: 16_384, ..Link::default() });
    let mut client = stage.run.connect();
    client.send(request("GET", "/large.bin", "", ""));
    sim.run_for(SECOND * 300);
    assert!(Reply::decode("GET", &client.take()).body == large());
}

#[test]
fn a_file_that_becomes_shorter_ends_its_connection() {
    let stage = stage(1, (2, 10));
    let sim = &stage.run.sim;
    let mut client = stage.stalled();
    File::options()
        .write(true)
        .open(stage.folder.join("public/large.bin"))
        .and_then(|file| file.set_len(1_000))
        .expect("a file");
    client.unstall();
    sim.run_for(SECOND * 10);
    assert!(client.failure().is_some());
    assert!(client.take().len() < LARGE);
}

#[test]
fn full_workers_are_503() {
    let stage = stage(1, (1, 0));
    stage.run.sim.set_faults(Faults { slow_work: 1.0, delay_max: SECOND, ..Faults::default() });
    let (mut first, mut second) = (stage.run.connect(), stage.run.connect());
    first.send(request("GET", "/", "", ""));
    second.send(request("GET", "/", "", ""));
    stage.run.sim.run_for(SECOND * 2);
    let mut statuses = [&mut first, &mut second].map(|client| Reply::decode("GET", &client.take()).status);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
}

#[test]
fn a_download_survives_workers_that_are_full_for_a_while() {
    let stage = stage(1, (1, 0));
    let sim = &stage.run.sim;
    let mut clients: Vec<_> = (0..4).map(|_| stage.run.connect()).collect();
    for client in &mut clients {
        // A request that comes while a piece is read is refused.
        client.send(request("GET", "/large.bin", "", ""));
        while sim.run_until(SECOND, || !client.peek().is_empty()) && client.peek().starts_with(b"HTTP/1.1 503") {
            client.take();
            client.send(request("GET", "/large.bin", "", ""));
        }
    }
    sim.run_for(SECOND * 60);
    for client in &mut clients {
        let reply = Reply::decode("GET", &client.take());
        assert!(reply.status == 200 && reply.body == large(), "{}", reply.status);
    }
}

#[test]
#[should_panic(expected = "no place for the path")]
fn a_pattern_without_a_rest_is_a_mistake() {
    let workers = Workers::new(1, 1);
    let files = Directory::new(".", &workers).expect("it exists");
    drop(Server::new(Settings::default(), Site::new(()).directory("/files", files)));
}

#[test]
fn a_time_that_has_no_date_is_no_harm() {
    let stage = stage(1, (2, 10));
    for seconds in [-1_i64, 300_000_000_000] {
        let time = match u64::try_from(seconds) {
            Ok(seconds) => SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            Err(_) => SystemTime::UNIX_EPOCH - SECOND,
        };
        let file = File::options().append(true).open(stage.folder.join("public/a b.txt")).expect("a file");
        // A file system that has no such time takes the nearest one it has.
        file.set_modified(time).expect("a time");
        for fields in ["", "If-Unmodified-Since: Thu, 01 Jan 1970 00:00:01 GMT\r\n"] {
            let status = stage.get("/a%20b.txt", fields).status;
            assert!(status == 200 || status == 412 && seconds > 0, "{seconds} {fields}: {status}");
        }
    }
}

#[test]
fn a_file_may_exist_only_compressed() {
    let stage = stage(1, (2, 10));
    stage.folder.write("public/only.css.br", "brotli");
    stage.folder.write("public/empty/index.html.gz", "gzip");
    assert_eq!(stage.get("/only.css", "Accept-Encoding: br\r\n").body, b"brotli");
    assert_eq!(stage.get("/only.css", "").status, 404);
    assert_eq!(stage.get("/empty/", "Accept-Encoding: gzip\r\n").body, b"gzip");
    assert_eq!(stage.get("/empty", "Accept-Encoding: gzip\r\n").status, 301);
    assert_eq!(stage.get("/empty", "").status, 404);
}

#[test]
fn a_location_names_no_other_host() {
    let folder = Folder::new("directory");
    fs::create_dir_all(folder.join("docs")).expect("a folder");
    folder.write("docs/index.html", "documents");
    let sim = Simulation::new(1);
    let files = Directory::new(&*folder, &sim.workers(1, 10)).expect("it exists");
    let site = Site::new(()).directory("/{version}/{path...}", files);
    let run = Served::on(&sim, Config::default(), Settings::default(), site);
    for target in ["/\\evil.example/docs", "/evil.example:80/docs"] {
        let moved = ask(&sim, &mut run.connect(), "GET", target, "", "");
        assert_eq!((moved.status, field(&moved, "Location")), (301, Some("./docs/")), "{target}");
    }
    assert_eq!(ask(&sim, &mut run.connect(), "GET", "/x/docs/", "", "").body, b"documents");
}

/// Swaps what a name stands for while it is requested, on threads, where this matters.
#[cfg(unix)]
#[test]
fn nothing_outside_is_opened_while_a_name_changes_and_no_pipe_blocks() {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    let stage = stage(1, (1, 10));
    let (public, outside) = (stage.folder.join("public"), stage.folder.join("outside"));
    for place in [&outside, &public.join("a")] {
        fs::create_dir(place).expect("a folder");
    }
    stage.folder.write("outside/f.txt", "outside");
    stage.folder.write("public/a/f.txt", "inside");
    let pipe = stage.folder.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("it runs").success());
    symlink(&outside, public.join("link")).expect("a link");
    let is_over = AtomicBool::new(false);
    let (mut inside, mut leaked) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let [a, link, spare, file] = ["a", "link", "spare", "docs/index.html"].map(|name| public.join(name));
            let kept = stage.folder.join("kept");
            while !is_over.load(Ordering::Relaxed) {
                for [from, to] in [[&a, &spare], [&link, &a], [&a, &link], [&spare, &a]] {
                    fs::rename(from, to).expect("a new name");
                }
                for [from, to] in [[&file, &kept], [&pipe, &file], [&file, &pipe], [&kept, &file]] {
                    fs::rename(from, to).expect("a new name");
                }
            }
        });
        for _ in 0..3_000 {
            let reply = stage.get("/a/f.txt", "");
            leaked += usize::from(reply.body == b"outside");
            inside += usize::from(reply.body == b"inside");
            stage.get("/docs/", "");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(leaked, 0, "responses with the file outside");
    assert!(inside > 0, "some requests find the file");
}
