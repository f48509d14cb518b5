//! What the agent is asked.

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
    Prompt {
        system: "You write blog posts.".into(),
        user: format!(
            "Write an outline for a blog post about \"{}\": a title, then {count} headings, one a line.",
            brief.topic
        ),
        max_tokens: 120,
    }
}

/// Ask for the section that comes after those written `so_far`; `None` when
/// all of them are there.
pub fn section_prompt(brief: &Brief, outline: &Outline, so_far: &[String]) -> Option<Prompt> {
    let heading = outline.headings.get(so_far.len())?;
    Some(Prompt {
        system: "You write blog posts.".into(),
        user: format!(
            "Write one section of a blog post titled \"{}\". The section is called \"{heading}\". Write two short paragraphs of plain text.",
            outline.title
        ),
        max_tokens: brief.words() * 3 / 2 / outline.headings.len() as u32,
    })
}
