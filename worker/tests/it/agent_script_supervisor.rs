//! `supervise -- program`, as the worker's own binary has it.

fn main() -> std::io::Result<()> {
    let command: Vec<_> = std::env::args_os().skip(3).collect();
    worker::agent::supervise(&command)
}
