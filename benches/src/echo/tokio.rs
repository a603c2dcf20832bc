//! On tokio: a task for each connection, all on one thread.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{BUFFER_BYTES, Discarded, MESSAGE, MESSAGES, Part, hold_as_many};

pub(super) fn serve(part: Part) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a port");
        hold_as_many(&listener);
        println!("{}", listener.local_addr().expect("an address"));
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            tokio::spawn(converse(stream, part));
        }
    });
}

async fn converse(mut stream: TcpStream, part: Part) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut discarded = Discarded::default();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        match part {
            Part::Echo => stream.write_all(&buffer[..count]).await?,
            Part::Discard => {
                for _ in 0..discarded.add(count) {
                    stream.write_all(b"!").await?;
                }
            }
            Part::Tell => {
                for _ in 0..count * MESSAGES {
                    stream.write_all(MESSAGE).await?;
                }
            }
        }
    }
}
