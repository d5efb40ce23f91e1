//! Exec, attach and port-forward as Kubernetes' clients stream them, over SPDY/3.1.
//!
//! This room is handed closures that start something and give its byte streams. Never here:
//! a pod, a container, a runtime, or gRPC.

pub mod spdy;
