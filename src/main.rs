//! The `pairwright` binary: hands over to [`pairwright::cli`]. Knows nothing else.

use std::process::ExitCode;

/// Large, short-lived activation buffers come and go in every step; this allocator keeps them mapped.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    pairwright::cli::main()
}
