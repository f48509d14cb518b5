//! How models write thoughts into their text: `<think>…</think>`, and what others
//! write in its place.

use super::place::{Match, Place};

/// How thoughts begin, and how they end.
const TAGS: [(&str, &[&str]); 15] = [
    ("<think>", &["</think>", "</thinking>"]),
    ("<thinking>", &["</thinking>", "</think>"]),
    ("<thought>", &["</thought>", "</thoughts>"]),
    ("<thoughts>", &["</thoughts>", "</thought>"]),
    ("<reasoning>", &["</reasoning>"]),
    ("<reflection>", &["</reflection>"]),
    ("<scratchpad>", &["</scratchpad>"]),
    ("<inner_monologue>", &["</inner_monologue>"]),
    ("<mm:think>", &["</mm:think>"]),
    ("<seed:think>", &["</seed:think>"]),
    ("[think]", &["[/think]"]),
    ("◁think▷", &["◁/think▷"]),
    ("<|begin_of_thought|>", &["<|end_of_thought|>"]),
    ("<|start_thinking|>", &["<|end_thinking|>"]),
    ("<|channel>thought", &["<channel|>"]),
];

/// Messages of gpt-oss: `<|start|>assistant<|channel|>NAME<|message|>…<|end|>`.
const MESSAGE_START: &str = "<|start|>";
const MESSAGE_CHANNEL: &str = "<|channel|>";
const MESSAGE_TEXT: &str = "<|message|>";
const MESSAGE_ENDS: [&str; 5] = [
    "<|end|>",
    "<|return|>",
    "<|call|>",
    MESSAGE_START,
    MESSAGE_CHANNEL,
];
const MAX_HEADER_BYTES: usize = 200;

/// A thought that has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thought {
    ends: &'static [&'static str],
    /// If it has no end, its tag was text.
    pub(super) may_be_text: bool,
}

/// What stands at a place.
pub(super) enum Tag {
    /// A thought, after so much.
    Open(Thought, usize),
    /// The end of thoughts that had no beginning, for templates write that one
    /// into the prompt; it is so long.
    Close(usize),
    /// So much of a message comes before its text.
    Header(usize),
    /// A word of a sentence.
    OpenWord,
    CloseWord,
    /// More of it has to come.
    Partial,
    None,
}

/// Finds a tag. Of the words that look like a beginning, `open_words` lack an end.
pub(super) fn tag(place: &Place<'_>, open_words: usize) -> Tag {
    let header = header(place);
    if !matches!(header, Tag::None | Tag::Partial) {
        return header;
    }
    let mut partial = matches!(header, Tag::Partial);
    for (open, ends) in TAGS {
        match Match::of(place.rest, open) {
            Match::Whole(length) => return opening(place, length, ends),
            found => partial |= found == Match::Partial,
        }
        match ends.iter().map(|end| Match::of(place.rest, end)).max() {
            Some(Match::Whole(length)) => return stray_end(place, length, open_words),
            found => partial |= found == Some(Match::Partial),
        }
    }
    match partial && !place.ended {
        true => Tag::Partial,
        false => Tag::None,
    }
}

fn opening(place: &Place<'_>, length: usize, ends: &'static [&'static str]) -> Tag {
    let after = &place.rest[length..];
    let is_first = place.is_first();
    match place.is_word(after) {
        None => return Tag::Partial,
        Some(true) if !is_first => return Tag::OpenWord,
        Some(_) => {}
    }
    let line = after.split('\n').next().unwrap_or_default();
    let has_line = place.is_line_start && line.trim().is_empty();
    if has_line && !is_first && line.len() == after.len() && !place.ended {
        return Tag::Partial;
    }
    let may_be_text = !is_first && !has_line;
    Tag::Open(Thought { ends, may_be_text }, length)
}

fn stray_end(place: &Place<'_>, length: usize, open_words: usize) -> Tag {
    match place.is_word(&place.rest[length..]) {
        None => Tag::Partial,
        Some(false) if open_words == 0 => Tag::Close(length),
        Some(_) => Tag::CloseWord,
    }
}

fn header(place: &Place<'_>) -> Tag {
    let starts = [MESSAGE_START, MESSAGE_CHANNEL].map(|tag| Match::of(place.rest, tag));
    let length = match starts.into_iter().max() {
        Some(Match::Whole(length)) => length,
        Some(Match::Partial) => return Tag::Partial,
        _ => return Tag::None,
    };
    let names = &place.rest[length..];
    let end = names.find(MESSAGE_TEXT);
    let name = &names[..end.unwrap_or(names.len())];
    // Without its end, it may hold the beginning of that.
    let most = MAX_HEADER_BYTES + end.map_or(MESSAGE_TEXT.len(), |_| 0);
    let is_part = |c: char| c.is_ascii_alphanumeric() || " _.=<|>:-".contains(c);
    let is_name = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= most
        && name.chars().all(is_part);
    let length = match end {
        None if !place.ended && (is_name || name.is_empty()) => return Tag::Partial,
        _ if !is_name => return Tag::None,
        Some(end) => length + end + MESSAGE_TEXT.len(),
        // Without its text, at the answer's end.
        None if !name.contains(' ') => place.rest.len(),
        None => return Tag::None,
    };
    let channel = place.rest[..length].split(MESSAGE_CHANNEL).nth(1);
    if channel.is_none_or(|channel| channel.starts_with("final")) {
        return Tag::Header(length);
    }
    let message = Thought {
        ends: &MESSAGE_ENDS,
        may_be_text: false,
    };
    Tag::Open(message, length)
}

impl Thought {
    /// Whether it ends at `rest`, and how much of that is its own.
    pub(super) fn end(&self, before: &str, rest: &str, ended: bool) -> Match {
        let found = self.ends.iter().map(|end| Match::of(rest, end)).max();
        let Some(Match::Whole(length)) = found else {
            return found.filter(|_| !ended).unwrap_or(Match::No);
        };
        if self.ends.len() == MESSAGE_ENDS.len() {
            let starts_next = rest.starts_with(MESSAGE_START) || rest.starts_with(MESSAGE_CHANNEL);
            return Match::Whole(if starts_next { 0 } else { length });
        }
        // Models think about the tag, too.
        match before.ends_with('`') {
            true if length == rest.len() && !ended => Match::Partial,
            true if rest[length..].starts_with('`') => Match::No,
            _ => Match::Whole(length),
        }
    }
}

/// What is left of the messages of gpt-oss where a server drops their marks:
/// `analysisThe user wants … assistantfinalTea is …`.
const ANALYSIS: &str = "analysis";
const FINAL: &str = "assistantfinal";

/// Whether a text may begin with the name of a message's channel.
pub(super) fn may_begin_with_channel(text: &str) -> bool {
    let text = text.trim_start();
    let names = [ANALYSIS, FINAL].map(|name| Match::of(text, name));
    match names {
        [Match::Whole(length), _] => text[length..].chars().next().is_none_or(char::is_uppercase),
        names => names != [Match::No; 2],
    }
}

/// The text after the names of messages, if it begins with one.
pub(super) fn without_channels(text: &str) -> Option<&str> {
    let start = text.trim_start();
    let thinks = |rest: &str| rest.starts_with(char::is_uppercase);
    let is_thought = start.strip_prefix(ANALYSIS).is_some_and(thinks);
    match start.split_once(FINAL) {
        Some((before, after)) if is_thought || before.is_empty() => Some(after),
        _ => is_thought.then_some(""),
    }
}
