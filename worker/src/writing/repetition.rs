//! What a text says twice, and loops in which models get caught.

use std::collections::HashSet;

use pulldown_cmark::{Event, Options, Parser, Tag};

use super::sentences::{normalized, sentences};

/// What is shorter may well stand in a text twice.
const MIN_LETTERS: usize = 24;

/// The paragraphs of a Markdown text in plain text: no lists, tables, code, quotations,
/// or headings, in which things are rightly said again.
pub(super) fn prose(markdown: &str) -> Vec<String> {
    let mut paragraphs: Vec<String> = Vec::new();
    let (mut depth, mut is_open) = (0_usize, false);
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES) {
        match event {
            Event::Start(tag) => {
                if depth == 0 {
                    is_open = tag == Tag::Paragraph;
                    paragraphs.extend(is_open.then(String::new));
                }
                depth += 1;
            }
            Event::End(_) => depth -= 1,
            Event::Text(text) | Event::Code(text) if is_open => {
                paragraphs
                    .last_mut()
                    .into_iter()
                    .for_each(|last| last.push_str(&text));
            }
            Event::SoftBreak | Event::HardBreak if is_open => {
                paragraphs
                    .last_mut()
                    .into_iter()
                    .for_each(|last| last.push(' '));
            }
            _ => {}
        }
    }
    paragraphs.retain(|paragraph| !paragraph.trim().is_empty());
    paragraphs
}

/// The sentences of `text` that stand in it twice or in one of the texts before it.
pub(super) fn repeated_sentences<'a>(
    before: impl IntoIterator<Item = &'a str>,
    text: &str,
) -> Vec<String> {
    let mut seen: HashSet<String> = before
        .into_iter()
        .flat_map(prose_sentences)
        .map(|s| normalized(&s))
        .collect();
    let mut repeated = Vec::new();
    for sentence in prose_sentences(text) {
        let letters = normalized(&sentence);
        if letters.chars().count() >= MIN_LETTERS && !seen.insert(letters) {
            repeated.push(sentence);
        }
    }
    repeated
}

/// The sentences of a Markdown text's paragraphs.
pub(super) fn prose_sentences(markdown: &str) -> Vec<String> {
    let paragraphs = prose(markdown);
    let found = paragraphs.iter().flat_map(|paragraph| sentences(paragraph));
    found.map(|sentence| sentence.trim().to_owned()).collect()
}

/// Whether the last sections are the same as those before them, or the last one the same as
/// the two before it: a song has its chorus again, but not its verses.
pub(super) fn ends_in_a_loop(sections: &[String]) -> bool {
    (1..=sections.len() / 2).any(|round| {
        let rounds = if round == 1 { 3 } else { 2 };
        let last = sections.rchunks(round).take(rounds);
        last.len() == rounds && last.clone().all(|these| Some(these) == last.clone().next())
    })
}

/// The same text must follow itself so many times to be a loop.
const LOOP_ROUNDS: usize = 4;
/// A loop has at least so many letters.
const MIN_LOOP_LETTERS: usize = 60;
/// And its round at most so many lines or words.
const MAX_LOOP_LINES: usize = 6;
const MAX_LOOP_WORDS: usize = 40;

/// Where the loop begins in which a text ends: the second round of it, since the first
/// may be meant. None if it ends in none.
pub(super) fn loop_start(text: &str) -> Option<usize> {
    let lines: Vec<(usize, String)> = pieces(text, |c| c == '\n');
    let words = || pieces(text, char::is_whitespace);
    second_round(&lines, MAX_LOOP_LINES).or_else(|| second_round(&words(), MAX_LOOP_WORDS))
}

/// The pieces of the end of a text that have letters, with where they begin.
fn pieces(text: &str, is_separator: fn(char) -> bool) -> Vec<(usize, String)> {
    let start = |piece: &str| piece.as_ptr() as usize - text.as_ptr() as usize;
    text.split(is_separator)
        .map(|piece| (start(piece), normalized(piece)))
        .filter(|(_, letters)| !letters.is_empty())
        .collect()
}

fn second_round(pieces: &[(usize, String)], longest: usize) -> Option<usize> {
    (1..=longest).find_map(|length| {
        let tail = pieces.len().checked_sub(length * LOOP_ROUNDS)?;
        let letters = |pieces: &[(usize, String)]| -> Vec<String> {
            pieces.iter().map(|(_, letters)| letters.clone()).collect()
        };
        let round = letters(&pieces[pieces.len() - length..]);
        let is_loop = pieces[tail..]
            .chunks(length)
            .all(|chunk| letters(chunk) == round)
            && round.iter().map(String::len).sum::<usize>() * LOOP_ROUNDS >= MIN_LOOP_LETTERS;
        if !is_loop {
            return None;
        }
        let mut first = tail;
        while first >= length && letters(&pieces[first - length..first]) == round {
            first -= length;
        }
        Some(pieces[first + length].0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_that_come_again_in_their_order_are_a_loop() {
        let is_loop = |sections: &str| {
            let sections: Vec<String> = sections.chars().map(String::from).collect();
            ends_in_a_loop(&sections)
        };
        for looped in ["aaa", "xaaa", "abab", "xabcabc"] {
            assert!(is_loop(looped), "{looped}");
        }
        for sound in ["", "a", "aa", "abac", "abacad", "aab"] {
            assert!(!is_loop(sound), "{sound}");
        }
    }

    #[test]
    fn what_stands_in_an_earlier_text_is_repeated() {
        let before = "Check the list twice before you leave the house. Sun is good.";
        let text = "Sun is good. **Check** the list twice, before you leave the house!\n\n- Check the list twice before you leave the house.\n\nNew.";
        assert_eq!(
            repeated_sentences([before], text),
            ["Check the list twice, before you leave the house!"]
        );
    }

    #[test]
    fn a_loop_is_cut_behind_its_first_round() {
        let start = "It is red. It is sweet.\n";
        for (round, times) in [
            ("Water the pot well.\n", 5),
            ("Water the pot.\n\nThen wait for a day.\n", 4),
            ("and again and so on for ever ", 6),
        ] {
            let text = format!("{start}{}", round.repeat(times));
            let cut = loop_start(&text).unwrap();
            assert_eq!(
                text[..cut].trim_end(),
                format!("{start}{round}").trim_end(),
                "{round}"
            );
        }
    }

    #[test]
    fn a_refrain_and_a_table_are_no_loops() {
        for text in [
            "Row, row, row your boat\nGently down the stream\n\nRow, row, row your boat\nGently down the stream\n",
            "| a | b |\n|---|---|\n| 1 | 2 |\n| 1 | 2 |\n| 1 | 2 |\n| 1 | 2 |\n",
            "no no no no no",
        ] {
            assert_eq!(loop_start(text), None, "{text}");
        }
    }
}
