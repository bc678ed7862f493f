//! Kernels: each body, compiled for the CPU, against the plain-Rust operation over ragged shapes, and against itself: a row's bits are
//! those of the row alone. What a GPU makes of the same sources is `pairwright doctor`'s to find out.

#[path = "kernels/machine.rs"]
mod machine;
#[path = "kernels/sampling.rs"]
mod sampling;
