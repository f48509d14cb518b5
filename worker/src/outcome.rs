//! How an attempt ended, and what follows from it.

use std::time::Duration;

use entity::job::lifecycle::{self, Lease};
use entity::job::{self, Failure};
use entity::post;
use futures_util::future::BoxFuture;
use rand::RngExt;
use sea_orm::{DatabaseTransaction, DbErr};
use shared::queue::{self, Payload};

use crate::Worker;
use crate::agent::{self, AgentError};

/// Why an attempt ended without a text.
#[derive(Debug)]
pub enum Stop {
    /// The agent brought none.
    Agent(AgentError),
    /// The owner called it off.
    Canceling,
    /// The job is someone else's, or gone.
    Lost,
    /// This worker is stopping.
    Released,
    /// The database did not answer.
    Database(DbErr),
    /// A fault of ours.
    Panicked(String),
}

impl From<AgentError> for Stop {
    fn from(error: AgentError) -> Self {
        Stop::Agent(error)
    }
}

impl From<DbErr> for Stop {
    fn from(error: DbErr) -> Self {
        Stop::Database(error)
    }
}

/// What is to be done about an attempt that failed.
struct Verdict {
    failure: Failure,
    /// How long to wait at least.
    after: Duration,
}

/// No pause is longer, however many attempts there were.
const LONGEST_BACKOFF: Duration = Duration::from_secs(600);

const PERSISTENCE: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);

impl Worker {
    /// Does something that must be done, though the database may be away for a
    /// moment.
    pub(crate) async fn insist<'a, T>(
        &self,
        work: impl Fn() -> BoxFuture<'a, Result<T, DbErr>>,
    ) -> Result<T, DbErr> {
        for _ in 1..PERSISTENCE {
            match work().await {
                Ok(done) => return Ok(done),
                Err(error) => tracing::warn!(%error, "the database did not answer; trying again"),
            }
            tokio::time::sleep(PAUSE).await;
        }
        work().await
    }

    /// Records how an attempt ended, in one transaction.
    pub(crate) async fn settle(
        &self,
        lease: &Lease,
        job: &job::Model,
        written: &Result<post::Text, Stop>,
    ) -> Result<(), DbErr> {
        let tx = self.db.begin().await?;
        let kept = match written {
            Ok(text) => {
                let kept = lifecycle::finish(&tx, lease, text).await?;
                if kept {
                    tracing::info!("succeeded");
                }
                kept
            }
            Err(Stop::Lost) => {
                tracing::warn!("the job was taken from this worker, or is gone");
                return Ok(());
            }
            Err(Stop::Canceling) => false,
            Err(Stop::Released) => release(&tx, lease, job).await?,
            Err(Stop::Agent(error)) => self.fail(&tx, lease, job, verdict(error)).await?,
            Err(Stop::Database(error)) => {
                tracing::error!(%error, "the database did not answer in time");
                self.fail(&tx, lease, job, internal()).await?
            }
            Err(Stop::Panicked(panic)) => {
                tracing::error!(panic, "an attempt panicked");
                self.fail(&tx, lease, job, internal()).await?
            }
        };
        // Whatever the attempt brought, a cancel that came before it wins.
        if !kept && lifecycle::stopped(&tx, lease).await? {
            tracing::info!("canceled");
        }
        tx.commit().await
    }

    /// Queues the job for another attempt, or gives it up.
    async fn fail(
        &self,
        tx: &DatabaseTransaction,
        lease: &Lease,
        job: &job::Model,
        Verdict { failure, after }: Verdict,
    ) -> Result<bool, DbErr> {
        let code = failure.code;
        if !failure.retryable || job.attempt >= job.max_attempts {
            let kept = lifecycle::fail(tx, lease, &failure).await?;
            if kept {
                tracing::warn!(code, "failed, and will not be tried again");
            }
            return Ok(kept);
        }
        let delay = self.pause(job.attempt).max(after);
        let delivery = queue::delivery_id(delay);
        let kept = lifecycle::retry_later(tx, lease, &failure, delay, &delivery).await?;
        if kept {
            let payload = Payload {
                job: job.id,
                attempt: job.attempt + 1,
            };
            queue::push(tx, &delivery, payload, delay).await?;
            tracing::warn!(code, ?delay, "failed, and will be tried again");
        }
        Ok(kept)
    }

    /// How long to wait after an attempt: exponential, with full jitter, so that
    /// jobs that failed together don't come back together.
    /// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>
    fn pause(&self, attempt: i32) -> Duration {
        let doublings = u32::try_from(attempt - 1).unwrap_or(0).min(20);
        let longest = self.backoff.saturating_mul(1 << doublings);
        longest.min(LONGEST_BACKOFF).mul_f64(rand::rng().random())
    }
}

/// Gives the job back, to be taken at once.
async fn release(tx: &DatabaseTransaction, lease: &Lease, job: &job::Model) -> Result<bool, DbErr> {
    let delivery = queue::delivery_id(Duration::ZERO);
    let kept = lifecycle::release(tx, lease, &delivery).await?;
    if kept {
        let payload = Payload {
            job: job.id,
            attempt: job.attempt,
        };
        queue::push(tx, &delivery, payload, Duration::ZERO).await?;
        tracing::info!("given back, for this worker stops");
    }
    Ok(kept)
}

fn verdict(error: &AgentError) -> Verdict {
    tracing::warn!(%error, "the agent brought no text");
    let (kind, retryable, after) = match error {
        AgentError::Retry { failure, after, .. } => (*failure, true, *after),
        AgentError::Fatal { failure, .. } => (*failure, false, None),
    };
    Verdict {
        failure: Failure {
            code: kind.code(),
            message: message(kind).to_owned(),
            retryable,
        },
        after: after.unwrap_or_default(),
    }
}

/// What the client reads: no keys, no addresses, nothing the provider said.
fn message(kind: agent::Failure) -> &'static str {
    match kind {
        agent::Failure::Unavailable => "The writing agent can't be reached.",
        agent::Failure::RateLimited => {
            "The writing agent has too much to do, or its quota is used up."
        }
        agent::Failure::Rejected => "The writing agent refused the request.",
        agent::Failure::Timeout => "The writing agent took too long.",
        agent::Failure::BadOutput => "The writing agent brought nothing usable.",
    }
}

fn internal() -> Verdict {
    Verdict {
        failure: Failure {
            code: "internal",
            message: "Something went wrong on our side.".to_owned(),
            retryable: true,
        },
        after: Duration::ZERO,
    }
}
