//! Both programs in one file, for releases: most of their code is the same, and has to be linked and
//! kept once. As with BusyBox, the name by which it is called says which of them it is.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

/// For many short allocations on several threads, which are what requests and jobs make.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<ExitCode> {
    let called = std::env::args_os().next().unwrap_or_default();
    match Path::new(&called).file_name().and_then(OsStr::to_str) {
        Some("api") => api::program::main().map(|()| ExitCode::SUCCESS),
        Some("worker") => worker::program::main(),
        _ => anyhow::bail!("call it by a link with the name api or worker, not as {called:?}"),
    }
}
