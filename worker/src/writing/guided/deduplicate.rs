//! Which sentences have something to say: small models say things twice, run in
//! circles, and talk about their work.

use std::collections::HashSet;

use super::heading;
use crate::writing::sentences::{normalized, sentences};

/// What was said so far.
#[derive(Debug, Default)]
pub(super) struct SeenSentences {
    sentences: HashSet<String>,
    /// The post's title and headings.
    names: Vec<String>,
}

impl SeenSentences {
    /// All that these texts say, of a post with these names in it.
    pub(super) fn new<'a>(texts: &[String], names: impl IntoIterator<Item = &'a String>) -> Self {
        let mut said = SeenSentences::default();
        for sentence in texts.iter().flat_map(|text| sentences(text)) {
            said.is_new(sentence);
        }
        said.names = names.into_iter().map(|name| name.to_lowercase()).collect();
        said
    }

    /// The sentences of a text that say something new, to the reader.
    pub(super) fn new_in(&mut self, text: &str) -> String {
        let mut kept = String::new();
        let mut last = String::new();
        for sentence in sentences(text) {
            let letters = normalized(sentence);
            if letters != last
                && self.is_new(sentence)
                && !is_repetitive(sentence)
                && !self.is_about_the_work(sentence)
            {
                kept += sentence;
            }
            last = letters;
        }
        kept.trim().to_owned()
    }

    /// Note a sentence; whether it was not said before. What is too short to
    /// mean something ("Yes!") is always new.
    fn is_new(&mut self, sentence: &str) -> bool {
        let letters = normalized(sentence);
        // In bytes: a letter of a script without spaces says as much as several
        // of ours.
        letters.len() < 18 || self.sentences.insert(letters)
    }

    /// Whether a sentence is about the text or its author, or is to be filled in.
    fn is_about_the_work(&self, sentence: &str) -> bool {
        const PHRASES: &[&str] = &[
            "as an ai ",
            "i'm an ai",
            "i am an ai",
            "as a language model",
            "ai language model",
            "i'm sorry, but",
            "i am sorry, but i",
            "i cannot fulfill",
            "blog post",
            "blogpost",
            "this blog ",
            "this section",
            "the first section",
            "the second section",
            "the other sections",
            "two paragraphs",
            "short paragraph",
            "the first paragraph",
            "the second paragraph",
            "the rest remains",
            "i rephrased",
            "i've rephrased",
            "in this revised",
            "in this edited",
            "this revised version",
            "in this rewritten",
            "i made a few changes",
            "i made some changes",
            "i've made some changes",
            "in this example, i",
            "i also added",
            "i've used a ",
        ];
        let small = sentence.to_lowercase().replace('’', "'");
        let written_about = |phrase: &str| {
            small.contains(phrase) && !self.names.iter().any(|name| name.contains(phrase.trim()))
        };
        let quoted = |name: &String| {
            ['"', '“']
                .iter()
                .any(|quote| small.contains(&format!("{quote}{name}")))
        };
        PHRASES.iter().any(|phrase| written_about(phrase))
            || self.names.iter().any(quoted)
            || heading::is_placeholder(sentence)
    }
}

/// Whether the words run in circles.
pub(super) fn is_repetitive(sentence: &str) -> bool {
    let words: Vec<String> = sentence.split_whitespace().map(normalized).collect();
    (1..=8).any(|length| {
        words
            .windows(length * 3)
            .any(|run| run.chunks(length).all(|words| words == &run[..length]))
    })
}
