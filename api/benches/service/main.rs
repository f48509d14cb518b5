//! How fast the service is: the release binaries, an agent that answers at
//! once, both databases. `make bench` prints a table, `make bench ONLY=drain` a
//! part of it. What is measured here fails no test.

use std::time::Duration;

use anyhow::{Context, Result};
use entity::{job, user};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder};
use shared::database::Database;
use tokio::time::sleep;

mod agent;
mod binaries;
mod fill;
mod load;
mod machine;

use binaries::{Kind, Service};
use load::{Spread, User, for_a_while};

/// What is measured, unless the command line names some of it.
const MEASUREMENTS: [&str; 5] = ["idle", "pickup", "drain", "enqueue", "reads"];
const SINGLE_JOBS: usize = 500;
const QUEUED_JOBS: usize = 3000;
const CONCURRENCY: usize = 64;
const WHILE: Duration = Duration::from_secs(5);
/// By then threads that only the start needed are gone, and their time with them.
const SETTLED: Duration = Duration::from_secs(12);
const IDLE: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(run())
}

#[allow(clippy::print_stdout, reason = "it is what this program is for")]
async fn run() -> Result<()> {
    // No one here needs TLS, but the library wants a provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    println!("{}", machine::described()?);
    let agent = agent::start().await?;
    // cargo adds `--bench`.
    let only = std::env::args().skip(1).filter(|name| name != "--bench");
    let only: Vec<String> = only.collect();
    let mut kinds = vec![Kind::Sqlite];
    match std::env::var_os("TEST_POSTGRES_URL") {
        Some(_) => kinds.push(Kind::Postgres),
        None => println!("Postgres is not measured: TEST_POSTGRES_URL is not set."),
    }
    for kind in kinds {
        println!("\n{kind:?}");
        for name in MEASUREMENTS {
            if !only.is_empty() && !only.iter().any(|only| *only == name) {
                continue;
            }
            for (what, measured) in measure(name, kind, &agent).await? {
                println!("  {what:<60} {measured}");
            }
        }
    }
    Ok(())
}

async fn measure(name: &str, kind: Kind, agent: &str) -> Result<Lines> {
    match name {
        "idle" => idle(kind, agent).await,
        "pickup" => pickup(kind, agent).await,
        "drain" => Ok([drain(kind, agent, 1).await?, drain(kind, agent, 3).await?].concat()),
        "enqueue" => enqueue(kind, agent).await,
        _ => reads(kind, agent).await,
    }
}

type Lines = Vec<(String, String)>;

fn line(what: impl Into<String>, measured: impl Into<String>) -> (String, String) {
    (what.into(), measured.into())
}

/// What both binaries use when there is nothing to do.
async fn idle(kind: Kind, agent: &str) -> Result<Lines> {
    let service = Service::new(kind, agent).await?;
    let (api, _) = service.api().await?;
    let worker = service.worker(CONCURRENCY)?;
    sleep(SETTLED).await;
    let before = (api.cpu()?, worker.cpu()?);
    sleep(IDLE).await;
    let used = |now: Duration, before: Duration| {
        now.saturating_sub(before).as_secs_f64() / IDLE.as_secs_f64() * 100.0
    };
    let cpu = (used(api.cpu()?, before.0), used(worker.cpu()?, before.1));
    let memory = (api.memory()?, worker.memory()?);
    Ok(vec![
        line(
            "idle API",
            format!("{:.1} % of a core, {:.0} MiB", cpu.0, memory.0),
        ),
        line(
            "idle worker",
            format!("{:.1} % of a core, {:.0} MiB", cpu.1, memory.1),
        ),
    ])
}

/// From a job's acceptance to the beginning of its attempt, one at a time.
async fn pickup(kind: Kind, agent: &str) -> Result<Lines> {
    let service = Service::new(kind, agent).await?;
    let (_api, url) = service.api().await?;
    let _worker = service.worker(CONCURRENCY)?;
    let user = User::register(&url, "ann").await?;
    for number in 0..SINGLE_JOBS {
        let post = user.ask().await?;
        let job = post["job"]["id"].as_str().context("no job")?;
        let path = format!("/jobs/{job}?wait=30");
        while user.get(&path).await?["finished_at"].is_null() {}
        // So that no rhythm of ours falls in with one of theirs.
        sleep(Duration::from_millis(number as u64 * 7 % 31)).await;
    }
    let jobs = job::Entity::find()
        .all(service.database().await?.read())
        .await?;
    let waited = jobs.iter().filter_map(|job| {
        let waited = job.started_at? - job.created_at;
        Some(waited.to_std().unwrap_or_default())
    });
    let waited = Spread::new(waited.collect());
    Ok(vec![line(
        format!("pickup, {SINGLE_JOBS} single jobs, 1 worker"),
        spread(&waited),
    )])
}

/// Jobs per second, of a queue that is full from the start.
async fn drain(kind: Kind, agent: &str, workers: usize) -> Result<Lines> {
    let service = Service::new(kind, agent).await?;
    let db = service.database().await?;
    {
        let (_api, url) = service.api().await?;
        let user = User::register(&url, "ann").await?;
        let clients = (0..20).map(|_| {
            let user = user.clone();
            tokio::spawn(async move {
                for _ in 0..QUEUED_JOBS / 20 {
                    user.ask().await?;
                }
                anyhow::Ok(())
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await??;
        }
    }
    let workers: Vec<_> = (0..workers)
        .map(|_| service.worker(CONCURRENCY / workers))
        .collect::<Result<_>>()?;
    while unfinished(&db).await? > 0 {
        sleep(Duration::from_millis(200)).await;
    }
    let jobs = job::Entity::find().order_by_asc(job::Column::StartedAt);
    let jobs = jobs.all(db.read()).await?;
    let begun = jobs.iter().filter_map(|job| job.started_at).min();
    let ended = jobs.iter().filter_map(|job| job.finished_at).max();
    let took = ended.context("no end")? - begun.context("no begin")?;
    let (mut cpu, mut memory) = (Duration::ZERO, 0.0_f64);
    for worker in &workers {
        cpu += worker.cpu()?;
        memory = memory.max(worker.memory()?);
    }
    Ok(vec![line(
        format!("drain {QUEUED_JOBS} jobs, {} worker(s)", workers.len()),
        format!(
            "{:.0} jobs/s, {:.1} ms of a core a job, {memory:.0} MiB a worker",
            jobs.len() as f64 / took.as_seconds_f64(),
            cpu.as_secs_f64() * 1000.0 / jobs.len() as f64,
        ),
    )])
}

async fn unfinished(db: &Database) -> Result<u64> {
    use job::Status::{Canceling, Queued, Running};
    let unfinished = job::Column::Status.is_in([Queued, Running, Canceling]);
    Ok(job::Entity::find()
        .filter(unfinished)
        .count(db.read())
        .await?)
}

/// `POST /blogs`, with nobody at work.
async fn enqueue(kind: Kind, agent: &str) -> Result<Lines> {
    let service = Service::new(kind, agent).await?;
    let (api, url) = service.api().await?;
    let mut users = Vec::new();
    for number in 0..64 {
        users.push(User::register(&url, &format!("ann-{number}")).await?);
    }
    let mut lines = Vec::new();
    for clients in [1, 64] {
        let ask = |user: User| async move { user.ask().await };
        let rate = for_a_while(&users[..clients], WHILE, ask).await?;
        lines.push(line(
            format!("POST /blogs, {clients} client(s)"),
            format!("{:.0}/s, {}", rate.per_second, spread(&rate.latencies)),
        ));
    }
    lines.push(line("API after that", format!("{:.0} MiB", api.memory()?)));
    Ok(lines)
}

/// Reads of a new database, and of one that is full.
async fn reads(kind: Kind, agent: &str) -> Result<Lines> {
    let service = Service::new(kind, agent).await?;
    let (_api, url) = service.api().await?;
    let db = service.database().await?;
    let user = User::register(&url, "ann").await?;
    user::Entity::update_many()
        .col_expr(user::Column::Role, Expr::value(user::Role::Admin))
        .exec(db.raw_connection())
        .await?;
    let mut job = String::new();
    for _ in 0..30 {
        let post = user.ask().await?;
        post["job"]["id"]
            .as_str()
            .context("no job")?
            .clone_into(&mut job);
    }
    let worker = service.worker(CONCURRENCY)?;
    while unfinished(&db).await? > 0 {
        sleep(Duration::from_millis(50)).await;
    }
    drop(worker);
    let mut lines = Vec::new();
    for size in ["new", "a million jobs"] {
        if !lines.is_empty() {
            fill::fill(&db).await?;
        }
        for (clients, path) in [
            (16, format!("/jobs/{job}")),
            (16, "/blogs".to_owned()),
            (1, "/admin/jobs".to_owned()),
            (1, "/admin/jobs?status=failed".to_owned()),
            (1, "/admin/jobs?q=nowhere".to_owned()),
            (1, "/admin/queue".to_owned()),
        ] {
            let name = path.replace(&job, "{id}");
            let get = move |user: User| {
                let path = path.clone();
                async move { user.get(&path).await }
            };
            let rate = for_a_while(&vec![user.clone(); clients], WHILE, get).await?;
            lines.push(line(
                format!("GET {name}, {clients} client(s), {size}"),
                format!("{:.0}/s, {}", rate.per_second, spread(&rate.latencies)),
            ));
        }
    }
    Ok(lines)
}

fn spread(spread: &Spread) -> String {
    let [p50, p95, p99] = [50, 95, 99].map(|percent| spread.percentile(percent));
    format!("p50 {p50:.1} ms, p95 {p95:.1} ms, p99 {p99:.1} ms")
}
