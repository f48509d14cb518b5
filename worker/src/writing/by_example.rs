//! A whole post by a small model: as by a capable one, but after an example. A small model
//! takes the form and the length of a post from that more surely than from instructions.

use entity::job::{Warning, WarningCode};
use entity::step;
use entity::text::word_count;

use super::draft::{Draft, Section};
use super::prompts::{POST_PASSAGE_WORDS, continuation, passages, post_tokens, system, wishes};
use super::repetition::{prose_sentences, repeated_sentences};
use super::{PostBrief, WritingOptions, one_call, review, steps};
use crate::agent::{Example, Prompt};
use crate::attempt::Attempt;
use crate::outcome::AttemptError;

/// A post with the title in the first line and an ending in the last one. Every section is
/// about [`SECTION_WORDS`] long and can be left out, so it serves for any length.
const EXAMPLE: &str = include_str!("by_example/example.md");
const EXAMPLE_TOPIC: &str = "Why bread goes stale";

const SECTION_WORDS: u32 = 100;

/// Longer posts that were too short were so the second time, too (`make eval`, 1.5B).
const MAX_WORDS_IN_REACH: u32 = 450;

/// Writes a draft. One in the wrong language, that repeats itself, or that is far from the length
/// that was asked for, is written once more as a whole, and the better one is kept: asked for a section again, a
/// small model often writes the whole post once more.
pub(super) async fn write(
    attempt: &Attempt,
    brief: &PostBrief,
    finished: &[step::Model],
) -> Result<Draft, AttemptError> {
    let draft = async |brief: &PostBrief, positions| {
        let prompt = |so_far: &str| whole_post(brief, so_far);
        let draft = one_call::write_draft(attempt, brief, prompt, finished, positions).await?;
        Ok::<_, AttemptError>(without_repeated_sections(draft))
    };
    let (mut chosen, mut warnings) = draft(brief, steps::DRAFT).await?;
    if let Some(request) = second_request(brief, &chosen) {
        tracing::info!("the draft is not as it was asked for; asking once more");
        let of_first = attempt.warning_count().await;
        let second = draft(&request, steps::SECOND_DRAFT).await?;
        let mut unused = of_first..attempt.warning_count().await;
        if review::rank(brief, &second.0) < review::rank(brief, &chosen) {
            (chosen, warnings) = second;
            unused = 0..of_first;
        }
        if !one_call::is_finished(finished, steps::SECOND_DRAFT) {
            attempt.withdraw_warnings(unused).await?;
        }
    }
    attempt.warn(warnings).await?;
    review::warn(attempt, brief, &chosen).await?;
    Ok(chosen)
}

/// What to ask for after a first draft, if it calls for a second: a length that is off by as
/// much to the other side.
fn second_request(brief: &PostBrief, first: &Draft) -> Option<PostBrief> {
    let (asked, written) = (brief.words(), word_count(&first.content()).max(1) as u32);
    let is_in_reach = written > asked || asked <= MAX_WORDS_IN_REACH;
    let is_off = review::is_length_off(brief, first) && is_in_reach;
    let is_of_no_use =
        one_call::is_in_other_language(brief, first) || review::is_repetitive(brief, first);
    if !is_off && !is_of_no_use {
        return None;
    }
    let mut request = brief.clone();
    if is_off {
        let words = asked * asked / written;
        request.options.words = Some(words.clamp(asked / 2, asked * 2));
    }
    Some(request)
}

/// Asks for the whole post. `so_far` is what earlier answers have brought of it.
fn whole_post(brief: &PostBrief, so_far: &str) -> Prompt {
    let (example, answer) = example(brief);
    Prompt {
        system: system(brief),
        example: Some(Example {
            prompt: request(&example),
            answer,
        }),
        user: request(brief)
            + &passages(brief, &brief.topic, POST_PASSAGE_WORDS)
            + &continuation(so_far),
        max_tokens: post_tokens(brief, so_far),
    }
}

fn request(brief: &PostBrief) -> String {
    format!(
        "Write a blog post of about {words} words, with a title and headings, about: {topic}{wishes}",
        words = brief.words(),
        topic = brief.topic,
        wishes = wishes(brief),
    )
}

/// Leaves out sections that say nothing new or have the heading of another, and gives them
/// as warnings.
fn without_repeated_sections(draft: Draft) -> (Draft, Vec<Warning>) {
    let Draft { title, sections } = draft;
    let mut warnings = Vec::new();
    let mut kept: Vec<Section> = Vec::new();
    for section in sections {
        let before = kept.iter().map(|section| section.body.as_str());
        let repeated = repeated_sentences(before, &section.body).len();
        let is_headed_again =
            section.heading.is_some() && kept.iter().any(|other| other.heading == section.heading);
        if is_headed_again || repeated * 2 >= prose_sentences(&section.body).len().max(1) {
            let text = section.to_markdown();
            warnings.push(Warning::new(WarningCode::Repeated, None, &text));
        } else {
            kept.push(section);
        }
    }
    let sections = kept;
    (Draft { title, sections }, warnings)
}

/// The example as it suits a post: about as long, and asked for with wishes of the same
/// kinds.
fn example(brief: &PostBrief) -> (PostBrief, String) {
    let text = EXAMPLE.trim_end();
    let (text, ending) = text.rsplit_once("\n\n").unwrap_or((text, ""));
    let mut draft = Draft::parse(text);
    let sections = (brief.words() / SECTION_WORDS).max(2) as usize;
    draft.sections.truncate(1 + sections); // the first one is the introduction
    let title = draft.title.as_deref().unwrap_or_default();
    let text = format!(
        "# {title}\n\n{content}\n{ending}",
        content = draft.content()
    );
    let words = word_count(&text).max(0) as u32;
    let example = PostBrief {
        topic: EXAMPLE_TOPIC.to_owned(),
        options: example_options(&brief.options, words),
        sources: None,
    };
    (example, text)
}

/// Wishes that the example fulfills, one of each kind that a client has: else a model
/// learns from it that wishes don't count.
fn example_options(options: &WritingOptions, words: u32) -> WritingOptions {
    let like = |wish: &Option<String>, value: &str| wish.as_ref().map(|_| value.to_owned());
    let keywords = || vec!["starch".to_owned(), "freezer".to_owned()];
    WritingOptions {
        words: Some(words),
        tone: like(&options.tone, "warm and practical"),
        audience: like(&options.audience, "people who eat bread every day"),
        keywords: options.keywords.as_ref().map(|_| keywords()),
        instructions: like(
            &options.instructions,
            "Say why the fridge is the wrong place for bread, and how cold a freezer is.",
        ),
        language: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brief(options: serde_json::Value) -> PostBrief {
        PostBrief::new("Pots", &options)
    }

    #[test]
    fn the_example_is_about_as_long_as_the_post_is_to_be() {
        for words in [250, 500, 700] {
            let (example, text) = example(&brief(serde_json::json!({ "words": words })));
            let written = example.words();
            assert!(written.abs_diff(words) <= words / 5, "{words}: {written}");
            assert!(text.starts_with("# Why Bread Goes Stale\n\nA loaf that"));
            assert!(text.ends_with("in the bin."), "{text}");
        }
    }

    #[test]
    fn sections_that_say_nothing_new_are_left_out_and_told() {
        let sound = "Five tips for you:\n\n## A\n\nTurn the heating down at night. It helps.\n\n\
            ## B\n\n- One\n- Two\n";
        let again = "## C\n\nTurn the heating down at night. And so on.\n";
        let headed_again = "## A\n\nOther words.\n";
        let draft = Draft::parse(&format!("# T\n\n{sound}\n{again}\n{headed_again}"));
        let (draft, warnings) = without_repeated_sections(draft);
        assert_eq!(draft.content(), sound);
        let told = warnings
            .iter()
            .map(|warning| (warning.code, warning.text.as_str()));
        let told: Vec<_> = told.collect();
        assert_eq!(
            told,
            [
                (WarningCode::Repeated, again.trim()),
                (WarningCode::Repeated, headed_again.trim())
            ]
        );
    }

    #[test]
    fn headings_that_differ_in_their_numbers_are_different() {
        for sound in [
            "## 8:00\n\nCoffee.\n\n## 9:00\n\nTea.\n",
            "## Day 1\n\nRome.\n\n## Day 2\n\nOstia.\n",
            "## Week 1: Base\n\nRun 20 km.\n\n## Week 5: Base\n\nRun 40 km.\n",
        ] {
            let (draft, warnings) = without_repeated_sections(Draft::parse(sound));
            assert_eq!((draft.content().as_str(), warnings), (sound, vec![]));
        }
    }

    #[test]
    fn the_example_fulfills_wishes_of_the_kinds_that_the_client_has() {
        let wishes = serde_json::json!({
            "keywords": ["clay"], "instructions": "Mention Tom.", "language": "de",
        });
        let prompt = whole_post(&brief(wishes), "");
        let example = prompt.example.expect("an example");
        let asked = &example.prompt;
        assert!(asked.contains("starch, freezer"), "{asked}");
        assert!(
            !asked.contains("tone") && !asked.contains("German"),
            "{asked}"
        );
        for wish in ["starch", "freezer", "minus eighteen"] {
            assert!(example.answer.contains(wish), "{wish}");
        }
        for wish in ["clay", "Mention Tom.", "in German"] {
            assert!(prompt.user.contains(wish), "{}", prompt.user);
        }
    }
}
