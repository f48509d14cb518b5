//! How an attempt ended, and what follows from it.

use std::time::Duration;

use entity::attempt::Outcome;
use entity::job::lifecycle::{self, Lease};
use entity::job::{self, Failure};
use entity::post;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rand::RngExt;
use sea_orm::{DatabaseTransaction, DbErr};
use shared::queue::{self, Payload};
use tokio::time::sleep;

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
    /// This worker is stopping, or must not call its agent for long.
    Released,
    /// The database did not answer.
    Database(DbErr),
    /// A fault of ours.
    Panicked(String),
}

impl Stop {
    /// What operators learn; clients read less.
    pub(crate) fn log(&self) {
        match self {
            Stop::Agent(error) => tracing::warn!(%error, "the agent brought no text"),
            Stop::Database(error) => tracing::error!(%error, "the database stayed away"),
            Stop::Panicked(panic) => tracing::error!(panic, "an attempt panicked"),
            Stop::Canceling | Stop::Lost | Stop::Released => {}
        }
    }
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

/// How an attempt ended, as it is to be recorded.
#[derive(Clone, Debug)]
pub(crate) enum Ending {
    /// With a text.
    Written(post::Text),
    /// With a failure; the next attempt has to wait at least so long.
    Failed(Failure, Duration),
    /// It is given back.
    Released,
    /// It was called off.
    Canceled,
    /// The job is someone else's, or gone.
    Lost,
}

impl From<Result<post::Text, Stop>> for Ending {
    fn from(written: Result<post::Text, Stop>) -> Self {
        match written {
            Ok(text) => Ending::Written(text),
            Err(Stop::Agent(error)) => failed(&error),
            Err(Stop::Database(_) | Stop::Panicked(_)) => internal(),
            Err(Stop::Canceling) => Ending::Canceled,
            Err(Stop::Released) => Ending::Released,
            Err(Stop::Lost) => Ending::Lost,
        }
    }
}

/// What was recorded of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// The post is stored.
    Succeeded,
    /// The job is given up, with this code.
    Failed(&'static str),
    /// The job waits for another attempt.
    Retried(&'static str, Duration),
    /// The job is given back.
    Released,
    /// The job is canceled.
    Canceled,
    /// Nothing: the job is someone else's, or gone.
    Lost,
}

impl Record {
    /// How metrics and traces name it, and the code of its error, if it is one.
    pub(crate) fn words(record: Option<Self>) -> (&'static str, &'static str) {
        match record {
            Some(Record::Succeeded) => ("succeeded", ""),
            Some(Record::Failed(code)) => ("failed", code),
            Some(Record::Retried(code, _)) => ("retried", code),
            Some(Record::Released) => ("released", ""),
            Some(Record::Canceled) => ("canceled", ""),
            Some(Record::Lost) => ("lost", ""),
            None => ("unrecorded", ""),
        }
    }

    pub(crate) fn log(self) {
        match self {
            Record::Succeeded => tracing::info!("succeeded"),
            Record::Failed(code) => tracing::warn!(code, "failed, and will not be tried again"),
            Record::Retried(code, delay) => {
                tracing::warn!(code, ?delay, "failed, and will be tried again");
            }
            Record::Released => tracing::info!("given back"),
            Record::Canceled => tracing::info!("canceled"),
            Record::Lost => tracing::warn!("the job was taken from this worker, or is gone"),
        }
    }
}

/// No pause is longer, however many attempts there were.
const LONGEST_BACKOFF: Duration = Duration::from_secs(600);

/// How long a worker keeps trying to write down what was paid for.
const PERSISTENCE: Duration = Duration::from_secs(60);
/// The same once it should have stopped.
const PERSISTENCE_AT_STOP: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);

impl Worker {
    /// Does something that must be done, though the database may be away for a
    /// while.
    pub(crate) async fn insist<'a, T>(
        &self,
        work: impl Fn() -> BoxFuture<'a, Result<T, DbErr>>,
    ) -> Result<T, DbErr> {
        let insist = async {
            loop {
                match work().await {
                    Ok(done) => return done,
                    Err(error) => {
                        tracing::warn!(%error, "the database did not answer; trying again");
                    }
                }
                sleep(PAUSE).await;
            }
        };
        let stopped = async {
            self.release.cancelled().await;
            sleep(PERSISTENCE_AT_STOP).await;
        };
        let gave_up = || DbErr::Custom("the database stayed away".to_owned());
        tokio::select! {
            done = insist => Ok(done),
            () = sleep(PERSISTENCE) => Err(gave_up()),
            () = stopped => Err(gave_up()),
        }
    }

    /// Records how an attempt ended.
    pub(crate) async fn settle(
        &self,
        lease: &Lease,
        job: &job::Model,
        ending: &Ending,
    ) -> Result<Record, DbErr> {
        match ending {
            Ending::Lost => return Ok(Record::Lost),
            Ending::Written(text) if self.posts.add((*lease, text.clone())).await? => {
                return Ok(Record::Succeeded);
            }
            _ => {}
        }
        let ended = Ended {
            lease: *lease,
            job: job.clone(),
            pause: self.pause(job.attempt),
        };
        let ending = ending.clone();
        self.db
            .transact(move |tx| settle(tx, ended, ending).boxed())
            .await
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

/// An attempt that has ended.
struct Ended {
    lease: Lease,
    job: job::Model,
    /// How long to wait before the next one, if there is one.
    pause: Duration,
}

async fn settle(tx: &DatabaseTransaction, ended: Ended, ending: Ending) -> Result<Record, DbErr> {
    let lease = &ended.lease;
    let record = match &ending {
        Ending::Failed(failure, after) => ended.fail(tx, failure, *after).await?,
        Ending::Released => ended.release(tx).await?,
        Ending::Written(_) | Ending::Canceled | Ending::Lost => Record::Lost,
    };
    if record != Record::Lost {
        return Ok(record);
    }
    // Whatever the attempt brought, a cancel that came before it wins.
    if lifecycle::stopped(tx, lease).await? {
        return Ok(Record::Canceled);
    }
    // That a commit went well may be lost on the way: then it is recorded already.
    let recorded = lifecycle::recorded(tx, lease).await?;
    Ok(match (recorded, &ending) {
        (Some(Outcome::Succeeded), Ending::Written(_)) => Record::Succeeded,
        (Some(Outcome::Failed), Ending::Failed(failure, _)) if ended.is_last(failure) => {
            Record::Failed(failure.code)
        }
        (Some(Outcome::Failed), Ending::Failed(failure, after)) => {
            Record::Retried(failure.code, *after)
        }
        (Some(Outcome::Released), Ending::Released) => Record::Released,
        (Some(Outcome::Canceled), _) => Record::Canceled,
        _ => Record::Lost,
    })
}

impl Ended {
    /// Whether the job is given up after this failure.
    fn is_last(&self, failure: &Failure) -> bool {
        !failure.retryable || self.job.attempt >= self.job.max_attempts
    }

    /// Queues the job for another attempt, or gives it up.
    async fn fail(
        &self,
        tx: &DatabaseTransaction,
        failure: &Failure,
        after: Duration,
    ) -> Result<Record, DbErr> {
        if self.is_last(failure) {
            return Ok(match lifecycle::fail(tx, &self.lease, failure).await? {
                true => Record::Failed(failure.code),
                false => Record::Lost,
            });
        }
        let delay = self.pause.max(after);
        let delivery = queue::delivery_id(delay);
        if !lifecycle::retry_later(tx, &self.lease, failure, delay, &delivery).await? {
            return Ok(Record::Lost);
        }
        queue::push(tx, &delivery, Payload::next(&self.job), delay).await?;
        Ok(Record::Retried(failure.code, delay))
    }

    /// Gives the job back, to be taken at once.
    async fn release(&self, tx: &DatabaseTransaction) -> Result<Record, DbErr> {
        let delivery = queue::delivery_id(Duration::ZERO);
        if !lifecycle::release(tx, &self.lease, &delivery).await? {
            return Ok(Record::Lost);
        }
        let payload = Payload {
            job: self.job.id,
            attempt: self.job.attempt,
        };
        queue::push(tx, &delivery, payload, Duration::ZERO).await?;
        Ok(Record::Released)
    }
}

fn failed(error: &AgentError) -> Ending {
    let (kind, retryable, after) = match error {
        AgentError::Retry { failure, after, .. } => (*failure, true, *after),
        AgentError::Fatal { failure, .. } => (*failure, false, None),
    };
    let failure = Failure {
        code: kind.code(),
        message: message(kind).to_owned(),
        retryable,
    };
    Ending::Failed(failure, after.unwrap_or_default())
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

fn internal() -> Ending {
    let failure = Failure {
        code: "internal",
        message: "Something went wrong on our side.".to_owned(),
        retryable: true,
    };
    Ending::Failed(failure, Duration::ZERO)
}
