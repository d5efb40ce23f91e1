//! Containers: configuration, state, create, start, stop, remove, exec, logs.
//!
//! Functions here do one thing to one container and are called by its pod's driver; nothing
//! here holds a list of containers or decides that one be restarted.

pub mod config;
