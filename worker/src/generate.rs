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
use crate::agent::{AgentError, Event, Failure, Reply, Request, Scope, Usage};
use crate::outcome::Stop;
use crate::writing::{
    Brief, Options, Outline, Prompt, assemble, outline_prompt, read_outline, read_post,
    read_section, section_prompt,
};

/// How often the lease is renewed, and so the longest until a cancel is noticed.
const BEAT: Duration = Duration::from_secs(1);

/// How far the post is when the outline stands.
const OUTLINED: i32 = 10;
/// How far it is when all sections stand.
const WRITTEN: i32 = 95;

fn request(attempt: &ClaimedJob, prompt: Prompt) -> Request {
    Request {
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
struct Meter {
    phase: Phase,
    percent: AtomicI32,
    words: AtomicI32,
}

impl Meter {
    fn new(phase: Phase, percent: i32, words: i32) -> Self {
        Meter {
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
    pub(crate) async fn generate(&self, attempt: ClaimedJob) -> Result<post::Text, Stop> {
        let (title, content) = match self.agent.scope() {
            Scope::Post => self.whole(&attempt).await?,
            Scope::Step => self.in_steps(&attempt).await?,
        };
        Ok(post::Text::new(Some(title), content))
    }

    /// Has the agent write the whole post in one call.
    async fn whole(&self, attempt: &ClaimedJob) -> Result<(String, String), Stop> {
        let meter = Meter::new(Phase::Writing, 0, 0);
        let nothing = Prompt {
            system: String::new(),
            user: String::new(),
            max_tokens: 0,
        };
        let on_event = |event: Event| match event {
            Event::Progress { percent, .. } => {
                let percent = i32::from(percent).min(WRITTEN);
                meter.percent.fetch_max(percent, Ordering::Relaxed);
            }
            Event::Text(text) => count(&meter.words, &text),
        };
        let reply = self.call(attempt, nothing, &meter, &on_event).await?;
        let post = read_post(&attempt.post.topic, reply.title, &reply.text);
        post.ok_or_else(|| bad_output("the post has no text"))
    }

    /// Leads the agent from the outline through the sections.
    async fn in_steps(&self, attempt: &ClaimedJob) -> Result<(String, String), Stop> {
        let options = serde_json::from_value::<Options>(attempt.job.options.clone());
        let brief = Brief {
            topic: attempt.post.topic.clone(),
            options: options.unwrap_or_default(),
        };
        let job = attempt.job.id;
        let done = self.insist(|| step::Entity::of_job(job).all(self.db.read()).boxed());
        let mut done = done.await?.into_iter().map(|step| step.content);
        let outline = match done.next() {
            Some(text) => Outline::from_text(&text)
                .ok_or_else(|| bad_output("the stored outline can't be read"))?,
            None => self.outline(attempt, &brief).await?,
        };
        let mut sections: Vec<String> = done.collect();
        if !sections.is_empty() {
            let progress = written(&outline, &sections);
            let renewed = self.insist(|| self.renew(attempt.lease, progress).boxed());
            go_on(renewed.await?)?;
        }
        while let Some(prompt) = section_prompt(&brief, &outline, &sections) {
            let section = self.section(attempt, &outline, &sections, prompt).await?;
            sections.push(section);
        }
        Ok(assemble(&outline, &sections))
    }

    async fn outline(&self, attempt: &ClaimedJob, brief: &Brief) -> Result<Outline, Stop> {
        let meter = Meter::new(Phase::Outline, 0, 0);
        let reply = self.call(attempt, outline_prompt(brief), &meter, &|_| {});
        let reply = reply.await?;
        let outline = read_outline(brief, &reply.text, reply.cut_short);
        let done = Checkpoint {
            position: 0,
            content: outline.to_string(),
            progress: written(&outline, &[]),
            input_tokens: tokens(reply.usage.input_tokens),
            output_tokens: tokens(reply.usage.output_tokens),
        };
        self.keep(attempt, done).await?;
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
    ) -> Result<String, Stop> {
        let Progress {
            percent: from,
            words: words_before,
            ..
        } = written(outline, before);
        let to = percent(outline, before.len() + 1);
        let expected = (prompt.max_tokens as i32 * 3 / 4).max(1);
        let mut usage = Usage::default();
        for _ in 0..2 {
            let meter = Meter::new(Phase::Writing, from, words_before);
            let on_event = |event: Event| {
                let Event::Text(text) = event else { return };
                count(&meter.words, &text);
                let here = meter.words.load(Ordering::Relaxed) - words_before;
                let percent = from + (to - from) * here.min(expected) / expected;
                meter.percent.store(percent, Ordering::Relaxed);
            };
            let reply = self
                .call(attempt, prompt.clone(), &meter, &on_event)
                .await?;
            usage = usage.and(reply.usage);
            let number = before.len() + 1;
            if let Some(text) = read_section(outline, before, &reply.text, reply.cut_short) {
                let sections = [before, std::slice::from_ref(&text)].concat();
                let done = Checkpoint {
                    position: number as i32,
                    content: text.clone(),
                    progress: written(outline, &sections),
                    input_tokens: tokens(usage.input_tokens),
                    output_tokens: tokens(usage.output_tokens),
                };
                self.keep(attempt, done).await?;
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
        meter: &Meter,
        on_event: &(dyn Fn(Event) + Send + Sync),
    ) -> Result<Reply, Stop> {
        let request = request(attempt, prompt);
        tokio::select! {
            reply = self.ask(&request, meter, on_event) => reply,
            stop = self.hold(attempt, meter) => Err(stop),
        }
    }

    /// Makes the call at the pace that the agent allows. If it is refused for
    /// its pace it is made again in the same attempt, when it may; but if that is
    /// too late the attempt ends, and counts only if this call was refused itself.
    async fn ask(
        &self,
        request: &Request,
        meter: &Meter,
        on_event: &(dyn Fn(Event) + Send + Sync),
    ) -> Result<Reply, Stop> {
        let deadline = Instant::now() + self.patience;
        let begun = meter.read();
        let mut refusal = None;
        while let Some(call) = self.pace.call(deadline).await {
            let reply = self.agent.call(request, on_event);
            let reply = self.metrics.call(&request.model, reply).await;
            call.end(&reply);
            match reply {
                Err(error) if error.wants_pause().is_some() => refusal = Some(error),
                reply => return Ok(reply?),
            }
            meter.reset(begun);
        }
        Err(refusal.map_or(Stop::Released, Stop::Agent))
    }

    /// Renews the lease until it is lost.
    async fn hold(&self, attempt: &ClaimedJob, meter: &Meter) -> Stop {
        let mut beats = interval(BEAT.min(self.lease / 3));
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beats.tick().await;
        loop {
            beats.tick().await;
            match self.renew(attempt.lease, meter.read()).await.map(go_on) {
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
    async fn keep(&self, attempt: &ClaimedJob, done: Checkpoint) -> Result<(), Stop> {
        let done = (attempt.lease, done);
        let hold = self.insist(|| self.checkpoints.add(done.clone()).boxed());
        go_on(hold.await?)
    }
}

/// What an attempt begins with, before it is known what earlier ones have done.
pub(crate) fn first_phase(scope: Scope) -> Phase {
    match scope {
        Scope::Post => Phase::Writing,
        Scope::Step => Phase::Outline,
    }
}

/// How far a post is with these sections.
fn written(outline: &Outline, sections: &[String]) -> Progress {
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
    let share = (WRITTEN - OUTLINED) * sections as i32;
    OUTLINED + share / outline.headings.len().max(1) as i32
}

fn go_on(hold: LeaseStatus) -> Result<(), Stop> {
    match hold {
        LeaseStatus::Active => Ok(()),
        LeaseStatus::CancelRequested => Err(Stop::Canceling),
        LeaseStatus::Lost => Err(Stop::Lost),
    }
}

/// No call costs more; what a provider says beyond that is nonsense, and would
/// not fit into the sum.
const MOST_TOKENS: u32 = 10_000_000;

fn tokens(told: u32) -> i32 {
    told.min(MOST_TOKENS) as i32
}

/// Words begin after white space; good enough for a progress bar.
fn count(words: &AtomicI32, text: &str) {
    let begun = text.matches(char::is_whitespace).count();
    words.fetch_add(begun as i32, Ordering::Relaxed);
}

fn bad_output(message: &str) -> Stop {
    Stop::Agent(AgentError::Retry {
        failure: Failure::BadOutput,
        after: None,
        message: message.to_owned(),
    })
}
