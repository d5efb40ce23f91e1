//! Tests of `health` with the real parts.
