//! Takes a model's thoughts out of its text: `<think>…</think>` and what other
//! models write in its place.
//!
//! Servers should send thoughts in a field of their own, but many hand on what
//! the model writes. A tag is text where the text is about tags: in code, or as
//! a word of a sentence.

use super::code::{CodeTracker, run_length};

/// How thoughts begin, and how they end. Letter case does not matter.
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

/// Where tags begin.
const MARKS: [char; 3] = ['<', '[', '◁'];

#[derive(Clone, Copy, Debug)]
struct Thought {
    /// Where its tag begins and ends.
    start: usize,
    inside: usize,
    ends: &'static [&'static str],
    /// If it has no end, its tag was text.
    may_be_text: bool,
}

/// What stands at a mark.
enum Tag {
    Open(Thought),
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

/// Separates text from thoughts as they come.
#[derive(Debug)]
pub(in crate::agent) struct ThoughtFilter {
    /// All that has come, and how far it was read.
    raw: String,
    at: usize,
    ended: bool,
    /// What is no thought, and how much of it was handed on.
    text: String,
    handed_on: usize,
    thought: Option<Thought>,
    code: CodeTracker,
    /// Words that look like a beginning: so many ends are words, too.
    open_words: usize,
    seen: bool,
}

impl ThoughtFilter {
    pub(in crate::agent) fn new() -> Self {
        ThoughtFilter {
            raw: String::new(),
            at: 0,
            ended: false,
            text: String::new(),
            handed_on: 0,
            thought: None,
            code: CodeTracker::new(),
            open_words: 0,
            seen: false,
        }
    }

    /// Reads on; the text that became clear with it.
    pub(in crate::agent) fn push(&mut self, piece: &str) -> &str {
        self.raw.push_str(piece);
        self.read_on();
        let from = std::mem::replace(&mut self.handed_on, self.text.len());
        &self.text[from..]
    }

    /// All that has come, thoughts included.
    pub(in crate::agent) fn raw(&self) -> &str {
        &self.raw
    }

    /// The whole text, and whether there were thoughts. Some of what was handed
    /// on may have turned out to be a thought, and the other way round.
    pub(in crate::agent) fn finish(mut self) -> (String, bool) {
        self.ended = true;
        self.read_on();
        while let Some(thought) = self.thought.take_if(|thought| thought.may_be_text) {
            self.at = thought.start;
            self.add(thought.inside - thought.start);
            self.read_on();
        }
        let (text, named) = without_channel_names(self.text);
        match self.seen || named {
            true => (text.trim_start().to_owned(), true),
            false => (text, false),
        }
    }

    fn read_on(&mut self) {
        while match self.thought {
            Some(thought) => self.read_thought(thought),
            None => self.read_text(),
        } {}
    }

    /// Reads the next bit of text; false if more has to come for that.
    fn read_text(&mut self) -> bool {
        let rest = &self.raw[self.at..];
        let Some(first) = rest.chars().next() else {
            return false;
        };
        if MARKS.contains(&first) && !self.code.is_code() {
            return self.read_tag(first.len_utf8());
        }
        let is_run = matches!(first, '`' | '~');
        let special = |c: char| matches!(c, '`' | '~') || MARKS.contains(&c);
        let length = match rest[first.len_utf8()..].find(special) {
            _ if is_run => run_length(rest),
            Some(next) => first.len_utf8() + next,
            None => rest.len(),
        };
        if is_run && length == rest.len() && !self.ended {
            return false;
        }
        self.add(length);
        true
    }

    fn read_tag(&mut self, mark_length: usize) -> bool {
        match self.tag() {
            Tag::Partial => return false,
            Tag::Open(thought) => {
                self.at = thought.inside;
                self.thought = Some(thought);
                self.seen = true;
            }
            Tag::Close(length) => {
                self.text.clear();
                self.handed_on = 0;
                self.code = CodeTracker::new();
                self.at += length;
                self.seen = true;
            }
            Tag::Header(length) => self.at += length,
            Tag::OpenWord => {
                self.open_words += 1;
                self.add(mark_length);
            }
            Tag::CloseWord => {
                self.open_words = self.open_words.saturating_sub(1);
                self.add(mark_length);
            }
            Tag::None => self.add(mark_length),
        }
        true
    }

    /// Reads up to the thought's end; false if that has to come.
    fn read_thought(&mut self, thought: Thought) -> bool {
        while let Some(next) = self.raw[self.at..].find(MARKS) {
            self.at += next;
            let rest = &self.raw[self.at..];
            match thought.ends.iter().map(|end| Match::of(rest, end)).max() {
                Some(Match::Whole(length)) => {
                    // Models think about the tag, too.
                    let quoted = self.raw[..self.at].ends_with('`');
                    if quoted && length == rest.len() && !self.ended {
                        return false;
                    }
                    let is_message = thought.ends.len() == MESSAGE_ENDS.len();
                    if !quoted || is_message || !rest[length..].starts_with('`') {
                        let starts_next = [MESSAGE_START, MESSAGE_CHANNEL];
                        let starts_next = starts_next.iter().any(|tag| rest.starts_with(tag));
                        self.at += if starts_next { 0 } else { length };
                        self.thought = None;
                        return true;
                    }
                }
                Some(Match::Partial) if !self.ended => return false,
                _ => {}
            }
            self.at += rest.chars().next().map_or(0, char::len_utf8);
        }
        false
    }

    /// Takes the next `length` bytes as text.
    fn add(&mut self, length: usize) {
        let piece = &self.raw[self.at..self.at + length];
        self.code.advance(piece);
        self.text.push_str(piece);
        self.at += length;
    }

    fn tag(&self) -> Tag {
        let rest = &self.raw[self.at..];
        let header = self.header(rest);
        if !matches!(header, Tag::None | Tag::Partial) {
            return header;
        }
        let mut partial = matches!(header, Tag::Partial);
        for (open, ends) in TAGS {
            match Match::of(rest, open) {
                Match::Whole(length) => return self.opening(&rest[length..], length, ends),
                found => partial |= found == Match::Partial,
            }
            match ends.iter().map(|end| Match::of(rest, end)).max() {
                Some(Match::Whole(length)) => return self.stray_end(&rest[length..], length),
                found => partial |= found == Some(Match::Partial),
            }
        }
        match partial && !self.ended {
            true => Tag::Partial,
            false => Tag::None,
        }
    }

    fn opening(&self, after: &str, length: usize, ends: &'static [&'static str]) -> Tag {
        let is_first = self.text.trim().is_empty();
        match self.is_word(after) {
            None => return Tag::Partial,
            Some(true) if !is_first => return Tag::OpenWord,
            Some(_) => {}
        }
        let line = after.split('\n').next().unwrap_or_default();
        let has_line = self.code.is_line_start() && line.trim().is_empty();
        if has_line && !is_first && line.len() == after.len() && !self.ended {
            return Tag::Partial;
        }
        Tag::Open(Thought {
            start: self.at,
            inside: self.at + length,
            ends,
            may_be_text: !is_first && !has_line,
        })
    }

    fn stray_end(&self, after: &str, length: usize) -> Tag {
        match self.is_word(after) {
            None => Tag::Partial,
            Some(false) if self.open_words == 0 => Tag::Close(length),
            Some(_) => Tag::CloseWord,
        }
    }

    /// Whether a tag is a word of a sentence, going by what stands around it;
    /// none if more has to come.
    fn is_word(&self, after: &str) -> Option<bool> {
        let mut next = after.chars();
        let (first, second) = (next.next(), next.next());
        if second.is_none() && !self.ended {
            return None;
        }
        let goes_on = match first {
            Some(' ') => second.is_some_and(char::is_lowercase),
            Some(c) => matches!(c, '.' | ',' | ';' | ':' | '!' | '?' | ')' | '"' | '”' | '*'),
            None => false,
        };
        let before = self.text.ends_with([' ', '(', '"', '“', '*']);
        Some(goes_on && before && !self.code.is_line_start())
    }

    fn header(&self, rest: &str) -> Tag {
        let starts = [MESSAGE_START, MESSAGE_CHANNEL].map(|tag| Match::of(rest, tag));
        let length = match starts.into_iter().max() {
            Some(Match::Whole(length)) => length,
            Some(Match::Partial) => return Tag::Partial,
            _ => return Tag::None,
        };
        let names = &rest[length..];
        let end = names.find(MESSAGE_TEXT);
        let name = &names[..end.unwrap_or(names.len())];
        // Without its end, it may hold the beginning of that.
        let most = MAX_HEADER_BYTES + end.map_or(MESSAGE_TEXT.len(), |_| 0);
        let is_part = |c: char| c.is_ascii_alphanumeric() || " _.=<|>:-".contains(c);
        let is_name = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.len() <= most
            && name.chars().all(is_part);
        let length = match end {
            None if !self.ended && (is_name || name.is_empty()) => return Tag::Partial,
            _ if !is_name => return Tag::None,
            Some(end) => length + end + MESSAGE_TEXT.len(),
            // Without its text, at the answer's end.
            None if !name.contains(' ') => rest.len(),
            None => return Tag::None,
        };
        let channel = rest[..length].split(MESSAGE_CHANNEL).nth(1);
        if channel.is_none_or(|channel| channel.starts_with("final")) {
            return Tag::Header(length);
        }
        Tag::Open(Thought {
            start: self.at,
            inside: self.at + length,
            ends: &MESSAGE_ENDS,
            may_be_text: false,
        })
    }
}

/// How much of a tag stands at the start of a text.
#[derive(Clone, Copy, PartialEq, PartialOrd, Eq, Ord)]
enum Match {
    No,
    Partial,
    Whole(usize),
}

impl Match {
    fn of(text: &str, tag: &str) -> Self {
        let length = text.len().min(tag.len());
        let (text, start) = (&text.as_bytes()[..length], &tag.as_bytes()[..length]);
        match text.eq_ignore_ascii_case(start) {
            true if length == tag.len() => Match::Whole(length),
            true => Match::Partial,
            false => Match::No,
        }
    }
}

/// What is left of the messages of gpt-oss where a server drops their marks:
/// `analysisThe user wants … assistantfinalTea is …`.
fn without_channel_names(text: String) -> (String, bool) {
    let start = text.trim_start();
    let is_channel = |before: &str| {
        before.is_empty() || before.starts_with("analysis") || before.starts_with("commentary")
    };
    if let Some((before, after)) = start.split_once("assistantfinal")
        && is_channel(before)
    {
        return (after.to_owned(), true);
    }
    let thinks = |rest: &str| rest.starts_with(char::is_uppercase);
    match start.strip_prefix("analysis").is_some_and(thinks) {
        true => (String::new(), true),
        false => (text, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the text is divided, what is left of it is the same.
    fn text(raw: &str) -> String {
        let read = |size: usize| {
            let mut filter = ThoughtFilter::new();
            let chars: Vec<char> = raw.chars().collect();
            for piece in chars.chunks(size) {
                filter.push(&piece.iter().collect::<String>());
            }
            filter.finish().0
        };
        let whole = read(usize::MAX);
        for size in 1..10 {
            assert_eq!(read(size), whole, "in pieces of {size}: {raw:?}");
        }
        whole
    }

    #[test]
    fn thoughts_are_taken_out() {
        let tea = [
            "<think>Tea?</think>Tea.",
            "<think>\nTea?\n</think>\n\nTea.",
            "\n<THINK>Tea?</Think>\nTea.",
            "<thinking>Tea?</thinking>Tea.",
            "<thinking>Tea?</think>Tea.",
            "<reasoning>Tea?</reasoning>\nTea.",
            "<thought>\nTea?\n</thought>\nTea.",
            "[THINK]Tea?[/THINK]Tea.",
            "◁think▷Tea?◁/think▷Tea.",
            "<mm:think>Tea?</mm:think>Tea.",
            "<seed:think>Tea?</seed:think>Tea.",
            "<|begin_of_thought|>Tea?<|end_of_thought|>Tea.",
            "<|START_THINKING|>Tea?<|END_THINKING|>Tea.",
            "<|channel>thought\nTea?<channel|>Tea.",
            "<think></think>\n\nTea.",
            "<think>I write `</think>` here</think>Tea.",
            "<think>a < b, <b>and</b> ```\nx</think>Tea.",
            "<think><think>Tea?</think></think>Tea.",
            // The beginning is missing.
            "Tea?\n</think>\n\nTea.",
            "Tea?</think>Tea.",
            "Tea? ```x\n</think>\nTea.",
            "</think>Tea.",
            // The end is cut in two, or comes twice.
            "<think>Tea?</think>\n</think>\nTea.",
            "<think>a</think><think>b</think>Tea.",
            // The format of gpt-oss, with its marks and without.
            "<|channel|>analysis<|message|>Tea?<|end|><|start|>assistant<|channel|>final<|message|>Tea.",
            "<|start|>assistant<|channel|>analysis<|message|>Tea?<|start|>assistant<|channel|>final<|message|>Tea.",
            "<|channel|>commentary to=functions.x<|message|>{}<|call|><|channel|>final<|message|>Tea.",
            "<|channel|>final<|message|>Tea.",
            "analysisWe need tea.assistantfinalTea.",
            "assistantfinalTea.",
        ];
        for raw in tea {
            assert_eq!(text(raw), "Tea.", "{raw:?}");
        }
        assert_eq!(text("Tea\n<think>\nis?\n</think>\nis."), "Tea\n\nis.");
        assert_eq!(text("Sure!<think>is?</think> Tea."), "Sure! Tea.");
        assert_eq!(text("Tea\n\n<think>\nis it"), "Tea\n\n");
    }

    #[test]
    fn unfinished_thoughts_are_no_text() {
        let raw = [
            "<think>Tea",
            "\n<think>\nTea\n</thi",
            "<|channel|>analysis<|message|>Tea",
            "<|channel|>analysis",
            "analysisWe need tea.",
        ];
        for raw in raw {
            assert_eq!(text(raw), "", "{raw:?}");
        }
    }

    #[test]
    fn tags_are_text_where_the_text_is_about_them() {
        let raw = [
            "Write `<think>` first.",
            "Between `<think>` and `</think>` it thinks.",
            "```\n<think>\n```\nand more",
            "```xml\n<think>x</think>\n```\nand `</think>`",
            "~~~\n</think>\n~~~",
            "The <think> tag opens it, the </think> tag closes it.",
            "The <think>... and </think>. Then more",
            "It thinks (<think>), then ends it (</think>).",
            "It thinks <think>and never ends.",
            "It thinks\n<think> and never ends.",
            "茶 <|start|>a茶 <|message|>",
            "a < b, [c](d) <em>e</em> <|x|> <",
            "Tea is <thin",
            "    <think>\n    x\n    </think>\n",
            "The <|channel|> and the <|message|> are marks, and <|start|> too.",
            "The final assistantfinal of analysis.",
            "◁ tea",
        ];
        for raw in raw {
            assert_eq!(text(raw), raw);
        }
    }

    #[test]
    fn text_is_handed_on_as_soon_as_it_is_clear() {
        let mut filter = ThoughtFilter::new();
        let pieces = ["<th", "ink>x</thi", "nk>", "A < b", " <", "b>", "`", "`` "];
        let heard = pieces.map(|piece| filter.push(piece).to_owned());
        assert_eq!(heard, ["", "", "", "A < b", " ", "<b>", "", "``` "]);
    }
}
