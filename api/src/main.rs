//! The API as a program of its own.

/// For many short allocations on several threads, which are what requests and jobs make.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    api::program::main()
}
