//! Where sentences end. Unicode knows the marks that end them, in every script; its rules
//! for segmentation (UAX #29) would end one behind "Dr." and before the `**` of a bold
//! question, and none in Thai.

use icu_properties::props::{
    EastAsianWidth, GeneralCategory, GeneralCategoryGroup, QuotationMark, SentenceTerminal,
};
use icu_properties::{CodePointMapData, CodePointSetData};

/// Ends sentences, although Unicode does not say so.
const ELLIPSIS: char = '…';
/// Marks of Markdown that may stand between the end of a sentence and the space.
const MARKUP: &[char] = &['*', '_', '`'];

const ABBREVIATIONS: &[&str] = &[
    "mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "mt", "gen", "col", "capt", "vs", "etc",
    "approx", "ca", "cf", "al", "fig", "no", "vol", "ed", "inc", "ltd", "co", "dept", "est", "min",
    "max", "bzw", "usw", "bspw", "ggf", "evtl", "nr", "vgl", "sog", "inkl", "sra", "ud", "uds",
    "pág", "núm", "env", "mme", "m",
];

/// The text in sentences. Each keeps the space behind it, so that together they
/// are the text again; what follows the last end is a sentence too.
pub(crate) fn sentences(text: &str) -> Vec<&str> {
    let mut rest = 0;
    let mut found = Vec::new();
    for end in ends(text) {
        let space = text[end..]
            .find(|c: char| !c.is_whitespace())
            .unwrap_or(text.len() - end);
        found.push(&text[rest..end + space]);
        rest = end + space;
    }
    if rest < text.len() {
        found.push(&text[rest..]);
    }
    found
}

/// The text up to the end of its last whole sentence.
pub(super) fn whole(text: &str) -> &str {
    &text[..ends(text).pop().unwrap_or(0)]
}

/// How many whole sentences the text has.
pub(super) fn count(text: &str) -> usize {
    ends(text).len() + usize::from(text.ends_with(is_thai_or_lao))
}

/// Whether the text stops as the end of a sentence does.
pub(super) fn is_ended(text: &str) -> bool {
    text.trim_end()
        .trim_end_matches(is_closer)
        .ends_with(is_stop)
}

/// Where sentences end, in bytes, before the space.
fn ends(text: &str) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut done = 0;
    for (at, c) in text.char_indices() {
        if at < done {
            continue;
        }
        if c.is_whitespace() && text[..at].ends_with(is_thai_or_lao) {
            // These put a space between sentences, and no mark.
            ends.push(at);
            continue;
        }
        if !is_stop(c) {
            continue;
        }
        let closing = |c: char| is_closer(c) || is_stop(c);
        let rest = text[at + c.len_utf8()..].trim_start_matches(closing);
        done = text.len() - rest.len();
        let is_end = is_wide(c)
            || (rest.is_empty() || rest.starts_with(char::is_whitespace))
                && !rest.trim_start().starts_with(char::is_lowercase)
                && !(c == '.' && is_abbreviation(&text[..at]));
        if is_end {
            ends.push(done);
        }
    }
    ends
}

/// Whether a dot behind this text may belong to the last word. Where one can't
/// know, such as after "12", it does: to cut back a sentence too much is better
/// than to end on half of one.
fn is_abbreviation(before: &str) -> bool {
    let word = before
        .rsplit(|c: char| c.is_whitespace() || "([\"'“„*_".contains(c))
        .next()
        .unwrap_or_default();
    let short = |part: &str| part.chars().count() <= 2 && part.chars().all(char::is_alphabetic);
    let initial = word != "I" && word.chars().count() == 1 && word.chars().all(char::is_uppercase);
    initial
        || (1..=2).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_digit())
        || word.contains('.') && word.split('.').all(short)
        || ABBREVIATIONS.contains(&word.to_lowercase().as_str())
}

fn is_stop(c: char) -> bool {
    c == ELLIPSIS || CodePointSetData::new::<SentenceTerminal>().contains(c)
}

/// Whether the character may stand between the end of a sentence and the space.
fn is_closer(c: char) -> bool {
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    GeneralCategoryGroup::ClosePunctuation.contains(category)
        || CodePointSetData::new::<QuotationMark>().contains(c)
        || MARKUP.contains(&c)
}

/// Whether the mark is one of those of Chinese and Japanese, which no space follows.
fn is_wide(c: char) -> bool {
    let width = CodePointMapData::<EastAsianWidth>::new().get(c);
    matches!(
        width,
        EastAsianWidth::Wide | EastAsianWidth::Fullwidth | EastAsianWidth::Halfwidth
    )
}

fn is_thai_or_lao(c: char) -> bool {
    ('\u{e00}'..='\u{eff}').contains(&c)
}

/// A text's letters and digits alone, small: by which texts are compared.
pub(super) fn normalized(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_back_to_its_last_whole_sentence() {
        for (text, whole_part) in [
            ("It is red. It is sw", "It is red."),
            ("It costs 3.50 euros. About 12. of", "It costs 3.50 euros."),
            ("Ask Dr. Miller. She knows e.g. Mr. S", "Ask Dr. Miller."),
            (
                "\"It is red!\" she said. \"It is sweet.\" And th",
                "\"It is red!\" she said. \"It is sweet.\"",
            ),
            ("It is red (very red.) It i", "It is red (very red.)"),
            ("Is it **red?** It may", "Is it **red?**"),
            ("番茄很红。它很甜！为什么", "番茄很红。它很甜！"),
            (
                "番茄很红（很甜！）。「为什么？」他",
                "番茄很红（很甜！）。「为什么？」",
            ),
            ("टमाटर लाल है। वह मी", "टमाटर लाल है।"),
            ("هل هو أحمر؟ نعم، إنه أح", "هل هو أحمر؟"),
            ("ቲማቲም ቀይ ነው። እሱ ጣ", "ቲማቲም ቀይ ነው።"),
            ("Լոլիկը կարմիր է։ Այն քա", "Լոլիկը կարմիր է։"),
            ("មានពណ៌ក្រហម។ វា", "មានពណ៌ក្រហម។"),
            ("No end at all", ""),
        ] {
            assert_eq!(whole(text), whole_part, "{text}");
        }
    }

    #[test]
    fn sentences_together_are_the_text() {
        let text = "One is red.  Two is \"green!\"\nThree is bl";
        assert_eq!(
            sentences(text),
            ["One is red.  ", "Two is \"green!\"\n", "Three is bl"]
        );
    }
}
