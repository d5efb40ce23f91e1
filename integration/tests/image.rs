//! Tests of `image` with the real parts.
