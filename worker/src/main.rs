//! The worker as a program of its own.

use std::process::ExitCode;

/// For many short allocations on several threads, which are what requests and jobs make.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<ExitCode> {
    worker::program::main()
}
