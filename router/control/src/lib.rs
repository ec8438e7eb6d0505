//! The control API's server: HTTP and JSON on a unix socket.
//!
//! It owns no state. Each request becomes one [`Command`] on a bounded channel to the engine, and the engine's answer
//! becomes the response. A client that goes away drops its [`Reply`], which tells the engine to withdraw.
//!
//! Everything is bounded: connections, header and body size, the time to read a request, to be answered, and to take
//! the answer. A client that breaks a bound loses its own request and nothing else.
#![forbid(unsafe_code)]

mod body;
mod command;
mod crowd;
mod engine;
mod json;
mod listen;
mod metrics;
mod plain;
mod plain_ip;
mod refusal;
mod server;

pub use command::{Command, Reply};
pub use listen::{BindError, ListenConfig, Listener};
pub use metrics::serve_metrics;
pub use server::{MAX_CONNECTIONS, serve, serve_with_token};
