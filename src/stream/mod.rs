//! Exec, attach and port-forward as Kubernetes' clients stream them, over SPDY/3.1 and
//! WebSocket, with TLS or without.
//!
//! [`Server`] gives URLs with tokens that are good once and for a minute, and serves them.
//! This room is handed closures that start something and give its byte streams. Never here:
//! a pod, a container, a runtime, or gRPC.

mod channel;
mod command;
mod negotiate;
mod port_forward;
mod server;
pub mod spdy;
mod status;
mod tls;
mod token;
mod websocket;

pub use command::{Future, Process, Start, Wanted};
pub use port_forward::{Connect, Joint};
pub use server::{Server, Settings, TooMany};
pub use tls::{Files, Unservable};
#[cfg(fuzzing)]
pub use websocket::fuzz as fuzz_websocket;
