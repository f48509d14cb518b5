//! Whether a source bears a sentence, word by word and without a model. It would rather miss that a
//! source bears a sentence than take it for one that bears another.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

use icu_properties::CodePointMapData;
use icu_properties::props::{GeneralCategory, GeneralCategoryGroup};
use icu_segmenter::WordSegmenter;

use super::words::{BOUNDARIES, CONNECTIVES, DECISIVE, NEGATIONS, NUMBERS, OPENERS};
use crate::sources::without_ending;
use crate::writing::sentences;

/// This share of a sentence's words of content must stand in the source, in the same order.
const MIN_OVERLAP: f64 = 0.8;

/// Fewer words say nothing that can be compared.
const MIN_WORDS: usize = 3;

/// With fewer words of content in common, two texts are about different things.
const MIN_COMMON: usize = 2;

/// A sentence of a source with more words is no sentence, but a table or a list.
const MAX_WORDS: usize = 120;

/// How a source bears a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// Word by word.
    Exact,
    /// In nearly the same words, with the same numbers, names, quotations and negations.
    Close,
}

/// The words of a source that bear a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Evidence {
    pub(super) kind: Match,
    /// Where they stand, in bytes.
    pub(super) range: Range<usize>,
}

/// A source's text, prepared for comparing.
pub(super) struct SourceText {
    text: String,
    words: Vec<Word>,
    /// Its sentences, as positions in `words`. None goes over the end of a line.
    sentences: Vec<Range<usize>>,
    /// The sentences that have a word, by its stem.
    index: HashMap<String, Vec<usize>>,
}

impl SourceText {
    pub(super) fn new(text: &str) -> Self {
        let mut source = SourceText {
            text: text.to_owned(),
            words: Vec::new(),
            sentences: Vec::new(),
            index: HashMap::new(),
        };
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            for sentence in sentences(line) {
                source.add(sentence, at);
                at += sentence.len();
            }
        }
        source
    }

    fn add(&mut self, sentence: &str, at: usize) {
        let from = self.words.len();
        let number = self.sentences.len();
        for mut word in words(sentence) {
            word.range = word.range.start + at..word.range.end + at;
            let of_word = self.index.entry(word.stem.clone()).or_default();
            if of_word.last() != Some(&number) {
                of_word.push(number);
            }
            self.words.push(word);
        }
        if from < self.words.len() {
            self.sentences.push(from..self.words.len());
        }
    }

    pub(super) fn quote(&self, range: &Range<usize>) -> String {
        self.text[range.clone()].to_owned()
    }

    /// A range in characters instead of bytes.
    pub(super) fn characters(&self, range: &Range<usize>) -> Range<usize> {
        let start = self.text[..range.start].chars().count();
        start..start + self.text[range.clone()].chars().count()
    }

    /// The words that bear `claim`, if any do.
    pub(super) fn evidence(&self, claim: &str) -> Option<Evidence> {
        let claim = Claim::new(claim);
        if !(MIN_WORDS..=MAX_WORDS).contains(&claim.words.len()) {
            return None;
        }
        let windows = self.windows(&claim);
        let exact = windows.iter().find_map(|window| self.exact(&claim, window));
        exact.or_else(|| self.close(&claim, windows))
    }

    /// The sentences, and pairs of them, that may bear a claim: those with one of its rarest words. If
    /// all of these are missing, too few of its words are there.
    fn windows(&self, claim: &Claim) -> Vec<Range<usize>> {
        let mut lists: Vec<&[usize]> = claim
            .content
            .iter()
            .map(|stem| self.index.get(stem).map_or(&[][..], Vec::as_slice))
            .collect();
        lists.sort_by_key(|list| list.len());
        let least = (lists.len() as f64 * MIN_OVERLAP).ceil() as usize;
        let needed = lists.len() - least.min(lists.len()) + 1;
        let mut near: Vec<usize> = lists.into_iter().take(needed).flatten().copied().collect();
        near.sort_unstable();
        near.dedup();
        self.windows_at(near)
    }

    /// Sentences, and the pairs with their neighbours.
    fn windows_at(&self, sentences: Vec<usize>) -> Vec<Range<usize>> {
        let mut windows = Vec::new();
        for at in sentences {
            windows.push(self.sentences[at].clone());
            for first in [at.checked_sub(1), Some(at)].into_iter().flatten() {
                let Some(second) = self.sentences.get(first + 1) else {
                    continue;
                };
                let pair = self.sentences[first].start..second.end;
                if !self.text[self.bytes(&pair)].contains('\n') {
                    windows.push(pair);
                }
            }
        }
        windows.retain(|window| window.len() <= 2 * MAX_WORDS);
        windows
    }

    fn exact(&self, claim: &Claim, window: &Range<usize>) -> Option<Evidence> {
        let length = claim.words.len();
        let mut parts = self.words[window.clone()].windows(length);
        let is_same = |part: &[Word]| part.iter().zip(&claim.words).all(|(a, b)| a.text == b.text);
        let start = window.start + parts.position(is_same)?;
        let range = start..start + length;
        let sentence = self
            .sentences
            .iter()
            .find(|sentence| sentence.contains(&start))?;
        let before = &self.words[sentence.start..start];
        if before.iter().any(|word| is_negation(&word.text)) {
            return None;
        }
        // "It is so … not" denies it; "… and it is not so" does not.
        let mut behind = self.words[range.end..sentence.end.max(range.end)].iter();
        if let Some(denial) = behind.find(|word| is_negation(&word.text)) {
            let between = &self.text[self.words[range.end - 1].range.end..denial.range.start];
            let mut parts = between.split_whitespace();
            let is_apart = between.contains([',', ';', ':', '(', '–', '—', '，', '、', '；'])
                || parts.any(|word| BOUNDARIES.contains(word));
            if !is_apart {
                return None;
            }
        }
        Some(Evidence {
            kind: Match::Exact,
            range: self.bytes(&range),
        })
    }

    /// The sentence, or pair of them, that may say a claim in other words: the one that has the most of
    /// its words. None if that lacks a number, name or quotation of the claim, or denies something else.
    pub(super) fn candidate(&self, claim: &str) -> Option<Range<usize>> {
        let claim = Claim::new(claim);
        let near = claim.content.iter().filter_map(|stem| self.index.get(stem));
        let mut near: Vec<usize> = near.flatten().copied().collect();
        near.sort_unstable();
        near.dedup();
        let windows = self.windows_at(near).into_iter();
        let ranked = windows.map(|window| {
            let words = &self.words[window.clone()];
            let (common, agrees) = (claim.common_words(words), claim.agrees_with(words));
            ((common, agrees, Reverse(window.len())), window)
        });
        let ((common, agrees, _), window) = ranked.max_by_key(|(rank, _)| *rank)?;
        (agrees && common >= MIN_COMMON).then(|| self.bytes(&window))
    }

    /// The window that has the most of the claim's words.
    fn close(&self, claim: &Claim, windows: Vec<Range<usize>>) -> Option<Evidence> {
        let mut best: Option<(f64, Range<usize>)> = None;
        for window in windows {
            let overlap = claim.overlap(&self.words[window.clone()]);
            if overlap >= MIN_OVERLAP && best.as_ref().is_none_or(|(most, _)| overlap > *most) {
                best = Some((overlap, window));
            }
        }
        best.map(|(_, range)| Evidence {
            kind: Match::Close,
            range: self.bytes(&range),
        })
    }

    fn bytes(&self, words: &Range<usize>) -> Range<usize> {
        self.words[words.start].range.start..self.words[words.end - 1].range.end
    }
}

/// What a sentence of a post says.
struct Claim {
    words: Vec<Word>,
    /// The stems of its words of content.
    content: Vec<String>,
    denied: Vec<Vec<String>>,
    /// Names, which a source must have in this order.
    names: Vec<String>,
    /// Numbers with what they count, and words that decide, which it must have in this order.
    numbers: Vec<String>,
    /// The words of its quotations.
    quotations: Vec<Vec<String>>,
}

impl Claim {
    fn new(text: &str) -> Self {
        let words = words(text);
        let mut names = Vec::new();
        let mut numbers = Vec::new();
        for (at, word) in words.iter().enumerate() {
            let text = word.text.as_str();
            let counts = at > 0 && is_number(&words[at - 1].text);
            if is_number(text) || counts && word.is_content() || DECISIVE.contains(text) {
                numbers.push(word.stem.clone());
            } else if word.is_capitalized && !OPENERS.contains(text) {
                // The first word of a sentence may be one, too.
                names.push(word.stem.clone());
            }
        }
        let quotations = quotations(text).into_iter().map(|quoted| {
            let quoted = self::words(quoted).into_iter();
            quoted.map(|word| word.text).collect()
        });
        Claim {
            content: content(&words),
            denied: denied(&words),
            names,
            numbers,
            quotations: quotations
                .filter(|words: &Vec<String>| words.len() >= MIN_WORDS)
                .collect(),
            words,
        }
    }

    /// How many of its words of content a window has, in any order.
    fn common_words(&self, window: &[Word]) -> usize {
        let is_there = |stem: &&String| window.iter().any(|word| word.stem == **stem);
        self.content.iter().filter(is_there).count()
    }

    /// Whether a window has what no other words can say, in the same order, and denies the same.
    fn agrees_with(&self, window: &[Word]) -> bool {
        let has_in_order = |wanted: &[String]| {
            let mut rest = window.iter();
            wanted
                .iter()
                .all(|stem| rest.any(|word| word.stem == *stem))
        };
        has_in_order(&self.names)
            && has_in_order(&self.numbers)
            && self.has_quotations(window)
            && denies_the_same(&self.denied, &denied(window))
    }

    fn has_quotations(&self, window: &[Word]) -> bool {
        let has_quotation = |quotation: &Vec<String>| {
            let mut parts = window.windows(quotation.len());
            parts.any(|part| part.iter().zip(quotation).all(|(a, b)| a.text == *b))
        };
        self.quotations.iter().all(has_quotation)
    }

    /// The share of its words of content that a window has; 0 if the window says something else.
    fn overlap(&self, window: &[Word]) -> f64 {
        if self.content.len() < MIN_WORDS || !self.agrees_with(window) {
            return 0.0;
        }
        let there = content(window);
        let common = if self.quotations.is_empty() {
            common_subsequence(&self.content, &there)
        } else {
            // Who said it may stand before or behind.
            let wanted = self.content.iter();
            wanted.filter(|stem| there.contains(stem)).count()
        };
        common as f64 / self.content.len() as f64
    }
}

fn content(words: &[Word]) -> Vec<String> {
    let words = words.iter().filter(|word| word.is_content());
    words.map(|word| word.stem.clone()).collect()
}

/// Whether two texts deny as often, and each time the same, as far as both go on.
fn denies_the_same(a: &[Vec<String>], b: &[Vec<String>]) -> bool {
    let is_same = |(a, b): (&Vec<String>, &Vec<String>)| {
        let both = a.len().min(b.len());
        a[..both] == b[..both] && (both > 0 || a.len() == b.len())
    };
    a.len() == b.len() && a.iter().zip(b).all(is_same)
}

/// What a text denies: the two words of content behind each negation.
fn denied(words: &[Word]) -> Vec<Vec<String>> {
    let negations = words
        .iter()
        .enumerate()
        .filter(|(_, word)| is_negation(&word.text));
    negations
        .map(|(at, _)| {
            let mut denied = content(&words[at + 1..]);
            denied.truncate(2);
            denied
        })
        .collect()
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    /// Small, without marks.
    text: String,
    stem: String,
    is_capitalized: bool,
    range: Range<usize>,
}

impl Word {
    fn new(raw: &str, range: Range<usize>) -> Self {
        let text: String = raw
            .chars()
            .filter(|c| *c != '\u{ad}')
            .map(|c| if c == '’' { '\'' } else { c })
            .flat_map(char::to_lowercase)
            .collect();
        let text = if is_number(&text) {
            without_separators(&text)
        } else {
            text.trim_end_matches("'s").to_owned()
        };
        Word {
            stem: without_ending(&text),
            is_capitalized: raw.starts_with(char::is_uppercase),
            text,
            range,
        }
    }

    /// Whether it says something, beside holding a sentence together.
    fn is_content(&self) -> bool {
        let text = self.text.as_str();
        let holds_together = CONNECTIVES.contains(text) || OPENERS.contains(text);
        is_number(text) || !holds_together
    }
}

/// The words of a text, and the symbols that say something: `€`, `<`, `½`.
fn words(text: &str) -> Vec<Word> {
    let segmenter = WordSegmenter::new_dictionary(Default::default());
    let mut found: Vec<Word> = Vec::new();
    let mut from = 0;
    for (to, kind) in segmenter.segment_str(text).iter_with_word_type() {
        let (raw, range) = (&text[from..to], from..to);
        from = to;
        if raw == "%" {
            found.push(Word::new("percent", range));
        } else if kind.is_word_like() {
            let sign = if is_negative(text, &range) { "-" } else { "" };
            found.push(Word::new(&format!("{sign}{raw}"), range));
        } else if raw.chars().any(is_symbol) {
            found.push(Word::new(raw, range));
        }
    }
    found
}

/// Whether a minus stands before a number, and no other number before that.
fn is_negative(text: &str, number: &Range<usize>) -> bool {
    let before = &text[..number.start];
    let bare = before.trim_end_matches(['-', '−', '–']);
    text[number.clone()].starts_with(char::is_numeric)
        && bare.len() < before.len()
        && !bare.ends_with(char::is_alphanumeric)
}

fn is_symbol(c: char) -> bool {
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    let of_numbers = [
        GeneralCategory::CurrencySymbol,
        GeneralCategory::MathSymbol,
        GeneralCategory::OtherNumber,
    ];
    of_numbers.contains(&category) || GeneralCategoryGroup::Number.contains(category)
}

/// Digits of Chinese and Japanese, which Unicode takes for letters.
const HAN_DIGITS: &str = "〇零一二三四五六七八九十百千万萬億亿两兩";

/// Whether it is a number, in digits or as a word.
fn is_number(text: &str) -> bool {
    let is_digit = |c: char| c.is_numeric() || HAN_DIGITS.contains(c);
    text.contains(is_digit) || NUMBERS.contains(text)
}

/// `1,000` is `1000`. `1.000` may be either.
fn without_separators(number: &str) -> String {
    let parts: Vec<&str> = number.split([',', '\'', '\u{a0}', '\u{202f}']).collect();
    let is_grouped = parts.len() > 1
        && (1..=3).contains(&parts[0].trim_start_matches('-').len())
        && parts[1..]
            .iter()
            .all(|part| part.split('.').next().is_some_and(|part| part.len() == 3));
    if is_grouped {
        parts.concat()
    } else {
        number.to_owned()
    }
}

fn is_negation(word: &str) -> bool {
    NEGATIONS.contains(word)
        || word.ends_with("n't")
        || UNSPACED_NEGATIONS.iter().any(|part| word.contains(part))
}

/// Parts of words that say no, in scripts without spaces and in Korean.
const UNSPACED_NEGATIONS: &[&str] = &[
    "不",
    "没",
    "沒",
    "无",
    "無",
    "非",
    "未",
    "ない",
    "なかっ",
    "ません",
    "ไม่",
    "않",
    "없",
    "못",
];

/// What stands between quotation marks.
fn quotations(text: &str) -> Vec<&str> {
    const MARKS: [(char, char); 6] = [
        ('“', '”'),
        ('„', '“'),
        ('«', '»'),
        ('»', '«'),
        ('「', '」'),
        ('"', '"'),
    ];
    let mut found = Vec::new();
    for (open, close) in MARKS {
        let mut rest = text;
        while let Some(from) = rest.find(open) {
            let inside = &rest[from + open.len_utf8()..];
            let Some(to) = inside.find(close) else { break };
            found.push(&inside[..to]);
            rest = &inside[to + close.len_utf8()..];
        }
    }
    found
}

/// The length of the longest sequence that both have in this order; 0 if between two of its words each
/// has others: then one says something else there.
fn common_subsequence(a: &[String], b: &[String]) -> usize {
    // How long it is from there on.
    let mut length = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            length[i][j] = if a[i] == b[j] {
                length[i + 1][j + 1] + 1
            } else {
                length[i + 1][j].max(length[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let (mut only_a, mut only_b) = (0, 0);
    let is_other = |only_a: usize, only_b: usize| only_a > 0 && only_b > 0;
    while i < a.len() && j < b.len() {
        if a[i] == b[j] {
            // What stands before the first word is of another sentence.
            if is_other(only_a, only_b) && i > only_a {
                return 0;
            }
            (only_a, only_b) = (0, 0);
            (i, j) = (i + 1, j + 1);
        } else if length[i + 1][j] >= length[i][j + 1] {
            (i, only_a) = (i + 1, only_a + 1);
        } else {
            (j, only_b) = (j + 1, only_b + 1);
        }
    }
    (only_a, only_b) = (only_a + a.len() - i, only_b + b.len() - j);
    if is_other(only_a, only_b) {
        return 0;
    }
    length[0][0]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "The Gasteiner Ache is 41 kilometres long. In 1903 Marie Curie and Pierre \
        Curie shared the Nobel Prize in Physics with Henri Becquerel. Tomatoes need six hours of sun \
        a day, and they do not like wet leaves. The bridge was built in 1,932 days and cost 3.5 \
        million dollars; it is not open to lorries. \u{201c}A garden is never finished,\u{201d} said \
        the gardener Ann Green in May 2021. Sales rose by 12% in the north, and fell by 4% in the \
        south. The river flows from the mountains to the sea.\n\nDie Brücke in Salzburg wurde 1849 \
        gebaut und nicht zerstört.\n\n番茄每天需要六小时的阳光。这种番茄不喜欢潮湿的叶子。\n\n\
        La tour Eiffel mesure 330 mètres et ne penche pas.";

    fn kind(claim: &str) -> Option<Match> {
        SourceText::new(SOURCE)
            .evidence(claim)
            .map(|found| found.kind)
    }

    #[test]
    fn the_words_of_a_source_bear_what_they_say() {
        for claim in [
            "The Gasteiner Ache is 41 kilometres long.",
            "the **Gasteiner Ache** is 41 kilometres long",
            "Tomatoes need six hours of sun a day",
            "The bridge was built in 1932 days.",
            "\"A garden is never finished,\" said the gardener Ann Green.",
            "番茄每天需要六小时的阳光。",
            "Die Brücke in Salzburg wurde 1849 gebaut.",
        ] {
            assert_eq!(kind(claim), Some(Match::Exact), "{claim}");
        }
    }

    #[test]
    fn nearly_the_same_words_bear_it_too() {
        for claim in [
            "The Gasteiner Ache has a length of 41 kilometres.",
            "Marie Curie and Pierre Curie shared the 1903 Nobel Prize in Physics with Becquerel.",
            "A tomato needs six hours of sun a day, and does not like wet leaves.",
            "In the north, sales rose by 12 percent.",
            "The gardener Ann Green said in May 2021: “A garden is never finished.”",
        ] {
            assert_eq!(kind(claim), Some(Match::Close), "{claim}");
        }
    }

    #[test]
    fn what_a_source_does_not_say_it_does_not_bear() {
        for claim in [
            // Digits, numbers as words, units.
            "The Gasteiner Ache is 42 kilometres long.",
            "The Gasteiner Ache is 41 miles long.",
            "The Gasteiner Ache is 4.1 kilometres long.",
            "Tomatoes need seven hours of sun a day.",
            "The bridge cost 35 million dollars.",
            "The bridge cost 3.5 billion dollars.",
            "Sales rose by 4% in the north, and fell by 12% in the south.",
            // Dates and names.
            "In 1904 Marie Curie and Pierre Curie shared the Nobel Prize in Physics.",
            "The gardener Ann Green said in June 2021 that a garden is never finished.",
            "The gardener Eve Green said in May 2021 that a garden is never finished.",
            "In 1903 Marie Curie and Pierre Curie shared the Nobel Prize in Chemistry with Henri Becquerel.",
            "Salzach is 41 kilometres long.",
            // Negations.
            "The Gasteiner Ache is not 41 kilometres long.",
            "Tomatoes need six hours of sun a day, and they like wet leaves.",
            "The bridge is open to lorries.",
            "A garden is finished, said the gardener Ann Green in May 2021.",
            "Die Brücke in Salzburg wurde 1849 gebaut und zerstört.",
            "番茄每天需要八小时的阳光。",
            "这种番茄喜欢潮湿的叶子。",
            "La tour Eiffel mesure 330 mètres et penche.",
            "La tour Eiffel mesure 300 mètres et ne penche pas.",
            // Quotations.
            "“A garden is always finished,” said the gardener Ann Green.",
            "“Gardens make people happy,” said the gardener Ann Green in May 2021.",
            // The other way round.
            "Sales fell by 12% in the north.",
            "The river flows from the sea to the mountains.",
            // Something else, or nothing.
            "Tomatoes are red.",
            "It is long.",
            "",
        ] {
            assert_eq!(kind(claim), None, "{claim}");
        }
    }

    #[test]
    fn the_words_that_bear_it_are_found() {
        let source = SourceText::new(SOURCE);
        let found = source.evidence("番茄每天需要六小时的阳光。").unwrap();
        assert_eq!(source.quote(&found.range), "番茄每天需要六小时的阳光");
        let characters = source.characters(&found.range);
        let letters: String = SOURCE
            .chars()
            .skip(characters.start)
            .take(characters.len())
            .collect();
        assert_eq!(letters, "番茄每天需要六小时的阳光");
    }
}
