//! Derives the word count and the excerpt from the Markdown of a post.

use icu_segmenter::WordSegmenter;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// The maximum length of an excerpt, without the ellipsis.
const MAX_EXCERPT_CHARS: usize = 200;

/// Counts the words in a Markdown text, in any script. Markup that stands alone, such as `##`, does
/// not count.
pub fn word_count(markdown: &str) -> i32 {
    let words: usize = markdown.split_whitespace().map(words_in).sum();
    i32::try_from(words).unwrap_or(i32::MAX)
}

/// Counts the words that begin in a piece of a longer text, roughly: the piece may end within a
/// word.
pub fn words_begun(piece: &str) -> i32 {
    let spaces = piece.matches(char::is_whitespace).count();
    let parts = piece.split_whitespace();
    let unspaced = parts.filter(|part| part.chars().any(is_unspaced_script));
    let words = spaces + unspaced.map(words_in).sum::<usize>();
    i32::try_from(words).unwrap_or(i32::MAX)
}

/// Counts the words in a text without white space. Only scripts without spaces between words need a
/// dictionary.
fn words_in(piece: &str) -> usize {
    if !piece.chars().any(is_unspaced_script) {
        return usize::from(piece.chars().any(char::is_alphanumeric));
    }
    WordSegmenter::new_dictionary(Default::default())
        .segment_str(piece)
        .iter_with_word_type()
        .filter(|(_, kind)| kind.is_word_like())
        .count()
}

/// Whether the character is of a script that is written without spaces: Thai, Lao, Burmese, Khmer,
/// Chinese, Japanese.
fn is_unspaced_script(c: char) -> bool {
    matches!(c,
        '\u{0e00}'..='\u{0eff}' // Thai, Lao
        | '\u{1000}'..='\u{109f}' // Myanmar
        | '\u{1780}'..='\u{17ff}' // Khmer
        | '\u{3040}'..='\u{30ff}' // Hiragana, Katakana
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' // Han
        | '\u{20000}'..='\u{3ffff}')
}

/// The first paragraph of a Markdown text, without its markup, cut between words to 200 characters.
pub fn excerpt(markdown: &str) -> String {
    let extensions = Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS;
    let mut text = String::new();
    let mut is_paragraph = false;
    for event in Parser::new_ext(markdown, extensions) {
        match event {
            // Text before the first paragraph is used only if there is no paragraph.
            Event::Start(Tag::Paragraph) if !is_paragraph => {
                is_paragraph = true;
                text.clear();
            }
            Event::End(TagEnd::Paragraph) if !text.trim().is_empty() => break,
            Event::Text(piece) | Event::Code(piece) => text += &piece,
            Event::SoftBreak | Event::HardBreak => text.push(' '),
            Event::End(_) if !is_paragraph => text.push(' '),
            _ => {}
        }
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    truncate(&words.join(" "))
}

fn truncate(text: &str) -> String {
    let Some((end, _)) = text.char_indices().nth(MAX_EXCERPT_CHARS) else {
        return text.to_owned();
    };
    let boundaries = WordSegmenter::new_dictionary(Default::default());
    let cut = boundaries.segment_str(text).take_while(|at| *at <= end);
    let cut = cut.last().filter(|at| *at > 0).unwrap_or(end);
    let is_trailing =
        |c: char| c.is_whitespace() || matches!(c, ',' | '.' | ';' | ':' | '、' | '，');
    format!("{}…", text[..cut].trim_end_matches(is_trailing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_without_marks() {
        assert_eq!(word_count("## Two words\n\n- a *third* -- one"), 5);
        assert_eq!(word_count(" \n "), 0);
    }

    #[test]
    fn words_are_counted_in_scripts_without_spaces() {
        for (text, words) in [
            ("我们在阳台上种番茄。", 6),
            ("東京で桜が咲きました。", 6),
            ("ผมชอบกินข้าวผัดที่ร้านนี้", 8),
            ("토마토를 심는 방법", 3),
            ("Rust语言 很快", 4),
        ] {
            let counted = word_count(text);
            assert!(
                (words - 2..=words + 2).contains(&counted),
                "{text}: {counted}"
            );
        }
    }

    #[test]
    fn words_that_come_in_pieces_are_counted_as_they_begin() {
        for text in [
            "We grow red tomatoes on the balcony. ",
            "我们在阳台上种番茄，番茄很红。",
        ] {
            let letters: Vec<char> = text.chars().collect();
            let pieces = letters.chunks(2).map(String::from_iter);
            let begun: i32 = pieces.map(|piece| words_begun(&piece)).sum();
            let words = word_count(text);
            assert!((words..=words * 2).contains(&begun), "{begun}: {text}");
        }
    }

    #[test]
    fn an_excerpt_is_the_first_paragraph_in_plain_text() {
        for (markdown, plain) in [
            ("## Soil\n\nUse **rich** soil.\n\nMore.", "Use rich soil."),
            (
                "Read [the guide](https://a.example/b_c), or `rm *`!",
                "Read the guide, or rm *!",
            ),
            ("![A pot](pot.png)\n\nA *pot*.", "A pot"),
            ("1. One\n2. Two", "One Two"),
            ("> Quoted\n> text", "Quoted text"),
            ("A claim.[^1]\n\n[^1]: Its source.", "A claim."),
            ("# Only a title", "Only a title"),
            ("snake_case & 2 < 3", "snake_case & 2 < 3"),
        ] {
            assert_eq!(excerpt(markdown), plain, "{markdown}");
        }
    }

    #[test]
    fn a_long_excerpt_is_cut_between_words() {
        let cut = excerpt(&"word ".repeat(100));
        assert!(cut.ends_with("word…"), "{cut}");
        let cut = excerpt(&"我们在阳台上种番茄".repeat(50));
        assert!(cut.chars().count() <= MAX_EXCERPT_CHARS + 1);
        assert!(cut.chars().count() > MAX_EXCERPT_CHARS - 10);
    }
}
