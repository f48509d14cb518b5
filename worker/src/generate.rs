//! One attempt: outline, sections, assembly. Each finished step is a checkpoint,
//! so an attempt begins at the first one that is missing.
//!
//! No transaction is open while the agent is called. The lease is renewed every
//! second meanwhile, and that is when a cancel is noticed.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use entity::job::Phase;
use entity::{post, step};
use futures_util::FutureExt;
use sea_orm::DbErr;
use shared::queue::{self, Checkpoint, ClaimedJob, Lease, LeaseStatus, Progress};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::Worker;
use crate::agent::{
    AgentError, AgentErrorKind, CallScope, Completion, CompletionRequest, Event, OnEvent, Usage,
};
use crate::outcome::AttemptError;
use crate::writing::{
    Outline, PostBrief, Prompt, WritingOptions, assemble, outline_prompt, read_outline, read_post,
    read_section, section_prompt,
};

/// How often the lease is renewed, and so the longest until a cancel is noticed.
const LEASE_RENEW_INTERVAL: Duration = Duration::from_secs(1);

/// How far the post is when the outline stands.
const PERCENT_OUTLINED: i32 = 10;
/// How far it is when all sections stand.
const PERCENT_WRITTEN: i32 = 95;

fn request(attempt: &ClaimedJob, prompt: Prompt) -> CompletionRequest {
    CompletionRequest {
        job_id: attempt.job.id,
        topic: attempt.post.topic.clone(),
        options: attempt.job.options.clone(),
        model: attempt.job.model.clone(),
        system: prompt.system,
        prompt: prompt.user,
        max_tokens: prompt.max_tokens,
    }
}

/// How far an attempt is, told by the agent's call and read by the renewal.
struct ProgressTracker {
    phase: Phase,
    percent: AtomicI32,
    words: AtomicI32,
}

impl ProgressTracker {
    fn new(phase: Phase, percent: i32, words: i32) -> Self {
        ProgressTracker {
            phase,
            percent: percent.into(),
            words: words.into(),
        }
    }

    fn read(&self) -> Progress {
        Progress {
            phase: self.phase,
            percent: self.percent.load(Ordering::Relaxed),
            words: self.words.load(Ordering::Relaxed),
        }
    }

    /// What came after `to` is to be written once more.
    fn reset(&self, to: Progress) {
        self.percent.store(to.percent, Ordering::Relaxed);
        self.words.store(to.words, Ordering::Relaxed);
    }
}

impl Worker {
    /// Writes the post.
    pub(crate) async fn generate(
        &self,
        attempt: ClaimedJob,
    ) -> Result<post::PostContent, AttemptError> {
        let (title, content) = match self.agent.scope() {
            CallScope::WholePost => self.generate_in_one_call(&attempt).await?,
            CallScope::Section => self.generate_by_section(&attempt).await?,
        };
        Ok(post::PostContent::new(Some(title), content))
    }

    /// Has the agent write the whole post in one call.
    async fn generate_in_one_call(
        &self,
        attempt: &ClaimedJob,
    ) -> Result<(String, String), AttemptError> {
        let meter = ProgressTracker::new(Phase::Writing, 0, 0);
        let nothing = Prompt {
            system: String::new(),
            user: String::new(),
            max_tokens: 0,
        };
        let on_event = |event: Event| match event {
            Event::Progress { percent, .. } => {
                let percent = i32::from(percent).min(PERCENT_WRITTEN);
                meter.percent.fetch_max(percent, Ordering::Relaxed);
            }
            Event::Text(text) => add_words(&meter.words, &text),
        };
        let reply = self.call(attempt, nothing, &meter, &on_event).await?;
        let post = read_post(&attempt.post.topic, reply.title, &reply.text);
        post.ok_or_else(|| bad_output("the post has no text"))
    }

    /// Leads the agent from the outline through the sections.
    async fn generate_by_section(
        &self,
        attempt: &ClaimedJob,
    ) -> Result<(String, String), AttemptError> {
        let options = serde_json::from_value::<WritingOptions>(attempt.job.options.clone());
        let brief = PostBrief {
            topic: attempt.post.topic.clone(),
            options: options.unwrap_or_default(),
        };
        let job = attempt.job.id;
        let done =
            self.retry_until_stored(|| step::Entity::of_job(job).all(self.db.read()).boxed());
        let mut done = done.await?.into_iter().map(|step| step.content);
        let outline = match done.next() {
            Some(text) => Outline::from_text(&text)
                .ok_or_else(|| bad_output("the stored outline can't be read"))?,
            None => self.outline(attempt, &brief).await?,
        };
        let mut sections: Vec<String> = done.collect();
        if !sections.is_empty() {
            let progress = progress_after(&outline, &sections);
            let renewed = self.retry_until_stored(|| self.renew(attempt.lease, progress).boxed());
            check_lease(renewed.await?)?;
        }
        while let Some(prompt) = section_prompt(&brief, &outline, &sections) {
            let section = self.section(attempt, &outline, &sections, prompt).await?;
            sections.push(section);
        }
        Ok(assemble(&outline, &sections))
    }

    async fn outline(
        &self,
        attempt: &ClaimedJob,
        brief: &PostBrief,
    ) -> Result<Outline, AttemptError> {
        let meter = ProgressTracker::new(Phase::Outline, 0, 0);
        let reply = self.call(attempt, outline_prompt(brief), &meter, &|_| {});
        let reply = reply.await?;
        let outline = read_outline(brief, &reply.text, reply.truncated);
        let done = Checkpoint {
            position: 0,
            content: outline.to_string(),
            progress: progress_after(&outline, &[]),
            input_tokens: clamp_tokens(reply.usage.input_tokens),
            output_tokens: clamp_tokens(reply.usage.output_tokens),
        };
        self.save_checkpoint(attempt, done).await?;
        Ok(outline)
    }

    /// Writes the section that follows on `before`. Small models sometimes bring
    /// nothing; then they are asked once more.
    async fn section(
        &self,
        attempt: &ClaimedJob,
        outline: &Outline,
        before: &[String],
        prompt: Prompt,
    ) -> Result<String, AttemptError> {
        let Progress {
            percent: from,
            words: words_before,
            ..
        } = progress_after(outline, before);
        let to = percent(outline, before.len() + 1);
        let expected = (prompt.max_tokens as i32 * 3 / 4).max(1);
        let mut usage = Usage::default();
        for _ in 0..2 {
            let meter = ProgressTracker::new(Phase::Writing, from, words_before);
            let on_event = |event: Event| {
                let Event::Text(text) = event else { return };
                add_words(&meter.words, &text);
                let here = meter.words.load(Ordering::Relaxed) - words_before;
                let percent = from + (to - from) * here.min(expected) / expected;
                meter.percent.store(percent, Ordering::Relaxed);
            };
            let reply = self
                .call(attempt, prompt.clone(), &meter, &on_event)
                .await?;
            usage = usage.and(reply.usage);
            let number = before.len() + 1;
            if let Some(text) = read_section(outline, before, &reply.text, reply.truncated) {
                let sections = [before, std::slice::from_ref(&text)].concat();
                let done = Checkpoint {
                    position: number as i32,
                    content: text.clone(),
                    progress: progress_after(outline, &sections),
                    input_tokens: clamp_tokens(usage.input_tokens),
                    output_tokens: clamp_tokens(usage.output_tokens),
                };
                self.save_checkpoint(attempt, done).await?;
                return Ok(text);
            }
            tracing::info!(section = number, "a section came without a text");
        }
        Err(bad_output("a section came twice without a text"))
    }

    /// Calls the agent, and renews the lease as long as that takes. When the
    /// job is called off or taken away, the call is dropped, which ends it.
    async fn call(
        &self,
        attempt: &ClaimedJob,
        prompt: Prompt,
        meter: &ProgressTracker,
        on_event: &OnEvent<'_>,
    ) -> Result<Completion, AttemptError> {
        let request = request(attempt, prompt);
        tokio::select! {
            reply = self.call_with_limit(&request, meter, on_event) => reply,
            stop = self.keep_lease_alive(attempt, meter) => Err(stop),
        }
    }

    /// Makes the call at the pace that the agent allows. If it is refused for
    /// its pace it is made again in the same attempt, when it may; but if that is
    /// too late the attempt ends, and counts only if this call was refused itself.
    async fn call_with_limit(
        &self,
        request: &CompletionRequest,
        meter: &ProgressTracker,
        on_event: &OnEvent<'_>,
    ) -> Result<Completion, AttemptError> {
        let deadline = Instant::now() + self.call_timeout;
        let begun = meter.read();
        let mut refusal = None;
        while let Some(call) = self.limit.acquire_call(deadline).await {
            let reply = self.agent.call(request, on_event);
            let reply = self.metrics.call(&request.model, reply).await;
            call.finish(&reply);
            match reply {
                Err(error) if error.rate_limit_delay().is_some() => refusal = Some(error),
                reply => return Ok(reply?),
            }
            meter.reset(begun);
        }
        Err(refusal.map_or(AttemptError::Released, AttemptError::Agent))
    }

    /// Renews the lease until it is lost.
    async fn keep_lease_alive(
        &self,
        attempt: &ClaimedJob,
        meter: &ProgressTracker,
    ) -> AttemptError {
        let mut beats = interval(LEASE_RENEW_INTERVAL.min(self.lease / 3));
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beats.tick().await;
        loop {
            beats.tick().await;
            match self
                .renew(attempt.lease, meter.read())
                .await
                .map(check_lease)
            {
                Ok(Ok(())) => {}
                Ok(Err(stop)) => return stop,
                // The agent's work is worth more than one missed renewal. If
                // the lease runs out, the next write says so.
                Err(error) => tracing::warn!(%error, "can't renew a lease; trying again"),
            }
        }
    }

    async fn renew(&self, lease: Lease, progress: Progress) -> Result<LeaseStatus, DbErr> {
        self.db
            .transaction(async move |tx| queue::renew(tx, lease, progress).await)
            .await
    }

    /// Makes a finished step a checkpoint.
    async fn save_checkpoint(
        &self,
        attempt: &ClaimedJob,
        done: Checkpoint,
    ) -> Result<(), AttemptError> {
        let done = (attempt.lease, done);
        let hold = self.retry_until_stored(|| self.checkpoints.submit(done.clone()).boxed());
        check_lease(hold.await?)
    }
}

/// What an attempt begins with, before it is known what earlier ones have done.
pub(crate) fn first_phase(scope: CallScope) -> Phase {
    match scope {
        CallScope::WholePost => Phase::Writing,
        CallScope::Section => Phase::Outline,
    }
}

/// How far a post is with these sections.
fn progress_after(outline: &Outline, sections: &[String]) -> Progress {
    Progress {
        phase: match sections.len() < outline.headings.len() {
            true => Phase::Writing,
            false => Phase::Assembling,
        },
        percent: percent(outline, sections.len()),
        words: sections.iter().map(|text| post::word_count(text)).sum(),
    }
}

fn percent(outline: &Outline, sections: usize) -> i32 {
    let share = (PERCENT_WRITTEN - PERCENT_OUTLINED) * sections as i32;
    PERCENT_OUTLINED + share / outline.headings.len().max(1) as i32
}

fn check_lease(hold: LeaseStatus) -> Result<(), AttemptError> {
    match hold {
        LeaseStatus::Active => Ok(()),
        LeaseStatus::CancelRequested => Err(AttemptError::CancelRequested),
        LeaseStatus::Lost => Err(AttemptError::Lost),
    }
}

/// No call costs more; what a provider says beyond that is nonsense, and would
/// not fit into the sum.
const MAX_TOKENS: u32 = 10_000_000;

fn clamp_tokens(told: u32) -> i32 {
    told.min(MAX_TOKENS) as i32
}

/// Words begin after white space; good enough for a progress bar.
fn add_words(words: &AtomicI32, text: &str) {
    let begun = text.matches(char::is_whitespace).count();
    words.fetch_add(begun as i32, Ordering::Relaxed);
}

fn bad_output(message: &str) -> AttemptError {
    AttemptError::Agent(AgentError::Retry {
        failure: AgentErrorKind::BadOutput,
        after: None,
        message: message.to_owned(),
    })
}
