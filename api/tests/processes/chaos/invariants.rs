//! What must be true when the chaos is over, whatever it was.

use std::collections::{HashMap, HashSet};

use entity::attempt::Outcome;
use entity::{attempt, job, post};
use sea_orm::EntityTrait;
use testing::HEADINGS;

use super::load::{Asked, MARK};
use crate::support::{ScriptedAgent, Service};

/// What the agent is asked for a post: an outline and its sections.
const CALLS: usize = 1 + HEADINGS.len();

/// What it counts for each.
const TOKENS: usize = 20;

/// Every post that was accepted is there once, and was written once or called
/// off; nothing is left in the queue; every attempt has ended, and every call
/// to the agent was for something.
pub(super) async fn balance(service: &Service, writer: &ScriptedAgent, asked: &Asked) {
    service.assert_at_rest().await;
    let db = service.database().await;
    let posts = post::Entity::find().all(db.read()).await.unwrap();
    let jobs = job::Entity::find().all(db.read()).await.unwrap();
    let mut attempts: HashMap<_, Vec<_>> = HashMap::new();
    for attempt in attempt::Entity::find().all(db.read()).await.unwrap() {
        let of_job = attempts.entry(attempt.job_id).or_default();
        of_job.push(attempt);
    }
    db.close().await;

    let accepted: HashSet<_> = asked.posts.iter().cloned().collect();
    let stored: HashSet<_> = posts.iter().map(|post| post.id.to_string()).collect();
    assert_eq!(stored, accepted);
    assert_eq!((posts.len(), jobs.len()), (accepted.len(), accepted.len()));
    let jobs: HashMap<_, _> = jobs.into_iter().map(|job| (job.post_id, job)).collect();
    let calls = calls(writer);
    for post in posts {
        let job = &jobs[&post.id];
        let attempts = attempts.remove(&job.id).unwrap_or_default();
        let calls = calls.get(number(&post.topic)).copied().unwrap_or_default();
        match job.status {
            job::Status::Succeeded => was_written(&post, job),
            _ => was_canceled(&post, job),
        }
        adds_up(job, &attempts, calls);
    }
}

fn was_written(post: &post::Model, job: &job::Model) {
    assert_eq!(post.status, post::Status::Ready, "{post:?}");
    // Stored once: every change would raise the version again.
    assert_eq!(post.version, 2, "{post:?}");
    let content = post.content.as_deref().unwrap();
    for heading in HEADINGS {
        assert_eq!(content.matches(heading).count(), 1, "{content}");
    }
    // Each step is in the bill once, however often it was written down.
    let paid = usize::try_from(job.output_tokens).unwrap();
    assert_eq!(paid, CALLS * TOKENS, "{job:?}");
}

fn was_canceled(post: &post::Model, job: &job::Model) {
    assert_eq!(job.status, job::Status::Canceled, "{job:?}");
    let expected = if post.content.is_some() {
        assert!(job.keep_text, "{post:?}");
        post::Status::Ready
    } else {
        post::Status::Canceled
    };
    assert_eq!(post.status, expected, "{post:?}");
}

/// The attempts fit the job, and the calls the attempts.
fn adds_up(job: &job::Model, attempts: &[attempt::Model], calls: usize) {
    let ended = |outcome| {
        let these = attempts.iter().filter(|a| a.outcome == Some(outcome));
        these.count()
    };
    let (succeeded, released) = (ended(Outcome::Succeeded), ended(Outcome::Released));
    let is_written = job.status == job::Status::Succeeded;
    // One has written the outline, another the post.
    let is_planned = job.outline.is_some();
    let expected = usize::from(is_written) + usize::from(is_planned);
    assert_eq!(succeeded, expected, "{attempts:#?}");
    let counted = i32::try_from(attempts.len() - released).unwrap();
    assert_eq!(job.attempt, counted, "{attempts:#?}");
    let mut numbers: Vec<_> = attempts.iter().map(|a| a.attempt).collect();
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers, (1..=counted).collect::<Vec<_>>(), "{attempts:#?}");
    // An attempt that was broken off may have cost the call that it was at.
    let most = CALLS + attempts.len() - succeeded;
    assert!(calls <= most, "{calls}: {attempts:#?}");
}

/// How often the agent wrote well for each topic, by its number.
fn calls(writer: &ScriptedAgent) -> HashMap<String, usize> {
    let mut calls = HashMap::new();
    for prompt in writer.written() {
        *calls.entry(number(&prompt).to_owned()).or_default() += 1;
    }
    calls
}

/// The number of the topic in a text.
fn number(text: &str) -> &str {
    let number = text.split(MARK).nth(1);
    number.unwrap_or_else(|| panic!("no topic: {text}"))
}
