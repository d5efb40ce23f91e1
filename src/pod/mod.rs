//! Pods: the sandbox, its driver task, its namespaces and files.

pub mod config;
