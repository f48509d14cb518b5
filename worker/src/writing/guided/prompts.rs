//! What the agent is asked.
//!
//! The questions are as plain as they can be, since the smallest model has to
//! understand them: it copies examples and forms instead of filling them in, and
//! each further rule makes its answers worse.

use super::heading;
use super::outline::{Outline, section_count};
use crate::agent::Prompt;
use crate::writing::PostBrief;

/// Ask for the post's title and headings.
pub(super) fn outline(brief: &PostBrief) -> Prompt {
    let count = section_count(brief);
    let topic = brief.topic.trim();
    let mut user = format!(
        "What are {count} good section headings for a blog post about \"{topic}\"? Write only the headings, below a title for the post."
    );
    user += &option_lines(brief);
    Prompt {
        system: "You plan blog posts. You answer with short lists.".into(),
        example: None,
        user,
        max_tokens: 180,
    }
}

/// Ask for the section that comes after those written `so_far`; `None` when
/// all of them are there.
pub(super) fn section(brief: &PostBrief, outline: &Outline, so_far: &[String]) -> Option<Prompt> {
    let heading = outline.headings.get(so_far.len())?;
    let Outline { title, headings } = outline;
    let words = brief.words() / headings.len() as u32;
    // Small models keep to a number of paragraphs, and lose the thread over a
    // number of words.
    let paragraphs = match (words + 32) / 65 {
        0 | 1 => "one short paragraph",
        2 => "two short paragraphs",
        3 => "three short paragraphs",
        4 => "four short paragraphs",
        5 => "five short paragraphs",
        _ => "six short paragraphs",
    };
    let (topic, wishes) = (brief.topic.trim(), option_lines(brief));
    let titled = if heading::is_same(topic, title) {
        String::new()
    } else {
        format!(" titled \"{title}\"")
    };
    Some(Prompt {
        // Named in the question, a small model writes about the sections.
        system: format!(
            "{} You write blog posts. This one has the sections {}.",
            persona(brief),
            headings.join(", ")
        ),
        example: None,
        // Beside a vague heading the topic has to stand, or the model drifts off.
        user: format!(
            "Write {paragraphs} about \"{topic}: {heading}\" for a blog post{titled}.{wishes}"
        ),
        max_tokens: brief.tokens(words),
    })
}

/// Who writes. A small model that is nobody in particular tells stories of its
/// own garden; one that is an expert has something to say.
fn persona(brief: &PostBrief) -> &'static str {
    let options = &brief.options;
    let learned = matches!(options.tone.as_deref(), Some("academic" | "professional"));
    if learned || options.audience.is_some() {
        "You are an expert."
    } else {
        "You are an expert who explains things to beginners in plain words."
    }
}

/// What the client wants beside the topic.
fn option_lines(brief: &PostBrief) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writing::WritingOptions;

    fn brief(options: serde_json::Value) -> PostBrief {
        let options: WritingOptions =
            serde_json::from_value(options).expect("options that the API lets through");
        PostBrief {
            topic: "Cats".into(),
            options,
            sources: None,
        }
    }

    fn fallback(brief: &PostBrief) -> Outline {
        super::super::read_outline(brief, "", false)
    }

    #[test]
    fn the_length_decides_how_many_sections_there_are() {
        let plan = |words: u32| {
            let brief = brief(serde_json::json!({ "words": words }));
            let outline = fallback(&brief);
            let tokens = section(&brief, &outline, &[]).map(|prompt| prompt.max_tokens);
            (outline.headings.len(), tokens.unwrap_or_default())
        };
        assert_eq!(plan(100), (3, 64));
        assert_eq!(plan(500), (4, 202));
        assert_eq!(plan(3000), (8, 577));
    }

    #[test]
    fn the_clients_wishes_are_passed_on() {
        let brief = brief(serde_json::json!({
            "tone": "humorous", "audience": "vets", "language": "de-AT", "keywords": ["paw", "purr"],
            "instructions": "Mention Tom.", "words": null, "model": "any",
        }));
        let section = section(&brief, &fallback(&brief), &[]).expect("the first section");
        for prompt in [outline(&brief), section] {
            for wish in ["humorous", "vets", "de-AT", "paw, purr", "Mention Tom."] {
                assert!(prompt.user.contains(wish), "{wish}: {}", prompt.user);
                assert!(!prompt.system.contains(wish));
            }
        }
    }

    #[test]
    fn there_is_no_prompt_after_the_last_section() {
        let brief = brief(serde_json::json!({}));
        let outline = fallback(&brief);
        assert!(
            section(
                &brief,
                &outline,
                &vec![String::new(); outline.headings.len()]
            )
            .is_none()
        );
    }
}
