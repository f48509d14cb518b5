//! The job's state machine, each step by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use entity::job::{self, Outline, Phase, PlannedSection, Status};
use entity::{attempt, job_event, post, queue_state, step};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, PaginatorTrait, QueryFilter,
};
use shared::events::{Compacted, JobEvent, Snapshot, SnapshotSection, StoredEvents};
use shared::queue::{
    AttemptResult, AttemptUpdate, Checkpoint, ClaimRequest, JobError, JobQuota, Lease, LeaseStatus,
    LockMode, Progress, RecordedOutcome, RequestOrigin, RescueOutcome, RetriedBy, UpdateResult,
    WrittenPost, approve, cancel, checkpoint, claim, complete, expired_leases, record, redeliver,
    rescue, retry, set_outline, update,
};
use testing::{TestClient, text};
use uuid::Uuid;

use crate::support::TestApp;

const MINUTE: Duration = Duration::from_secs(60);

/// What can be done to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Claim,
    Progress,
    Checkpoint,
    Finish,
    Fail,
    RetryLater,
    Release,
    Stopped,
    Cancel,
    Requeue,
    RescueOfTheLiving,
    RescueOfTheLost,
    Redeliver,
    Plan,
    ChangeOutline,
    Approve,
}

const STEPS: [Step; 16] = [
    Step::Claim,
    Step::Progress,
    Step::Checkpoint,
    Step::Finish,
    Step::Fail,
    Step::RetryLater,
    Step::Release,
    Step::Stopped,
    Step::Cancel,
    Step::Requeue,
    Step::RescueOfTheLiving,
    Step::RescueOfTheLost,
    Step::Redeliver,
    Step::Plan,
    Step::ChangeOutline,
    Step::Approve,
];

const STATUSES: [Status; 7] = [
    Status::Queued,
    Status::Running,
    Status::AwaitingReview,
    Status::Canceling,
    Status::Succeeded,
    Status::Failed,
    Status::Canceled,
];

/// What each step makes of a job; it changes nothing in any other status.
fn allowed(status: Status, step: Step) -> Option<Status> {
    use Status::{AwaitingReview, Canceled, Canceling, Failed, Queued, Running, Succeeded};
    Some(match (status, step) {
        (Queued, Step::Claim) => Running,
        (Queued | AwaitingReview, Step::Cancel) => Canceled,
        (Running, Step::Plan) => AwaitingReview,
        (AwaitingReview, Step::ChangeOutline) => AwaitingReview,
        (AwaitingReview, Step::Approve) => Queued,
        (Queued, Step::Redeliver) => Queued,
        (Running, Step::Progress | Step::Checkpoint) => Running,
        (Running, Step::Finish) => Succeeded,
        (Running, Step::Fail) => Failed,
        (Running, Step::RetryLater | Step::Release | Step::RescueOfTheLost) => Queued,
        (Running | Canceling, Step::Cancel) => Canceling,
        // The holder learns by them that it is to stop.
        (Canceling, Step::Progress | Step::Checkpoint) => Canceling,
        (Canceling, Step::Stopped | Step::RescueOfTheLost) => Canceled,
        // Whatever the attempt brings, the cancel came before it.
        (Canceling, Step::Fail | Step::RetryLater | Step::Release | Step::Plan) => Canceled,
        (Failed | Canceled, Step::Requeue) => Queued,
        _ => return None,
    })
}

fn failure(retryable: bool) -> AttemptResult {
    let error = JobError {
        code: "agent_timeout",
        message: "Too slow.".to_owned(),
        retryable,
    };
    AttemptResult::Failed(error, Duration::ZERO)
}

/// What is recorded of an attempt that ends so.
async fn record_result(
    tx: &DatabaseTransaction,
    lease: &Lease,
    result: AttemptResult,
) -> RecordedOutcome {
    let job = row(tx, lease.job).await;
    record(tx, lease, &job, &result, MINUTE).await.unwrap()
}

async fn release(tx: &DatabaseTransaction, lease: &Lease) -> bool {
    record_result(tx, lease, AttemptResult::Released).await == RecordedOutcome::Released
}

async fn fail(tx: &DatabaseTransaction, lease: &Lease) -> bool {
    let recorded = record_result(tx, lease, failure(false)).await;
    recorded == RecordedOutcome::Failed("agent_timeout")
}

async fn confirm_cancel(tx: &DatabaseTransaction, lease: &Lease) -> bool {
    record_result(tx, lease, AttemptResult::Canceled).await == RecordedOutcome::Canceled
}

fn outline() -> Outline {
    let section = PlannedSection {
        heading: "One".to_owned(),
        about: String::new(),
    };
    Outline {
        title: "Title".to_owned(),
        sections: vec![section],
    }
}

fn new_text() -> post::PostContent {
    post::PostContent::new(Some("Title".to_owned()), "Some text.".to_owned())
}

const HALF: Progress = Progress {
    phase: Phase::Writing,
    percent: 50,
    words: 100,
};

fn section(position: i32) -> Checkpoint {
    Checkpoint {
        progress: HALF,
        position,
        content: "A section.".to_owned(),
        input_tokens: 3,
        output_tokens: 4,
    }
}

async fn row(tx: &DatabaseTransaction, id: Uuid) -> job::Model {
    job::Entity::find_by_id(id).one(tx).await.unwrap().unwrap()
}

/// So many new attempts that want a job.
fn requests(count: usize) -> Vec<ClaimRequest> {
    let request = || ClaimRequest {
        attempt: Uuid::now_v7(),
        delivery_id: None,
    };
    std::iter::repeat_with(request).take(count).collect()
}

async fn claim_jobs(
    tx: &DatabaseTransaction,
    worker: &str,
    requests: &[ClaimRequest],
) -> Vec<(Lease, job::Model)> {
    let claimed = claim(tx, worker, MINUTE, Phase::Outline, requests).await;
    let claimed = claimed.unwrap().into_iter().flatten();
    claimed
        .map(|claimed| (claimed.lease, claimed.job))
        .collect()
}

/// Claims whichever job is first in line.
async fn first(tx: &DatabaseTransaction, worker: &str) -> Option<(Lease, job::Model)> {
    claim_jobs(tx, worker, &requests(1)).await.pop()
}

/// A post of whose text nothing was told.
fn written(content: post::PostContent) -> WrittenPost {
    WrittenPost {
        content,
        events: Vec::new(),
        after: 0,
        told: Snapshot::default(),
    }
}

async fn renews(tx: &DatabaseTransaction, lease: Lease) -> LeaseStatus {
    let half = AttemptUpdate {
        progress: HALF,
        events: Vec::new(),
        after: 0,
    };
    let results = update(tx, &[(lease, half)], LockMode::Wait).await;
    results.unwrap()[0].status
}

/// Whether the post was stored.
async fn finishes(tx: &DatabaseTransaction, lease: &Lease, text: post::PostContent) -> bool {
    complete(tx, &[(*lease, written(text))], LockMode::Wait)
        .await
        .unwrap()
        == [true]
}

async fn keeps(tx: &DatabaseTransaction, lease: &Lease, done: Checkpoint) -> LeaseStatus {
    checkpoint(tx, &[(*lease, done)], LockMode::Wait)
        .await
        .unwrap()[0]
}

/// A new job, claimed.
async fn running(app: &TestApp, ann: &TestClient) -> Lease {
    let asked = ann.create_post("States").await;
    let id: Uuid = text(&asked["job"]["id"]).parse().unwrap();
    let tx = app.begin().await;
    let (lease, claimed) = first(&tx, "w1").await.unwrap();
    assert_eq!((claimed.id, claimed.attempt), (id, 1));
    tx.commit().await.unwrap();
    lease
}

/// Brings a running job into a status; what held it may hold it no longer.
async fn bring(tx: &DatabaseTransaction, lease: &Lease, status: Status) {
    match status {
        Status::Running => {}
        Status::Queued => assert!(release(tx, lease).await),
        Status::AwaitingReview => {
            let planned = AttemptResult::Planned(outline());
            let recorded = record_result(tx, lease, planned).await;
            assert_eq!(recorded, RecordedOutcome::AwaitingReview);
        }
        Status::Succeeded => assert!(finishes(tx, lease, new_text()).await),
        Status::Failed => assert!(fail(tx, lease).await),
        Status::Canceling | Status::Canceled => {
            let canceling = cancel(tx, lease.job, false).await.unwrap().unwrap();
            assert_eq!(canceling.status, Status::Canceling);
            if status == Status::Canceled {
                assert!(confirm_cancel(tx, lease).await);
            }
        }
    }
}

async fn expire(tx: &DatabaseTransaction) {
    let past = "UPDATE generation_jobs SET lease_until = '2020-01-01T00:00:00+00:00' \
                WHERE lease_until IS NOT NULL";
    tx.execute_unprepared(past).await.unwrap();
}

/// Whether the step was taken.
async fn take(tx: &DatabaseTransaction, lease: &Lease, taken: Step) -> bool {
    let before = row(tx, lease.job).await;
    match taken {
        Step::Claim => first(tx, "w2").await.is_some(),
        Step::Progress => renews(tx, *lease).await != LeaseStatus::Lost,
        Step::Checkpoint => keeps(tx, lease, section(1)).await != LeaseStatus::Lost,
        Step::Finish => finishes(tx, lease, new_text()).await,
        Step::Fail | Step::RetryLater | Step::Release | Step::Stopped | Step::Plan => {
            let result = match taken {
                Step::Plan => AttemptResult::Planned(outline()),
                Step::Fail => failure(false),
                Step::RetryLater => failure(true),
                Step::Release => AttemptResult::Released,
                _ => AttemptResult::Canceled,
            };
            record_result(tx, lease, result).await;
            row(tx, lease.job).await != before
        }
        Step::Cancel => cancel(tx, lease.job, false).await.unwrap().is_some(),
        Step::Requeue => {
            let origin = RequestOrigin::default();
            let retried = retry(tx, &before, RetriedBy::Owner, JobQuota::Left(1), 5, origin).await;
            retried.is_ok()
        }
        Step::RescueOfTheLiving | Step::RescueOfTheLost => {
            rescue(tx, &before).await.unwrap() != RescueOutcome::Skipped
        }
        Step::Redeliver => redeliver(tx, &before).await.unwrap(),
        Step::ChangeOutline => {
            let changed = set_outline(tx, lease.job, &outline()).await;
            changed.unwrap().is_some()
        }
        Step::Approve => {
            let origin = RequestOrigin::default();
            let approved = approve(tx, &before, JobQuota::Left(1), 5, origin).await;
            approved.is_ok()
        }
    }
}

#[tokio::test]
async fn every_transition_is_made_from_its_own_statuses_only() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let lease = running(&app, &ann).await;
    let mut taken = BTreeMap::new();
    for status in STATUSES {
        for step in STEPS {
            // All of it is rolled back, so that the next begins anew.
            let tx = app.begin().await;
            bring(&tx, &lease, status).await;
            if step == Step::RescueOfTheLost {
                expire(&tx).await;
            }
            let before = row(&tx, lease.job).await;
            assert_eq!(before.status, status);
            let post = post::Entity::find_by_id(before.post_id);
            let post_before = post.clone().one(&tx).await.unwrap();
            let is_taken = take(&tx, &lease, step).await;
            let after = row(&tx, lease.job).await;
            let at = format!("{step:?} of a job that is {status:?}");
            match allowed(status, step) {
                Some(expected) => assert_eq!((is_taken, after.status), (true, expected), "{at}"),
                None => {
                    assert!(!is_taken, "{at}");
                    assert_eq!(after, before, "{at}");
                    assert_eq!(post.one(&tx).await.unwrap(), post_before, "{at}");
                }
            }
            assert_consistent(&tx, &after, &at).await;
            *taken.entry(step).or_insert(0) += usize::from(is_taken);
            tx.rollback().await.unwrap();
        }
    }
    taken.remove(&Step::RescueOfTheLiving);
    assert!(taken.values().all(|times| *times > 0), "{taken:?}");
    let tx = app.begin().await;
    assert!(finishes(&tx, &lease, new_text()).await);
    tx.commit().await.unwrap();
    app.run_jobs().await;
}

/// What must be true of a job and its post in any status.
async fn assert_consistent(tx: &DatabaseTransaction, job: &job::Model, at: &str) {
    let held = matches!(job.status, Status::Running | Status::Canceling);
    assert_eq!(job.attempt_id.is_some(), held, "{at}");
    assert_eq!(job.lease_until.is_some(), held, "{at}");
    assert_eq!(job.finished_at.is_some(), job.status.is_finished(), "{at}");
    assert!(
        job.delivery_id.is_some() || job.status != Status::Queued,
        "{at}"
    );
    assert!(held || job.phase.is_none(), "{at}");
    let post = post::Entity::find_by_id(job.post_id)
        .one(tx)
        .await
        .unwrap()
        .unwrap();
    let expected = match job.status {
        Status::Queued | Status::Running | Status::AwaitingReview | Status::Canceling => {
            post::Status::Generating
        }
        Status::Succeeded => post::Status::Ready,
        Status::Failed => post::Status::Failed,
        Status::Canceled => post::Status::Canceled,
    };
    assert_eq!(post.status, expected, "{at}");
    let open = attempt::Entity::find()
        .filter(attempt::Column::JobId.eq(job.id))
        .filter(attempt::Column::FinishedAt.is_null());
    assert_eq!(open.count(tx).await.unwrap(), u64::from(held), "{at}");
}

#[tokio::test]
async fn a_worker_that_was_replaced_writes_nothing_more() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let late = running(&app, &ann).await;
    let tx = app.begin().await;
    expire(&tx).await;
    let lost = row(&tx, late.job).await;
    assert_eq!(rescue(&tx, &lost).await.unwrap(), RescueOutcome::Requeued);
    assert_eq!(
        rescue(&tx, &lost).await.unwrap(),
        RescueOutcome::Skipped,
        "twice"
    );
    let (present, before) = first(&tx, "w2").await.unwrap();

    for step in [
        Step::Progress,
        Step::Checkpoint,
        Step::Finish,
        Step::Fail,
        Step::RetryLater,
        Step::Release,
        Step::Stopped,
        Step::Plan,
    ] {
        assert!(!take(&tx, &late, step).await, "{step:?}");
        assert_eq!(row(&tx, late.job).await, before, "{step:?}");
    }
    let steps = step::Entity::of_job(late.job).count(&tx).await.unwrap();
    assert_eq!(steps, 0);
    assert!(finishes(&tx, &present, new_text()).await);
    let over = row(&tx, late.job).await;
    let late_text = post::PostContent::new(None, "Late.".to_owned());
    assert!(!finishes(&tx, &late, late_text).await);
    assert_eq!(row(&tx, late.job).await, over);
    let post = post::Entity::find_by_id(over.post_id)
        .one(&tx)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(post.content.as_deref(), Some("Some text."));
    tx.commit().await.unwrap();
    app.run_jobs().await;
}

#[tokio::test]
async fn a_worker_that_was_only_slow_keeps_its_job() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let lease = running(&app, &ann).await;
    let tx = app.begin().await;
    assert!(expired_leases(&tx, 9).await.unwrap().is_empty());
    expire(&tx).await;
    let found = expired_leases(&tx, 9).await.unwrap();
    assert_eq!(found.len(), 1);
    // It is heard of after all, just before it would be rescued.
    assert_eq!(renews(&tx, lease).await, LeaseStatus::Active);
    assert_eq!(
        rescue(&tx, &found[0]).await.unwrap(),
        RescueOutcome::Skipped
    );
    assert!(finishes(&tx, &lease, new_text()).await);
    tx.commit().await.unwrap();
    app.run_jobs().await;
}

#[tokio::test]
async fn a_job_is_not_claimed_before_it_is_due() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let lease = running(&app, &ann).await;
    let tx = app.begin().await;
    let later = record_result(&tx, &lease, failure(true)).await;
    assert_eq!(later, RecordedOutcome::Retried("agent_timeout", MINUTE));
    assert_eq!(first(&tx, "w2").await, None);
    let canceled = cancel(&tx, lease.job, false).await.unwrap().unwrap();
    assert_eq!(canceled.status, Status::Canceled);
    tx.commit().await.unwrap();
    app.run_jobs().await;
}

#[tokio::test]
async fn a_checkpoint_written_twice_is_stored_and_billed_once() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let lease = running(&app, &ann).await;
    let tx = app.begin().await;
    for _ in 0..2 {
        let hold = keeps(&tx, &lease, section(1)).await;
        assert_eq!(hold, LeaseStatus::Active);
    }
    let job = row(&tx, lease.job).await;
    assert_eq!((job.input_tokens, job.output_tokens), (3, 4));
    let steps = step::Entity::find().count(&tx).await.unwrap();
    assert_eq!(steps, 1);
    assert!(finishes(&tx, &lease, new_text()).await);
    tx.commit().await.unwrap();
    app.run_jobs().await;
}

/// Four jobs that were claimed together: two that are still held, one that is to
/// be canceled, and one that was lost and taken again, by both who had it.
async fn a_mixed_lot(app: &TestApp) -> Vec<Lease> {
    let ann = app.user("ann").await;
    for topic in ["One", "Two", "Three", "Four"] {
        ann.create_post(topic).await;
    }
    let tx = app.begin().await;
    let claimed = claim_jobs(&tx, "w1", &requests(9)).await;
    let mut leases: Vec<Lease> = claimed.iter().map(|(lease, _)| *lease).collect();
    assert_eq!(leases.len(), 4);
    let canceling = cancel(&tx, leases[2].job, false).await.unwrap().unwrap();
    assert_eq!(canceling.status, Status::Canceling);
    assert!(release(&tx, &leases[3]).await);
    let (again, _) = first(&tx, "w1").await.unwrap();
    leases.push(again);
    tx.commit().await.unwrap();
    leases
}

#[tokio::test]
async fn checkpoints_of_many_attempts_are_stored_together_each_under_its_own_lease() {
    let mut app = TestApp::new().await;
    app.allow_unfinished_jobs();
    let leases = a_mixed_lot(&app).await;
    let tx = app.begin().await;
    let done: Vec<_> = leases.iter().map(|lease| (*lease, section(1))).collect();
    let holds = checkpoint(&tx, &done, LockMode::NoWait).await.unwrap();
    let (kept, lost) = (LeaseStatus::Active, LeaseStatus::Lost);
    assert_eq!(
        holds,
        [kept, kept, LeaseStatus::CancelRequested, lost, kept]
    );
    for lease in &leases {
        let job = row(&tx, lease.job).await;
        assert_eq!((job.input_tokens, job.output_tokens), (3, 4));
        assert_eq!(step::Entity::of_job(job.id).count(&tx).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn posts_of_many_attempts_are_stored_together_each_under_its_own_lease() {
    let mut app = TestApp::new().await;
    app.allow_unfinished_jobs();
    let leases = a_mixed_lot(&app).await;
    let tx = app.begin().await;
    let text = |n: usize| post::PostContent::new(Some(format!("Title {n}")), format!("Text {n}."));
    let written = leases
        .iter()
        .enumerate()
        .map(|(n, lease)| (*lease, self::written(text(n))));
    let stored = complete(&tx, &written.collect::<Vec<_>>(), LockMode::NoWait)
        .await
        .unwrap();
    assert_eq!(stored, [true, true, false, false, true]);
    let mut titles = Vec::new();
    for lease in [0, 1, 2, 4].map(|n: usize| &leases[n]) {
        let job = row(&tx, lease.job).await;
        let post = post::Entity::find_by_id(job.post_id).one(&tx).await;
        let post = post.unwrap().unwrap();
        titles.push(post.title.map(|title| (title, post.content.unwrap())));
    }
    let of = |n: usize| Some((format!("Title {n}"), format!("Text {n}.")));
    assert_eq!(titles, [of(0), of(1), None, of(4)]);
}

#[tokio::test]
async fn an_attempt_that_claims_twice_has_one_job_and_counts_once() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    ann.create_post("One").await;
    ann.create_post("Two").await;
    let tx = app.begin().await;
    let (ids, more) = (requests(1), requests(2));
    let claim = async |requests: &[ClaimRequest]| claim_jobs(&tx, "w1", requests).await;
    let one = claim(&ids).await;
    assert_eq!(
        (one.len(), one[0].0.attempt, one[0].1.attempt),
        (1, ids[0].attempt, 1)
    );
    assert_eq!(claim(&ids).await, one);
    // Beside new ones, of which there is a job for one only.
    let both = claim(&[&ids[..], &more[..]].concat()).await;
    assert_eq!(both.len(), 2);
    assert!(both.contains(&one[0]));
    assert!(
        both.iter()
            .any(|(lease, job)| lease.attempt == more[0].attempt && job.id != one[0].1.id)
    );
    assert_eq!(attempt::Entity::find().count(&tx).await.unwrap(), 2);
    // What it no longer holds it does not get back.
    assert!(release(&tx, &one[0].0).await);
    assert_eq!(claim(&more[..1]).await.len(), 1);
    tx.rollback().await.unwrap();
    app.run_jobs().await;
}

#[tokio::test]
async fn how_an_attempt_ended_can_be_read_afterwards() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let lease = running(&app, &ann).await;
    let tx = app.begin().await;
    assert!(finishes(&tx, &lease, new_text()).await);
    assert!(!finishes(&tx, &lease, new_text()).await);
    let recorded = record_result(&tx, &lease, AttemptResult::Written(written(new_text()))).await;
    assert_eq!(recorded, RecordedOutcome::Succeeded);
    tx.commit().await.unwrap();
    // Its delivery is still there.
    app.run_jobs().await;
}

#[tokio::test]
async fn no_job_is_claimed_while_the_queue_is_paused() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    ann.create_post("Patience").await;
    let tx = app.begin().await;
    assert!(queue_state::Entity::pause(&tx).await.unwrap());
    assert_eq!(first(&tx, "w1").await, None);
    assert!(queue_state::Entity::resume(&tx).await.unwrap());
    assert!(first(&tx, "w1").await.is_some());
    tx.rollback().await.unwrap();
    app.run_jobs().await;
}

#[tokio::test]
async fn events_are_stored_once_however_often_their_write_is_repeated() {
    let mut app = TestApp::new().await;
    app.allow_unfinished_jobs();
    let ann = app.user("ann").await;
    let lease = running(&app, &ann).await;
    let tx = app.begin().await;
    let begun = row(&tx, lease.job).await.last_event;
    let text = |text: &str| JobEvent::Delta {
        section: 0,
        text: text.to_owned(),
    };
    let told = AttemptUpdate {
        progress: HALF,
        events: vec![text("Old"), text(" words")],
        after: begun,
    };
    // The answer to the first was lost, say.
    for stored in [true, false] {
        let results = update(&tx, &[(lease, told.clone())], LockMode::Wait).await;
        let expected = UpdateResult {
            status: LeaseStatus::Active,
            last_event: begun + 2,
            stored,
        };
        assert_eq!(results.unwrap(), [expected]);
    }
    // So is what it does not know of when it ends.
    let section = SnapshotSection {
        heading: None,
        text: "New words".to_owned(),
        done: true,
    };
    let end = WrittenPost {
        events: vec![text(" that would be wrong")],
        after: begun,
        told: Snapshot {
            sections: vec![section.clone()],
            ..Snapshot::default()
        },
        ..written(new_text())
    };
    let stored = complete(&tx, &[(lease, end)], LockMode::Wait).await;
    assert_eq!(stored.unwrap(), [true]);
    let rows = job_event::Entity::of_job(lease.job).all(&tx).await.unwrap();
    let events = rows.iter().map(|row| StoredEvents::read(row).unwrap());
    let numbers = events.flat_map(|stored| (stored.first..).take(stored.events.len()));
    let last = row(&tx, lease.job).await.last_event;
    assert_eq!(numbers.collect::<Vec<_>>(), (2..=last).collect::<Vec<_>>());
    let told = Compacted::of(&rows).state();
    assert_eq!(
        (told.sections, told.status),
        (vec![section], Status::Succeeded)
    );
}

#[tokio::test]
async fn nothing_is_told_of_an_attempt_that_has_lost_its_job() {
    let mut app = TestApp::new().await;
    app.allow_unfinished_jobs();
    let ann = app.user("ann").await;
    let lease = running(&app, &ann).await;
    let tx = app.begin().await;
    assert!(release(&tx, &lease).await);
    let before = row(&tx, lease.job).await.last_event;
    let late = AttemptUpdate {
        progress: HALF,
        events: vec![JobEvent::SectionReset { section: 0 }],
        after: before,
    };
    let results = update(&tx, &[(lease, late)], LockMode::Wait).await.unwrap();
    assert_eq!(results[0].status, LeaseStatus::Lost);
    assert_eq!(row(&tx, lease.job).await.last_event, before);
}
