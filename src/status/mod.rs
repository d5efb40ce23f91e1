//! For browsers, Prometheus and trace collectors: the page, metrics and traces.
//!
//! It reads what the gRPC face tells of pods and listens to what every room measures; it
//! changes nothing. One listener serves `/` (the page), `/events` (the page's changes),
//! `/metrics` and `/healthz`, to whoever reaches it: by default nobody. All text from pods is
//! hostile: `html` escapes it.

mod feed;
mod html;
mod metrics;
mod server;
pub mod traces;

pub use server::{Server, bind};
