//! Kernels: each body, compiled for the CPU, against the plain-Rust operation over ragged shapes, and against itself: a row's bits are
//! those of the row alone. What a GPU makes of the same sources is `pairwright doctor`'s to find out.

#[path = "kernels/attention.rs"]
mod attention;
#[path = "kernels/machine.rs"]
mod machine;
#[path = "kernels/numbers.rs"]
mod numbers;
#[path = "kernels/small_float.rs"]
mod small_float;

#[path = "kernels/activation.rs"]
mod activation;
#[path = "kernels/blocks.rs"]
mod blocks;
#[path = "kernels/embedding.rs"]
mod embedding;
#[path = "kernels/experts.rs"]
mod experts;
#[path = "kernels/linear.rs"]
mod linear;
#[path = "kernels/norm.rs"]
mod norm;
#[path = "kernels/rotary.rs"]
mod rotary;
#[path = "kernels/sampling.rs"]
mod sampling;
