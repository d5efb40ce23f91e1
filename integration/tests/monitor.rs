//! Tests of `monitor` with the real parts: the kernel, runc, busybox.

mod house;
mod life;
mod logs;
mod sandbox;
