//! How fast the service is: release binaries, an agent that answers at once, both databases.
//! `make bench` prints a table beside the last kept result; `scripts/bench.sh` tells its settings.
//! What is measured here fails no test.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Parser;

mod agent;
mod binaries;
mod cores;
mod fill;
mod load;
mod machine;
mod measurements;
mod results;

use binaries::Kind;
use cores::{Cores, Share};
use measurements::{Bench, Duration, MEASUREMENTS};
use results::{Kept, Row, mean};

/// How often two checkouts are measured in turn.
const ROUNDS: usize = 3;

/// What is measured, and how it is shown.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure; all if none is named.
    only: Vec<String>,
    /// The folder with the programs to compare ours with. Both are measured in turn.
    #[arg(long)]
    against: Option<PathBuf>,
    /// Measure for a second each, on small databases: good for ratios only.
    #[arg(long)]
    short: bool,
    /// Keep the results, for the next runs to show them.
    #[arg(long, conflicts_with_all = ["against", "short"])]
    keep: bool,
    /// Cargo's own.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let machine = machine::described()?;
    let cores = Cores::of_this_process()?;
    cores.restrict(Share::Others)?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(run(arguments, &machine, cores))
}

#[allow(clippy::print_stdout, reason = "it is what this program is for")]
async fn run(arguments: Arguments, machine: &str, cores: Cores) -> Result<()> {
    // No one here needs TLS, but the library wants a provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    for name in &arguments.only {
        let known = MEASUREMENTS.contains(&name.as_str());
        ensure!(known, "{name}: it is one of {}", MEASUREMENTS.join(", "));
    }
    println!("{machine}");
    let mut kept = Kept::read(machine)?;
    let agent = agent::start().await?;
    let mut kinds = vec![Kind::Sqlite];
    match std::env::var_os("TEST_POSTGRES_URL") {
        Some(_) => kinds.push(Kind::Postgres),
        None => println!("Postgres is not measured: TEST_POSTGRES_URL is not set."),
    }
    let only = &arguments.only;
    let is_chosen = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
    for kind in kinds {
        println!("\n{kind:?}");
        for name in MEASUREMENTS.into_iter().filter(|name| is_chosen(name)) {
            let bench = Bench {
                kind,
                agent: agent.clone(),
                cores,
                programs: binaries::ours()?,
                time: Duration::of(arguments.short),
            };
            let Some(theirs) = &arguments.against else {
                for row in bench.measure(name).await? {
                    println!("{}", kept.beside(kind, &row));
                    kept.add(kind, &row);
                }
                continue;
            };
            if name == "queue" {
                continue; // The code that it measures is in this program.
            }
            let theirs = Bench {
                programs: theirs.clone(),
                ..bench.clone()
            };
            compare(name, &theirs, &bench).await?;
        }
    }
    if arguments.keep {
        kept.write().context("the results can't be kept")?;
    }
    Ok(())
}

/// Measures both in turn, so that a machine whose speed changes is as fast for one as for the other.
#[allow(clippy::print_stdout, reason = "it is what this program is for")]
async fn compare(name: &str, theirs: &Bench, ours: &Bench) -> Result<()> {
    let mut rounds: [Vec<Vec<Row>>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (bench, rows) in [theirs, ours].into_iter().zip(&mut rounds) {
            rows.push(bench.measure(name).await?);
        }
    }
    let [theirs, ours] = rounds.map(mean);
    for (theirs, ours) in theirs.iter().zip(&ours) {
        println!("{}", results::compared(theirs, ours));
    }
    Ok(())
}
