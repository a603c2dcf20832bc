//! The files of a directory, with ranges, conditional requests and precompressed files.
//!
//! Try it: `cargo run -p examples --example files -- 127.0.0.1:7777 demos`, then:
//!
//!     curl -i 127.0.0.1:7777/web/chat.html
//!     curl -s -D - -o /dev/null -r 0-99 127.0.0.1:7777/chat.png

use sealed::{Config, EventLoop, Workers};
use sealed_http::site::Directory;
use sealed_http::{Server, Settings, Site};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    let root = arguments.next().unwrap_or_else(|| ".".to_owned());
    // Files are opened and read on these threads.
    let files = Directory::new(root, &Workers::new(4, 1_000))?.precompressed();
    let site = Site::new(()).directory("/{path...}", files);
    let mut event_loop = EventLoop::new(Config::default(), Server::new(Settings::default(), site))?;
    println!("listening on {}", event_loop.listen(address)?.address);
    event_loop.stop_on_signals()?;
    Ok(event_loop.run()?)
}
