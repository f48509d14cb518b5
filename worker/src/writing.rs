//! From a topic to a post: what to ask an agent, and what to make of its answers.
//!
//! [`pipeline`] chooses how a post is written: a capable model writes it in one answer
//! ([`one_call`]) or, if it is long, by a plan and section by section
//! ([`by_section`]); a small one gets an example first ([`by_example`]); the smallest ones
//! are led from question to question ([`guided`]). Then [`review`] finds what is wrong and has it
//! written again, and [`grounding`] binds what is written from sources to them, of which [`research`]
//! finds some on the web. A post whose outline was reviewed is written section by section;
//! [`one_section`] writes one section of a finished post again.
//!
//! Models answer as they like, whatever they were asked for. What is cut from an answer
//! becomes a warning of the job; nothing is lost silently.

mod by_example;
mod by_section;
mod chatter;
mod draft;
mod grounding;
mod guided;
mod language;
mod one_call;
mod one_section;
pub(crate) mod pipeline;
mod plan;
mod prompts;
mod repetition;
mod research;
mod review;
mod sentences;
mod title;
mod ways;

use std::sync::Arc;

use serde::Deserialize;

use crate::agent::{AgentError, AgentErrorKind};
use crate::outcome::AttemptError;
use crate::sources::{Passage, Sources};

pub(crate) use grounding::{is_function_word, unchecked};
pub(crate) use sentences::sentences;
pub use ways::{Way, Ways};

/// The checkpoints of a post, by their positions.
mod steps {
    use std::ops::Range;

    /// All steps of the writing.
    pub(super) const WRITING: Range<i32> = 0..10_000;
    /// A plan, or the outline of the guided way; its sections follow from 1 on.
    pub(super) const PLAN: i32 = 0;
    /// A post in one answer: its sections, and in the last place what ends it.
    pub(super) const DRAFT: Range<i32> = 1..1000;
    /// The same once more, because the first draft was not as it was asked for.
    pub(super) const SECOND_DRAFT: Range<i32> = 1000..2000;
    /// Sections that were written again, in their order.
    pub(super) const FIRST_REWRITE: i32 = 2000;
    /// Sections that were written again because of their citations, in their order.
    pub(super) const FIRST_GROUNDED: i32 = 3000;
    /// What the model has answered to questions about citations.
    pub(super) const JUDGED: Range<i32> = 4000..5000;
    /// All steps of the search for sources.
    pub(super) const RESEARCH: Range<i32> = 10_000..11_000;
    /// Its queries, a line each; what each has found follows, as JSON.
    pub(super) const QUERIES: i32 = 10_000;
    /// That what was found is stored as sources of the post.
    pub(super) const SOURCES_FOUND: i32 = 10_999;
}

/// How far a post is when its plan stands.
const PERCENT_PLANNED: i32 = 10;
/// How far it is when its text stands, before the second look.
const PERCENT_WRITTEN: i32 = 90;

/// How long a post is to be if the client does not say.
const DEFAULT_WORDS: u32 = 500;

/// What the client wants.
#[derive(Clone, Debug, Default)]
struct PostBrief {
    /// What the post is about.
    topic: String,
    /// How it is to be written.
    options: WritingOptions,
    /// What it is written from, if there is anything.
    sources: Option<Arc<Sources>>,
}

/// The client's options, as the HTTP contract names them. What is not about the
/// writing, such as the model, is left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct WritingOptions {
    tone: Option<String>,
    /// Who will read it.
    audience: Option<String>,
    /// A BCP 47 tag.
    language: Option<String>,
    /// About how long the post is to be.
    words: Option<u32>,
    /// What is to be mentioned.
    keywords: Option<Vec<String>>,
    instructions: Option<String>,
}

impl PostBrief {
    fn new(topic: &str, options: &serde_json::Value) -> Self {
        PostBrief {
            topic: topic.split_whitespace().collect::<Vec<_>>().join(" "),
            options: serde_json::from_value(options.clone()).unwrap_or_default(),
            sources: None,
        }
    }

    /// The passages of its sources that have to do with `query`, of up to so many words.
    fn passages(&self, query: &str, max_words: i32) -> Vec<&Passage> {
        let sources = self.sources.as_deref();
        sources.map_or_else(Vec::new, |sources| sources.passages.about(query, max_words))
    }

    /// All that the client has written.
    fn own_words(&self) -> String {
        let options = &self.options;
        let instructions = options.instructions.as_deref().unwrap_or_default();
        let audience = options.audience.as_deref().unwrap_or_default();
        let keywords = options.keywords.as_deref().unwrap_or_default().join(" ");
        format!("{} {instructions} {audience} {keywords}", self.topic)
    }

    /// About how many words the post is to have.
    fn words(&self) -> u32 {
        self.options.words.unwrap_or(DEFAULT_WORDS).clamp(100, 3000)
    }

    /// The tokens that so many words may take, with some to spare. Tokens are made for
    /// English: other languages need more of them.
    fn tokens(&self, words: u32) -> u32 {
        if language::is_english(self.options.language.as_deref()) {
            words * 3 / 2 + 15
        } else {
            words * 5 / 2 + 15
        }
    }
}

/// The agent can't do what is asked for.
fn rejected(message: &str) -> AttemptError {
    AttemptError::Agent(AgentError::Fatal {
        failure: AgentErrorKind::Rejected,
        message: message.to_owned(),
    })
}

fn bad_output(message: &str) -> AttemptError {
    AttemptError::Agent(AgentError::Retry {
        failure: AgentErrorKind::BadOutput,
        after: None,
        message: message.to_owned(),
    })
}
