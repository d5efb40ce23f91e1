//! Tests of `network` with the real parts.
