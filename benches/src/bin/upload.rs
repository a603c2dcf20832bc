//! Measures what an upload to a file costs: the example `upload` on sealed-http, and hyper on tokio,
//! in turn, each in a process of its own on one processor, with one client on the other.
//!
//!     cargo run --release -p benches --bin upload -- [MIB] [ROUNDS]
//!
//! The files are written to the system's folder for temporary files, and not synced: the figures
//! are those of the network, of the server and of the page cache.

#![allow(clippy::cast_precision_loss)] // counts far below 2^52

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use benches::server::{pin_client, pinned};
use benches::table::in_turn;
use testing::Folder;
use testing::process::Process;

#[allow(dead_code)] // its `main` is not called
#[path = "../../../examples/examples/upload.rs"]
mod example;

/// The servers, and the way in which each writes.
const SERVERS: [(&str, &str); 3] = [
    ("sealed-http", "pieces that have come meanwhile, on a worker"),
    ("hyper", "pieces through a channel, on a thread of their own"),
    ("hyper with tokio::fs", "`tokio::fs::File::write_all`, piece by piece"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, server, folder] = &arguments[..]
        && role == "serve"
    {
        return serve(server, Path::new(folder));
    }
    let number = |at: usize, usual| arguments.get(at).map_or(Ok(usual), |text| text.parse::<usize>());
    let (mib, rounds) = (number(0, 1_024)?, number(1, 7)?);
    pin_client();
    let medians = in_turn(SERVERS.len(), rounds, |server| match measure(SERVERS[server].0, mib) {
        Ok(figures) => Some(figures.to_vec()),
        Err(error) => {
            eprintln!("{}: {error}", SERVERS[server].0);
            None
        }
    });
    println!("Upload of {mib} MiB, medians of {rounds} rounds:\n");
    println!("| server | writes | processor time of the server, s | MB/s | resident memory at the end, KiB |");
    println!("| --- | --- | ---: | ---: | ---: |");
    for ((server, way), figures) in SERVERS.iter().zip(medians) {
        let [time, rate, memory] = figures[..] else { return Err("no figures".into()) };
        println!("| {server} | {way} | {time:.2} | {rate:.0} | {memory:.0} |");
    }
    Ok(())
}

/// Uploads to a new server. Returns its processor time in seconds, megabytes a second, and its
/// resident memory in KiB.
fn measure(server: &str, mib: usize) -> Result<[f64; 3], Box<dyn Error>> {
    let folder = Folder::new("upload");
    let mut command = pinned(&std::env::current_exe()?);
    command.arg("serve").arg(server).arg(&*folder);
    let (process, [address]) = Process::start_announced(&mut command, ["listening on "]);
    // The first upload allocates buffers and starts threads.
    upload(address, 16)?;
    let (before, begun) = (process.processor_time(), Instant::now());
    upload(address, mib)?;
    let time = begun.elapsed().as_secs_f64();
    let expected = [16, mib].map(|mib| (mib as u64) << 20);
    let mut lengths = std::fs::read_dir(&*folder)?.map(|file| file?.metadata()).map(|file| Ok(file?.len()));
    if !lengths.all(|length: io::Result<u64>| length.is_ok_and(|length| expected.contains(&length))) {
        return Err("a file has the wrong length".into());
    }
    let used = process.processor_time().saturating_sub(before).as_secs_f64();
    Ok([used, (mib << 20) as f64 / 1e6 / time, process.rss_kib() as f64])
}

/// Uploads this many MiB, and waits for the answer.
fn upload(address: SocketAddr, mib: usize) -> Result<(), Box<dyn Error>> {
    let mut stream = TcpStream::connect(address)?;
    let length = mib << 20;
    write!(stream, "PUT / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n")?;
    let bytes = vec![7; 1 << 20];
    (0..mib).try_for_each(|_| stream.write_all(&bytes))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 201") { Ok(()) } else { Err(answer.into()) }
}

fn serve(server: &str, folder: &Path) -> Result<(), Box<dyn Error>> {
    match server {
        "sealed-http" => example::serve("127.0.0.1:0", folder.to_owned()),
        "hyper" => peer::serve(folder, peer::Way::Thread),
        _ => peer::serve(folder, peer::Way::TokioFile),
    }
}

/// hyper on tokio: a task for each connection, all on one thread.
mod peer {
    use std::convert::Infallible;
    use std::io::Write;
    use std::sync::atomic::{AtomicU32, Ordering};

    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper::{Request, Response, StatusCode};
    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::{Error, Path, PathBuf};

    /// Maximum number of pieces that wait for the thread that writes.
    const WAITING_MAX: usize = 8;

    static NUMBER: AtomicU32 = AtomicU32::new(0);

    #[derive(Clone, Copy)]
    pub(super) enum Way {
        /// A thread writes the pieces of an upload, which it gets through a channel.
        Thread,
        /// `tokio::fs` copies each piece, and writes the copy on a thread.
        TokioFile,
    }

    type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

    pub(super) fn serve(folder: &Path, way: Way) -> Result<(), Box<dyn Error>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            println!("listening on {}", listener.local_addr()?);
            loop {
                let (stream, _) = listener.accept().await?;
                let folder = folder.to_owned();
                let answer = service_fn(move |request: Request<Incoming>| {
                    let path = folder.join(format!("upload-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
                    async move {
                        let kept = match way {
                            Way::Thread => by_thread(path, request.into_body()).await,
                            Way::TokioFile => by_tokio(path, request.into_body()).await,
                        };
                        let mut response = Response::new(Full::<Bytes>::default());
                        *response.status_mut() =
                            if kept.is_ok() { StatusCode::CREATED } else { StatusCode::INTERNAL_SERVER_ERROR };
                        Ok::<_, Infallible>(response)
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        })
    }

    async fn by_thread(path: PathBuf, mut body: Incoming) -> Outcome {
        let (sender, mut pieces) = mpsc::channel::<Bytes>(WAITING_MAX);
        let writing = tokio::task::spawn_blocking(move || {
            let mut file = std::fs::File::create_new(path)?;
            while let Some(piece) = pieces.blocking_recv() {
                file.write_all(&piece)?;
            }
            std::io::Result::Ok(())
        });
        while let Some(frame) = body.frame().await {
            if let Ok(piece) = frame?.into_data() {
                sender.send(piece).await?;
            }
        }
        drop(sender);
        Ok(writing.await??)
    }

    async fn by_tokio(path: PathBuf, mut body: Incoming) -> Outcome {
        let mut file = tokio::fs::File::create_new(path).await?;
        while let Some(frame) = body.frame().await {
            if let Ok(piece) = frame?.into_data() {
                file.write_all(&piece).await?;
            }
        }
        Ok(file.flush().await?)
    }
}
