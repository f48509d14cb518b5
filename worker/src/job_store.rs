//! The worker's writes to the database: batched where many attempts write at once, and
//! retried while the database is unavailable.

use std::ops::Range;
use std::time::Duration;

use entity::grounding::Grounding;
use entity::job::{Phase, Warning};
use entity::source::{self, FoundPage, ReadSource};
use entity::{job, job_event, post, step};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rand::RngExt;
use sea_orm::DbErr;
use sea_orm::prelude::Uuid;
use shared::batcher::Batcher;
use shared::database::Database;
use shared::events::{Compacted, Snapshot};
use shared::queue::{
    self, AttemptResult, AttemptUpdate, Checkpoint, ClaimRequest, ClaimedJob, Lease, LeaseStatus,
    RecordedOutcome, UpdateResult, WrittenPost,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// No retry of a job waits longer, however many attempts there were.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(600);

/// How long a worker tries to store what an agent was paid for.
const DB_RETRY_WINDOW: Duration = Duration::from_secs(60);
/// The same once running jobs are to be released.
const DB_RETRY_WINDOW_AT_STOP: Duration = Duration::from_secs(5);
const DB_RETRY_INTERVAL: Duration = Duration::from_millis(500);

pub(crate) struct JobStore {
    db: Database,
    /// Claims the next job, if one is queued.
    claims: Batcher<ClaimRequest, Option<ClaimedJob>>,
    checkpoints: Batcher<(Lease, Checkpoint), LeaseStatus>,
    updates: Batcher<(Lease, AttemptUpdate), UpdateResult>,
    /// Stores posts; false if the attempt no longer holds its job.
    posts: Batcher<(Lease, WrittenPost), bool>,
    backoff: Duration,
    /// Canceled when running jobs are to be released.
    release: CancellationToken,
}

impl JobStore {
    /// Jobs are claimed by `worker` for `lease` and begin with `first_phase`.
    pub(crate) fn new(
        db: Database,
        worker: &str,
        lease: Duration,
        first_phase: Phase,
        backoff: Duration,
        release: CancellationToken,
    ) -> Self {
        let worker = worker.to_owned();
        JobStore {
            claims: Batcher::new(db.clone(), move |tx, claims, _| {
                let worker = worker.clone();
                async move { queue::claim(tx, &worker, lease, first_phase, &claims).await }.boxed()
            }),
            checkpoints: Batcher::new(db.clone(), |tx, done, lock_mode| {
                async move { queue::checkpoint(tx, &done, lock_mode).await }.boxed()
            }),
            updates: Batcher::new(db.clone(), |tx, updates, lock_mode| {
                async move { queue::update(tx, &updates, lock_mode).await }.boxed()
            }),
            posts: Batcher::new(db.clone(), |tx, written, lock_mode| {
                async move { queue::complete(tx, &written, lock_mode).await }.boxed()
            }),
            db,
            backoff,
            release,
        }
    }

    pub(crate) fn db(&self) -> &Database {
        &self.db
    }

    pub(crate) async fn claim(&self, request: ClaimRequest) -> Result<Option<ClaimedJob>, DbErr> {
        self.retry(|| self.claims.submit(request.clone()).boxed())
            .await
    }

    pub(crate) async fn release_delivery(&self, delivery: String) {
        let released = self
            .db
            .transaction(async move |tx| queue::release_delivery(tx, &delivery).await);
        if let Err(error) = released.await {
            tracing::warn!(%error, "can't release a delivery; the sweep will replace it");
        }
    }

    /// A job's finished steps, in their order.
    pub(crate) async fn finished_steps(&self, job: Uuid) -> Result<Vec<step::Model>, DbErr> {
        self.retry(|| step::Entity::of_job(job).all(self.db.read()).boxed())
            .await
    }

    /// The title and content from which a job starts; None if they are not kept any more.
    pub(crate) async fn base_text(
        &self,
        post: Uuid,
        version: i32,
    ) -> Result<Option<(Option<String>, String)>, DbErr> {
        let find = || post::Entity::find_text(self.db.read(), post, version).boxed();
        self.retry(find).await
    }

    /// How the citations of a post's present text hold.
    pub(crate) async fn grounding(&self, post: Uuid) -> Result<Grounding, DbErr> {
        let find = || post::Entity::find_grounding(self.db.read(), post).boxed();
        self.retry(find).await
    }

    /// The sources of a post.
    pub(crate) async fn sources(&self, post: Uuid) -> Result<Vec<source::Model>, DbErr> {
        self.retry(|| source::Entity::of_post(post).all(self.db.read()).boxed())
            .await
    }

    /// Stores what was found in a source.
    pub(crate) async fn store_source(
        &self,
        source: &source::Model,
        found: ReadSource,
    ) -> Result<(), DbErr> {
        self.retry(|| {
            let (source, found) = (source.clone(), found.clone());
            let stored =
                async move |tx: &_| source::Entity::set_read(tx, &source, found.clone()).await;
            self.db.transaction(stored).boxed()
        })
        .await
    }

    /// Stores the pages that a search has found, with the step that says so, and renews the lease.
    pub(crate) async fn set_found_pages(
        &self,
        lease: Lease,
        step: i32,
        pages: Vec<FoundPage>,
        max: usize,
    ) -> Result<LeaseStatus, DbErr> {
        self.retry(|| {
            let pages = pages.clone();
            let stored =
                async move |tx: &_| queue::set_found_pages(tx, lease, step, pages, max).await;
            self.db.transaction(stored).boxed()
        })
        .await
    }

    /// What a job's events have told, and the number of the last one.
    pub(crate) async fn told(&self, job: Uuid) -> Result<(Snapshot, i32), DbErr> {
        let read = || job_event::Entity::of_job(job).all(self.db.read()).boxed();
        let rows = self.retry(read).await?;
        let last = rows.last().map_or(0, |row| row.seq);
        Ok((Compacted::of(&rows).state(), last))
    }

    /// Stores how far an attempt is and what has happened in it, and renews its lease. This is not
    /// retried: the next update is soon enough.
    pub(crate) async fn update(
        &self,
        lease: Lease,
        update: AttemptUpdate,
    ) -> Result<UpdateResult, DbErr> {
        self.updates.submit((lease, update)).await
    }

    /// Stores the warnings of an attempt's job, and renews its lease.
    pub(crate) async fn set_warnings(
        &self,
        lease: Lease,
        warnings: &[Warning],
    ) -> Result<LeaseStatus, DbErr> {
        self.retry(|| {
            let warnings = warnings.to_vec();
            let renewed = async move |tx: &_| queue::set_warnings(tx, lease, &warnings).await;
            self.db.transaction(renewed).boxed()
        })
        .await
    }

    pub(crate) async fn checkpoint(
        &self,
        lease: Lease,
        done: Checkpoint,
    ) -> Result<LeaseStatus, DbErr> {
        let done = (lease, done);
        self.retry(|| self.checkpoints.submit(done.clone()).boxed())
            .await
    }

    /// Removes finished steps, and renews the lease.
    pub(crate) async fn discard_steps(
        &self,
        lease: Lease,
        positions: Range<i32>,
    ) -> Result<LeaseStatus, DbErr> {
        self.retry(|| {
            let positions = positions.clone();
            let renewed = async move |tx: &_| queue::discard_steps(tx, lease, positions).await;
            self.db.transaction(renewed).boxed()
        })
        .await
    }

    /// Records how an attempt ended.
    pub(crate) async fn record(
        &self,
        lease: Lease,
        job: &job::Model,
        result: &AttemptResult,
    ) -> Result<RecordedOutcome, DbErr> {
        self.retry(|| self.record_once(lease, job, result).boxed())
            .await
    }

    async fn record_once(
        &self,
        lease: Lease,
        job: &job::Model,
        result: &AttemptResult,
    ) -> Result<RecordedOutcome, DbErr> {
        match result {
            AttemptResult::Lost => return Ok(RecordedOutcome::Lost),
            AttemptResult::Written(post) if self.posts.submit((lease, post.clone())).await? => {
                return Ok(RecordedOutcome::Succeeded);
            }
            _ => {}
        }
        let (job, result) = (job.clone(), result.clone());
        let delay = self.retry_delay(job.attempt);
        self.db
            .transaction(async move |tx| queue::record(tx, &lease, &job, &result, delay).await)
            .await
    }

    /// How long to wait after an attempt: exponential, with full jitter, so that
    /// jobs that failed together don't come back together.
    /// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>
    fn retry_delay(&self, attempt: i32) -> Duration {
        let doublings = u32::try_from(attempt - 1).unwrap_or(0).min(20);
        let longest = self.backoff.saturating_mul(1 << doublings);
        longest.min(MAX_RETRY_DELAY).mul_f64(rand::rng().random())
    }

    /// Tries until the database has done it, or for [`DB_RETRY_WINDOW`].
    async fn retry<'a, T>(
        &self,
        operation: impl Fn() -> BoxFuture<'a, Result<T, DbErr>>,
    ) -> Result<T, DbErr> {
        let done = async {
            loop {
                match operation().await {
                    Ok(done) => return done,
                    Err(error) => tracing::warn!(%error, "the database failed; trying again"),
                }
                sleep(DB_RETRY_INTERVAL).await;
            }
        };
        let stopped = async {
            self.release.cancelled().await;
            sleep(DB_RETRY_WINDOW_AT_STOP).await;
        };
        let gave_up = || DbErr::Custom("the database is unavailable".to_owned());
        tokio::select! {
            done = done => Ok(done),
            () = sleep(DB_RETRY_WINDOW) => Err(gave_up()),
            () = stopped => Err(gave_up()),
        }
    }
}
