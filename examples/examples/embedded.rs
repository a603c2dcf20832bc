//! The whole comet server inside another program, on an address that the program chooses.
//!
//! Try it: `cargo run -p examples --example embedded`, then in two other terminals:
//!
//!     curl -N -H 'Accept: text/event-stream' 127.0.0.1:7777/channels/news
//!     curl -d hello 127.0.0.1:7777/channels/news

use ccomet::{Config, Server};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    let mut config = Config::default();
    config.front.listen = address.parse()?;
    config.admin.listen = "127.0.0.1:0".parse()?;
    config.front.demo = false;
    let mut server = Server::bind(config)?;
    server.stop_on_signals()?;
    println!("listening on {}", server.front());
    server.run()?;
    Ok(())
}
