//! From a topic to a post: what to ask an agent, and what to make of its
//! answers.
//!
//! A post is written in steps, so that small models hold the thread: an
//! [`Outline`] first, then its sections one by one, each of them told what the
//! others say. All of it is pure: texts in, texts out.
//!
//! Models answer as they like, whatever they were asked for, and the smaller
//! the freer. So nothing here fails on an answer: an outline is always usable,
//! and a section is either clean Markdown or not there at all.

mod assemble;
mod cleanup;
mod fallback_outline;
mod heading;
mod outline;
pub(crate) mod pipeline;
mod prompts;
mod section;
mod sentences;

use serde::Deserialize;

use assemble::{assemble, read_post};
use outline::{Outline, read_outline};
use prompts::{outline_prompt, section_prompt};
use section::read_section;

/// How long a post is to be if the client does not say.
const DEFAULT_WORDS: u32 = 500;

/// What the client wants.
#[derive(Clone, Debug, Default)]
struct PostBrief {
    /// What the post is about.
    topic: String,
    /// How it is to be written.
    options: WritingOptions,
}

/// The client's options, as the HTTP contract names them. What is not about the
/// writing, such as the model, is left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct WritingOptions {
    /// The tone of voice.
    tone: Option<String>,
    /// Who will read it.
    audience: Option<String>,
    /// The language to write in, a BCP 47 tag.
    language: Option<String>,
    /// About how long the post is to be.
    words: Option<u32>,
    /// What is to be mentioned.
    keywords: Option<Vec<String>>,
    /// Whatever else the client wants.
    instructions: Option<String>,
}

impl PostBrief {
    /// Into how many sections the post is divided.
    fn sections(&self) -> usize {
        (self.words() as usize / 125).clamp(outline::MIN_SECTIONS, outline::MAX_SECTIONS)
    }

    /// About how many words the post is to have.
    fn words(&self) -> u32 {
        self.options.words.unwrap_or(DEFAULT_WORDS).clamp(100, 3000)
    }

    /// The tokens that so many words may take, with some to spare. Tokens are
    /// made for English: other languages need more of them.
    fn tokens(&self, words: u32) -> u32 {
        let language = self.options.language.as_deref().unwrap_or("en");
        let is_english = language
            .get(..2)
            .is_some_and(|code| code.eq_ignore_ascii_case("en"));
        if is_english {
            words * 3 / 2 + 15
        } else {
            words * 5 / 2 + 15
        }
    }
}
