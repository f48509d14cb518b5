//! Passages of sources, and which of them have to do with what is being written.

use std::collections::HashSet;

use bm25::{SearchEngine, SearchEngineBuilder, Tokenizer};
use entity::text::word_count;
use icu_segmenter::WordSegmenter;

use crate::writing::is_function_word;

/// A passage has about so many words.
const PASSAGE_WORDS: i32 = 80;

/// A paragraph with fewer words, and no end of a sentence, is a menu or a button.
const MIN_WORDS: i32 = 5;

/// A part of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Passage {
    /// The number of the source.
    pub(crate) source: u32,
    pub(crate) text: String,
}

/// The passages of all sources, to be searched.
#[derive(Debug)]
pub(crate) struct Passages {
    all: Vec<Passage>,
    index: SearchEngine<usize, u32, Words>,
}

impl Passages {
    /// Splits sources, given by their numbers, into passages. What is said twice is kept once.
    pub(super) fn new<'a>(sources: impl Iterator<Item = (u32, &'a str)>) -> Self {
        let mut seen = HashSet::new();
        let mut all = Vec::new();
        for (source, text) in sources {
            let passages = split(text, &mut seen).into_iter();
            all.extend(passages.map(|text| Passage { source, text }));
        }
        let texts: Vec<String> = all.iter().map(|passage| passage.text.clone()).collect();
        let documents = texts.into_iter().enumerate();
        let documents = documents.map(|(id, text)| bm25::Document::new(id, text));
        let index = SearchEngineBuilder::with_tokenizer_and_documents(Words, documents).build();
        Passages { all, index }
    }

    /// Whether anything has to do with `topic`. Of a topic without words nobody can tell.
    pub(super) fn has_any_about(&self, topic: &str) -> bool {
        let is_empty = Words.tokenize(topic).is_empty();
        !self.all.is_empty() && (is_empty || !self.about(topic, 1).is_empty())
    }

    /// The passages that have to do with `query`, the best first, of up to `max_words` in all.
    pub(crate) fn about(&self, query: &str, max_words: i32) -> Vec<&Passage> {
        let mut words = 0;
        let mut found = Vec::new();
        for result in self.index.search(query, None) {
            let passage = &self.all[result.document.id];
            words += word_count(&passage.text);
            if words > max_words && !found.is_empty() {
                break;
            }
            found.push(passage);
        }
        found
    }
}

/// The words of a text, small and without endings, in any script.
#[derive(Clone, Copy, Debug)]
struct Words;

impl Tokenizer for Words {
    fn tokenize(&self, text: &str) -> Vec<String> {
        let segmenter = WordSegmenter::new_dictionary(Default::default());
        let mut from = 0;
        let mut words = Vec::new();
        for (to, kind) in segmenter.segment_str(text).iter_with_word_type() {
            let word = text[from..to].to_lowercase();
            from = to;
            if kind.is_word_like() && !is_function_word(&word) {
                words.push(without_ending(&word));
            }
        }
        words
    }
}

/// A word without the ending of a plural or a participle, roughly.
pub(crate) fn without_ending(word: &str) -> String {
    let endings = ["ing", "ed", "es", "en", "er", "s", "e", "n"];
    let bare = endings
        .iter()
        .filter_map(|ending| word.strip_suffix(ending));
    let bare = bare.into_iter().find(|bare| bare.chars().count() >= 4);
    bare.filter(|_| !word.contains(char::is_numeric))
        .unwrap_or(word)
        .to_owned()
}

/// A text in passages: short paragraphs together, long ones in parts. What was `seen` is left out.
fn split(text: &str, seen: &mut HashSet<Vec<String>>) -> Vec<String> {
    let mut passages: Vec<String> = Vec::new();
    let mut words = PASSAGE_WORDS;
    // A list or a table has a line for each of its entries.
    for paragraph in text.split('\n').map(str::trim) {
        let is_sentence = paragraph.ends_with(['.', '!', '?', ':', '。', '！', '？', '।', '؟']);
        if word_count(paragraph) < MIN_WORDS && !is_sentence {
            continue;
        }
        for part in parts(paragraph) {
            if !seen.insert(Words.tokenize(part)) {
                continue;
            }
            let more = word_count(part);
            match passages
                .last_mut()
                .filter(|_| words + more <= PASSAGE_WORDS)
            {
                Some(passage) => {
                    *passage += "\n";
                    *passage += part;
                    words += more;
                }
                None => {
                    passages.push(part.to_owned());
                    words = more;
                }
            }
        }
    }
    passages
}

/// A paragraph in parts of whole sentences; one without any in parts of words.
fn parts(paragraph: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut from, mut to, mut words) = (0, 0, 0);
    for piece in crate::writing::sentences(paragraph)
        .into_iter()
        .flat_map(pieces)
    {
        let more = word_count(piece);
        if words > 0 && words + more > PASSAGE_WORDS {
            parts.push(paragraph[from..to].trim());
            (from, words) = (to, 0);
        }
        to += piece.len();
        words += more;
    }
    parts.push(paragraph[from..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

/// How many bytes of one sentence a passage has at most.
const MAX_SENTENCE_BYTES: usize = 800;

/// A sentence in pieces, if it is so long that it is none.
fn pieces(sentence: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = sentence;
    while rest.len() > MAX_SENTENCE_BYTES {
        let end = rest.floor_char_boundary(MAX_SENTENCE_BYTES);
        let end = rest[..end]
            .rfind(char::is_whitespace)
            .filter(|at| *at > 0)
            .unwrap_or(end);
        pieces.push(&rest[..end]);
        rest = &rest[end..];
    }
    pieces.push(rest);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    const GARDEN: &str = "Tomatoes want six hours of sun a day.\n\nHome | Shop\n\nWater them each \
        morning, at the root.\n\nCookie settings";
    const BIKES: &str =
        "A bicycle chain wants oil each month.\n\nTomatoes want six hours of sun a day.";

    #[test]
    fn the_passages_that_have_to_do_with_a_topic_come_first() {
        let passages = Passages::new([(1, GARDEN), (2, BIKES)].into_iter());
        let found = passages.about("How much water do tomatoes want?", 500);
        assert_eq!(found[0].source, 1);
        assert!(found[0].text.contains("six hours") && found[0].text.contains("at the root"));
        assert!(!found[0].text.contains("Shop"));
        let found = passages.about("the chains of bicycles", 500);
        assert_eq!((found.len(), found[0].source), (1, 2));
        assert!(passages.about("the theory of relativity", 500).is_empty());
    }

    #[test]
    fn passages_are_of_a_size_and_few() {
        let sentence =
            |n: usize| format!("Tomato number {n} was planted in the garden in the spring. ");
        let text: String = (0..100).map(sentence).collect();
        let passages = Passages::new([(1, text.as_str())].into_iter());
        assert!(
            passages
                .all
                .iter()
                .all(|passage| word_count(&passage.text) <= PASSAGE_WORDS)
        );
        let found = passages.about("tomatoes in the garden", 200);
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn short_words_count_and_function_words_do_not() {
        let passages =
            Passages::new([(1, "The CSS of a page says how it looks, and with what.")].into_iter());
        assert!(passages.has_any_about("Why CSS is fun"));
        assert!(passages.has_any_about("???"));
        assert!(!passages.has_any_about("What to do with old bread"));
    }

    #[test]
    fn a_list_without_sentences_is_split_too() {
        let list = "- a row of a table | 12 | 13\n".repeat(50) + &"word ".repeat(5_000);
        let passages = Passages::new([(1, list.as_str())].into_iter());
        let longest = passages.all.iter().map(|passage| passage.text.len()).max();
        assert!(longest.unwrap() <= 2 * MAX_SENTENCE_BYTES, "{longest:?}");
    }

    #[test]
    fn passages_are_found_in_scripts_without_spaces() {
        let text = "番茄每天需要六小时的阳光。\n\n自行车的链条每月要上油。";
        let passages = Passages::new([(1, text)].into_iter());
        let found = passages.about("番茄需要多少阳光", 500);
        assert!(found[0].text.contains("阳光"));
    }
}
