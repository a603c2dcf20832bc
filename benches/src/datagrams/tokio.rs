//! On tokio: one task on one thread.

use tokio::net::UdpSocket;

use super::BUFFER_BYTES;

pub(super) fn serve() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    runtime.block_on(async {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        println!("{}", socket.local_addr().expect("an address"));
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let (count, from) = socket.recv_from(&mut buffer).await.expect("a datagram");
            socket.send_to(&buffer[..count], from).await.expect("sent");
        }
    });
}
