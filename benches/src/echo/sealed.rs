//! On this project's loop, written as its documentation recommends.

use sealed::{Config, ConnectionId, Context, EventLoop, Input, Service};

use super::{Discarded, MESSAGE, MESSAGES, Part};

struct Server(Part);

impl Service for Server {
    type Connection = Discarded;
    type Message = ();
    type Timer = ();

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        let bytes = input.take_all();
        match self.0 {
            Part::Echo => {
                cx.write(id, bytes);
            }
            Part::Discard => {
                let full = cx.state_mut(id).expect("its state").add(bytes.len());
                for _ in 0..full {
                    cx.write(id, b"!");
                }
            }
            Part::Tell => {
                for _ in 0..bytes.len() * MESSAGES {
                    cx.write(id, MESSAGE);
                }
            }
        }
    }
}

pub(super) fn serve(part: Part) {
    let mut event_loop = EventLoop::new(Config::default(), Server(part)).expect("a loop");
    println!("{}", event_loop.listen("127.0.0.1:0").expect("a port").address);
    event_loop.run().expect("a good end");
}
