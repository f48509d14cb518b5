//! What the agent is asked.
//!
//! The questions are as plain as they can be, since the smallest model has to
//! understand them: it copies examples and forms instead of filling them in, and
//! each further rule costs it sense. Larger models need no more.

use super::{Brief, Outline};

/// One question to an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Who it is to be.
    pub system: String,
    /// What it is to write now.
    pub user: String,
    /// The most that the answer may hold, in tokens.
    pub max_tokens: u32,
}

/// Ask for the post's title and headings.
pub fn outline_prompt(brief: &Brief) -> Prompt {
    let count = brief.sections();
    let topic = brief.topic.trim();
    let mut user = format!(
        "What are {count} good section headings for a blog post about \"{topic}\"? Write only the headings."
    );
    user += &wishes(brief);
    Prompt {
        system: "You plan blog posts. You answer with short lists.".into(),
        user,
        max_tokens: 180,
    }
}

/// Ask for the section that comes after those written `so_far`; `None` when
/// all of them are there.
pub fn section_prompt(brief: &Brief, outline: &Outline, so_far: &[String]) -> Option<Prompt> {
    let heading = outline.headings.get(so_far.len())?;
    let Outline { title, headings } = outline;
    let words = brief.words() / headings.len() as u32;
    let mut user = format!("Write one section of a blog post titled \"{title}\".");
    let topic = brief.topic.trim();
    if !super::heading::same(topic, title) {
        user += &format!(" The post is about: {topic}");
    }
    let others: Vec<String> = headings
        .iter()
        .filter(|other| *other != heading)
        .map(|other| format!("\"{other}\""))
        .collect();
    user += &format!(
        "\n\nThe section is called \"{heading}\". Other sections are about {}.",
        others.join(", ")
    );
    user += &wishes(brief);
    user += &format!("\n\nWrite about \"{heading}\" in about {words} words of plain text.");
    Some(Prompt {
        system: "You write blog posts.".into(),
        user,
        max_tokens: brief.tokens(words),
    })
}

/// What the client wants beside the topic.
fn wishes(brief: &Brief) -> String {
    let options = &brief.options;
    let mut wishes = String::new();
    let mut wish = |name: &str, value: Option<&str>| {
        if let Some(value) = value.map(str::trim).filter(|value| !value.is_empty()) {
            wishes += &format!("\n{name}: {value}");
        }
    };
    wish("Language", options.language.as_deref());
    wish("Tone", options.tone.as_deref());
    wish("Readers", options.audience.as_deref());
    wish(
        "Keywords",
        options
            .keywords
            .as_ref()
            .map(|keywords| keywords.join(", "))
            .as_deref(),
    );
    wish("Instructions", options.instructions.as_deref());
    if wishes.is_empty() {
        wishes
    } else {
        format!("\n{wishes}")
    }
}
