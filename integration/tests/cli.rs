//! Tests of `cli` with the real parts.
