//! What is measured, each on a database of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration as Time;

use anyhow::{Context, Result};
use clap::Parser;
use entity::{job, user};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter};
use shared::database::Database;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use worker::metrics::Metrics;

use crate::agent::InstantAgent;
use crate::binaries::{Kind, Running, Service};
use crate::cores::{Cores, Share};
use crate::fill;
use crate::load::{Spread, User, for_a_while};
use crate::results::Row;

/// All that can be measured.
pub(crate) const MEASUREMENTS: [&str; 6] = ["idle", "pickup", "drain", "queue", "enqueue", "reads"];

const CONCURRENCY: usize = 64;

/// How long and how much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Duration {
    single_jobs: usize,
    queued_jobs: usize,
    load: Time,
    /// By then threads that only the start needed are gone, and their time with them.
    settled: Time,
    idle: Time,
    large_database: bool,
}

impl Duration {
    pub(crate) fn of(short: bool) -> Self {
        if short {
            return Duration {
                single_jobs: 50,
                queued_jobs: 500,
                load: Time::from_secs(1),
                settled: Time::from_secs(3),
                idle: Time::from_secs(2),
                large_database: false,
            };
        }
        Duration {
            single_jobs: 500,
            queued_jobs: 3000,
            load: Time::from_secs(5),
            settled: Time::from_secs(12),
            idle: Time::from_secs(10),
            large_database: true,
        }
    }
}

/// Whose programs are measured, on which database.
#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) kind: Kind,
    pub(crate) agent: String,
    pub(crate) cores: Cores,
    pub(crate) programs: PathBuf,
    pub(crate) time: Duration,
}

impl Bench {
    /// Measures one of [`MEASUREMENTS`].
    pub(crate) async fn measure(&self, name: &str) -> Result<Vec<Row>> {
        match name {
            "idle" => self.idle().await,
            "pickup" => self.pickup().await,
            "drain" => Ok(vec![self.drain(1).await?, self.drain(3).await?]),
            "queue" => self.queue().await,
            "enqueue" => self.enqueue().await,
            _ => self.reads().await,
        }
    }

    async fn service(&self) -> Result<Service> {
        Service::new(self.kind, &self.agent, &self.programs, self.cores).await
    }

    /// What both binaries use when there is nothing to do.
    async fn idle(&self) -> Result<Vec<Row>> {
        let service = self.service().await?;
        let (api, _) = service.api(Share::All).await?;
        let worker = service.worker(CONCURRENCY)?;
        sleep(self.time.settled).await;
        let before = (api.cpu()?, worker.cpu()?);
        sleep(self.time.idle).await;
        let row = |name: &str, program: &Running, before: Time| {
            let used = program.cpu()?.saturating_sub(before);
            let percent = used.as_secs_f64() / self.time.idle.as_secs_f64() * 100.0;
            anyhow::Ok([
                Row::new(format!("idle {name}, of a core"), percent, "%"),
                Row::new(format!("idle {name}, memory"), program.memory()?, "MiB"),
            ])
        };
        Ok([
            row("API", &api, before.0)?,
            row("worker", &worker, before.1)?,
        ]
        .concat())
    }

    /// From a job's acceptance to the beginning of its attempt, one at a time.
    async fn pickup(&self) -> Result<Vec<Row>> {
        let service = self.service().await?;
        let (_api, url) = service.api(Share::All).await?;
        let _worker = service.worker(CONCURRENCY)?;
        let user = User::register(&url, "ann").await?;
        for number in 0..self.time.single_jobs {
            let post = user.ask().await?;
            let job = post["job"]["id"].as_str().context("no job")?;
            let path = format!("/jobs/{job}?wait=30");
            while user.get(&path).await?["finished_at"].is_null() {}
            // So that no rhythm of ours falls in with one of theirs.
            sleep(Time::from_millis(number as u64 * 7 % 31)).await;
        }
        let jobs = job::Entity::find()
            .all(service.database().await?.read())
            .await?;
        let waited = jobs.iter().filter_map(|job| {
            let waited = job.started_at? - job.created_at;
            Some(waited.to_std().unwrap_or_default())
        });
        let waited = Spread::new(waited.collect());
        let row = Row::new("pickup of a job, p50", waited.percentile(50), "ms");
        Ok(vec![row.with_detail(waited.described())])
    }

    /// Jobs per second, of a queue that is full from the start, with an agent over HTTP.
    async fn drain(&self, workers: usize) -> Result<Row> {
        let service = self.service().await?;
        let db = service.database().await?;
        self.queue_jobs(&service).await?;
        let workers: Vec<_> = (0..workers)
            .map(|_| service.worker(CONCURRENCY / workers))
            .collect::<Result<_>>()?;
        let rate = finished_per_second(&db).await?;
        let (mut cpu, mut memory) = (Time::ZERO, 0.0_f64);
        for worker in &workers {
            cpu += worker.cpu()?;
            memory = memory.max(worker.memory()?);
        }
        let cost = cpu.as_secs_f64() * 1000.0 / self.time.queued_jobs as f64;
        let row = Row::new(
            format!("drain, {} worker(s)", workers.len()),
            rate,
            "jobs/s",
        );
        Ok(row.with_detail(format!(
            "{cost:.1} ms of a core a job, {memory:.0} MiB a worker"
        )))
    }

    /// The same with one worker and an agent in this process, which costs nothing: what the queue
    /// itself can do.
    async fn queue(&self) -> Result<Vec<Row>> {
        let service = self.service().await?;
        let db = service.database().await?;
        self.queue_jobs(&service).await?;
        let concurrency = format!("--worker-concurrency={CONCURRENCY}");
        let arguments = [
            "worker",
            "--agent=openai",
            "--agent-model=instant",
            "--agent-url=http://127.0.0.1:9/v1",
            "--agent-writing=guided",
            &concurrency,
        ];
        let config = worker::config::Config::parse_from(arguments);
        let researcher = Arc::new(worker::Researcher::new(&config)?);
        let metrics = Arc::new(Metrics::new(&config)?);
        let stop = CancellationToken::new();
        let (worker_db, until) = (service.database().await?, stop.clone());
        // On all cores, as a worker has them.
        let (cores, finished) = (self.cores, finished_per_second(&db));
        let worker = std::thread::spawn(move || {
            cores.restrict(Share::All)?;
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?;
            let agent = Arc::new(InstantAgent);
            let run = worker::run(&config, worker_db, agent, researcher, metrics, until);
            runtime.block_on(run);
            anyhow::Ok(())
        });
        let rate = finished.await;
        stop.cancel();
        let ended = tokio::task::spawn_blocking(move || worker.join()).await?;
        ended.map_err(|_| anyhow::anyhow!("the worker panicked"))??;
        Ok(vec![Row::new(
            "drain, 1 worker, agent in its process",
            rate?,
            "jobs/s",
        )])
    }

    /// Fills the queue, with no worker at work.
    async fn queue_jobs(&self, service: &Service) -> Result<()> {
        let (_api, url) = service.api(Share::All).await?;
        let user = User::register(&url, "ann").await?;
        let each = self.time.queued_jobs / 20;
        let clients = (0..20).map(|_| {
            let user = user.clone();
            tokio::spawn(async move {
                for _ in 0..each {
                    user.ask().await?;
                }
                anyhow::Ok(())
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await??;
        }
        Ok(())
    }

    /// `POST /blogs`, with nobody at work.
    async fn enqueue(&self) -> Result<Vec<Row>> {
        let service = self.service().await?;
        let (api, url) = service.api(Share::One).await?;
        let mut users = Vec::new();
        for number in 0..64 {
            users.push(User::register(&url, &format!("ann-{number}")).await?);
        }
        let mut rows = Vec::new();
        for clients in [1, 16, 64] {
            let ask = |user: User| async move { user.post_topic().await };
            let rate = for_a_while(&users[..clients], self.time.load, ask).await?;
            rows.push(rate.row(format!("POST /blogs, {clients} client(s)")));
        }
        rows.push(Row::new("API after that, memory", api.memory()?, "MiB"));
        Ok(rows)
    }

    /// Reads of a new database, and of one that is full.
    async fn reads(&self) -> Result<Vec<Row>> {
        let service = self.service().await?;
        let (_api, url) = service.api(Share::One).await?;
        let db = service.database().await?;
        let user = User::register(&url, "ann").await?;
        user::Entity::update_many()
            .col_expr(user::Column::Role, Expr::value(user::Role::Admin))
            .exec(db.raw_connection())
            .await?;
        let (mut post, mut job) = (String::new(), String::new());
        for _ in 0..30 {
            let made = user.ask().await?;
            made["id"]
                .as_str()
                .context("no post")?
                .clone_into(&mut post);
            let id = made["job"]["id"].as_str().context("no job")?;
            id.clone_into(&mut job);
        }
        let worker = service.worker(CONCURRENCY)?;
        while unfinished(&db).await? > 0 {
            sleep(Time::from_millis(50)).await;
        }
        drop(worker);
        let mut rows = Vec::new();
        for size in ["", ", a million jobs"] {
            if !size.is_empty() {
                if !self.time.large_database {
                    break;
                }
                fill::fill(&db).await?;
            }
            for (clients, path) in [
                (16, format!("/jobs/{job}")),
                (16, format!("/blogs/{post}")),
                (16, "/blogs?limit=20".to_owned()),
                (16, "/users/me".to_owned()),
                (1, "/admin/jobs".to_owned()),
                (1, "/admin/jobs?status=failed".to_owned()),
                (1, "/admin/jobs?q=nowhere".to_owned()),
                (1, "/admin/queue".to_owned()),
            ] {
                let name = path.replace(&job, "{id}").replace(&post, "{id}");
                let get = move |user: User| {
                    let path = path.clone();
                    async move { user.read(&path).await }
                };
                let clients = vec![user.clone(); clients];
                let rate = for_a_while(&clients, self.time.load, get).await?;
                let n = clients.len();
                rows.push(rate.row(format!("GET {name}, {n} client(s){size}")));
            }
        }
        Ok(rows)
    }
}

/// Waits until all jobs are over; how many ended in a second.
async fn finished_per_second(db: &Database) -> Result<f64> {
    while unfinished(db).await? > 0 {
        sleep(Time::from_millis(200)).await;
    }
    let jobs = job::Entity::find().all(db.read()).await?;
    let begun = jobs.iter().filter_map(|job| job.started_at).min();
    let ended = jobs.iter().filter_map(|job| job.finished_at).max();
    let took = ended.context("no end")? - begun.context("no begin")?;
    Ok(jobs.len() as f64 / took.as_seconds_f64())
}

async fn unfinished(db: &Database) -> Result<u64> {
    use job::Status::{Canceling, Queued, Running};
    let unfinished = job::Column::Status.is_in([Queued, Running, Canceling]);
    Ok(job::Entity::find()
        .filter(unfinished)
        .count(db.read())
        .await?)
}
