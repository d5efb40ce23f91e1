//! Tests of `store` with the real parts.
