//! Tests of `oci` with the real parts.
