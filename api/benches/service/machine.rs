//! What the numbers were measured on.

use std::fs::read_to_string;

use anyhow::{Context, Result};

/// The machine in a line.
pub(crate) fn described() -> Result<String> {
    let cores = std::thread::available_parallelism()?;
    let processors = read_to_string("/proc/cpuinfo")?;
    let model = value(&processors, "model name").unwrap_or("unknown processor");
    let memory = read_to_string("/proc/meminfo")?;
    let kib = value(&memory, "MemTotal").and_then(|kib| kib.strip_suffix(" kB"));
    let kib: u64 = kib.context("no MemTotal")?.parse()?;
    Ok(format!(
        "{cores} cores, {model}, {} GiB of memory",
        kib.div_ceil(1024 * 1024)
    ))
}

fn value<'a>(lines: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = lines.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(found, _)| found.trim() == name)?;
    Some(value.trim())
}
