//! For programmers who know another event library: what is called what here, and what is different.
//!
//! # From tokio
//!
//! | tokio | here |
//! | --- | --- |
//! | a task for each connection | one [`Service`], with [`Service::Connection`] as the state of each connection |
//! | `read().await` | [`Service::received`], with all bytes that have not been taken yet |
//! | `write_all().await` | [`Context::write`], which queues; [`Service::drained`] when there is room again |
//! | `Framed` with a `Decoder` | take whole frames from [`Input`], and leave the rest there |
//! | `select!` | nothing: every event is a call |
//! | `sleep`, `interval`, `timeout` | [`Context::set_timer`], [`Context::set_interval`], [`Context::set_deadline`] |
//! | `mpsc` | [`Mailbox`](crate::Mailbox), one for each service |
//! | `Arc<Mutex<..>>` between tasks | fields of the service: it alone runs on its thread |
//! | `spawn_blocking` | [`Context::offload`] |
//! | `lookup_host`, `TcpStream::connect("name:80")` | [`Context::resolve`](crate::Context::resolve), [`Connect::by_name`](crate::Connect::by_name) |
//! | `AbortHandle` | [`Context::cancel_work`], or the end of the connection |
//! | a library that has only futures | [`Context::run_future`], if the library needs no runtime |
//! | a panic ends one task | a panic ends the loop, unless [`Service::panicked`] lets the loop go on |
//!
//! What takes several `.await`s in a task becomes a state in [`Service::Connection`], which the
//! next call continues. A dialogue of many steps takes more code this way; a server that sends to
//! many connections takes less, because each call can write to all of them.
//!
//! # From libevent
//!
//! | libevent | here |
//! | --- | --- |
//! | `event_base` | [`EventLoop`](crate::EventLoop) |
//! | `evconnlistener` | [`Context::listen`] |
//! | `bufferevent`, its callbacks | a connection: [`Service::received`], [`Service::drained`], [`Service::closed`] |
//! | the argument of a callback | [`Service::Connection`], and the fields of the service |
//! | `evbuffer_drain` | [`Input::take`] |
//! | watermarks | [`Config::output_high_bytes`](crate::Config::output_high_bytes), [`Config::output_low_bytes`](crate::Config::output_low_bytes), [`Config::input_bytes_max`](crate::Config::input_bytes_max) |
//! | `bufferevent_set_timeouts` | [`Context::set_deadline`], set again in each call that counts as activity |
//! | rate limit groups | [`Context::add_group`] |
//! | `bufferevent_openssl` | [`tls`](crate#cargo-features), by rustls |
//! | `evdns` | [`Resolver`](crate::Resolver) and [`Context::resolve`](crate::Context::resolve), which ask the system on other threads |
//! | `evhttp` | the crate `sealed-http` |
//! | `event_base_loopbreak` | [`Stopper`](crate::Stopper), which lets the connections drain first |
//!
//! A connection that ends in a callback stays valid until the end of the tick; from then on its id
//! finds nothing. So there is no reference count, and no counterpart of `BEV_OPT_DEFER_CALLBACKS`.
//!
//! # From mio
//!
//! | mio | here |
//! | --- | --- |
//! | `Poll`, `Events`, the loop around them | [`EventLoop::run`](crate::EventLoop::run) |
//! | `Token` | [`ConnectionId`](crate::ConnectionId); a stale one finds nothing |
//! | reading until `WouldBlock` | done by the loop, within [`Config::read_bytes_per_tick`](crate::Config::read_bytes_per_tick) |
//! | a buffer for each connection | lent by the loop while bytes are in flight |
//! | interest in writability while output waits | done by the loop |
//! | `Waker` and a queue | [`Mailbox`](crate::Mailbox) |
//! | a timer wheel of one's own | [`Context::set_timer`], [`Context::set_deadline`] |
//!
//! # Which codec crates fit
//!
//! A codec fits if it decodes from a slice and returns how many bytes it used, as `httparse` and
//! `mqttrs` do, and `prost` if a length precedes each message: pass it [`Input::bytes`], and call
//! [`Input::take`]. A codec that owns its buffer (`Decoder` of tokio-util with `BytesMut`) needs a
//! buffer in [`Service::Connection`] to which the input is copied. A codec that reads from
//! `std::io::Read` fits if decoding can be repeated from the start once more bytes have come; pass
//! it [`Input::bytes`]: a `&[u8]` implements `Read`.
//!
//! [`Context`]: crate::Context
//! [`Context::add_group`]: crate::Context::add_group
//! [`Context::cancel_work`]: crate::Context::cancel_work
//! [`Context::listen`]: crate::Context::listen
//! [`Context::offload`]: crate::Context::offload
//! [`Context::run_future`]: crate::Context::run_future
//! [`Context::set_deadline`]: crate::Context::set_deadline
//! [`Context::set_interval`]: crate::Context::set_interval
//! [`Context::set_timer`]: crate::Context::set_timer
//! [`Context::write`]: crate::Context::write
//! [`Input`]: crate::Input
//! [`Input::bytes`]: crate::Input::bytes
//! [`Input::take`]: crate::Input::take
//! [`Service`]: crate::Service
//! [`Service::Connection`]: crate::Service::Connection
//! [`Service::closed`]: crate::Service::closed
//! [`Service::drained`]: crate::Service::drained
//! [`Service::panicked`]: crate::Service::panicked
//! [`Service::received`]: crate::Service::received
