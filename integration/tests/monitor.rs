//! Tests of `monitor` with the real parts.
