//! Separates a model's text, as it comes, from thoughts and from the tokens of its
//! chat template.
//!
//! Servers should send thoughts in a field of their own and no tokens at all, but
//! many hand on what the model writes. Tags and tokens are text where the text is
//! about them: in code, or as words of a sentence.

use std::ops::Range;

use super::code::{CodeTracker, run_length};
use super::place::{Match, Place};
use super::template_tokens::{Token, token};
use super::thoughts::{self, Tag, Thought, tag};

/// Where tags and tokens begin.
const MARKS: [char; 3] = ['<', '[', '◁'];

/// What has become clear.
#[derive(Debug, Default, PartialEq)]
pub(in crate::agent) struct Update {
    /// All text before was a thought.
    pub(in crate::agent) restarted: bool,
    /// A further piece of the text.
    pub(in crate::agent) text: String,
}

/// What is known of an answer at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::agent) struct Traits {
    /// There were thoughts.
    pub(in crate::agent) thoughts: bool,
    /// They had no beginning.
    pub(in crate::agent) unopened: bool,
    /// A token ended the text, so that no limit did.
    pub(in crate::agent) ended_by_token: bool,
}

#[derive(Debug)]
pub(in crate::agent) struct TextFilter {
    /// All that has come, and how far it was read.
    raw: String,
    at: usize,
    ended: bool,
    /// What is text, and how much of it was handed on.
    text: String,
    handed_on: usize,
    restarted: bool,
    /// Text is handed on only behind thoughts, or at the end.
    holds: bool,
    /// The thought that has begun, and where its tag begins and ends.
    thought: Option<(Thought, Range<usize>)>,
    code: CodeTracker,
    /// Words that look like a thought's beginning and have no end yet.
    open_words: usize,
    traits: Traits,
}

impl TextFilter {
    /// `expects_thoughts` of a model that does not mark their beginning: no text is
    /// handed on until it is clear that it is none.
    pub(in crate::agent) fn new(expects_thoughts: bool) -> Self {
        TextFilter {
            raw: String::new(),
            at: 0,
            ended: false,
            text: String::new(),
            handed_on: 0,
            restarted: false,
            holds: expects_thoughts,
            thought: None,
            code: CodeTracker::new(),
            open_words: 0,
            traits: Traits::default(),
        }
    }

    /// Reads on.
    pub(in crate::agent) fn push(&mut self, piece: &str) -> Update {
        self.raw.push_str(piece);
        self.read_on();
        self.update()
    }

    /// Reads the end.
    pub(in crate::agent) fn finish(&mut self) -> (Update, Traits) {
        self.ended = true;
        self.read_on();
        while let Some((_, tag)) = self.thought.take_if(|(thought, _)| thought.may_be_text) {
            self.at = tag.start;
            self.add(tag.len());
            self.read_on();
        }
        if self.handed_on == 0
            && let Some(text) = thoughts::without_channels(&self.text)
        {
            self.text = text.to_owned();
            self.traits.thoughts = true;
        }
        (self.update(), self.traits)
    }

    /// All that has come, thoughts included.
    pub(in crate::agent) fn raw(&self) -> &str {
        &self.raw
    }

    fn update(&mut self) -> Update {
        let is_open = thoughts::may_begin_with_channel(&self.text) && self.handed_on == 0;
        let holds = self.holds || is_open || self.text.trim().is_empty();
        if holds && !self.ended {
            return Update::default();
        }
        let from = std::mem::replace(&mut self.handed_on, self.text.len());
        Update {
            restarted: std::mem::take(&mut self.restarted),
            text: self.text[from..].to_owned(),
        }
    }

    fn read_on(&mut self) {
        while !self.traits.ended_by_token
            && match &self.thought {
                Some((thought, _)) => self.read_thought(*thought),
                None => self.read_text(),
            }
        {}
    }

    /// Reads the next bit of text; false if more has to come for that.
    fn read_text(&mut self) -> bool {
        let rest = &self.raw[self.at..];
        let Some(first) = rest.chars().next() else {
            return false;
        };
        if MARKS.contains(&first) && !self.code.is_code() {
            return self.read_mark(first.len_utf8());
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

    fn read_mark(&mut self, length: usize) -> bool {
        let place = Place {
            before: &self.text,
            rest: &self.raw[self.at..],
            is_line_start: self.code.is_line_start(),
            ended: self.ended,
        };
        match tag(&place, self.open_words) {
            Tag::Partial => return false,
            Tag::Open(thought, length) => {
                self.thought = Some((thought, self.at..self.at + length));
                self.skip(length);
                self.traits.thoughts = true;
                self.holds = false;
            }
            Tag::Close(length) => {
                self.restarted |= self.handed_on > 0;
                (self.text, self.handed_on) = (String::new(), 0);
                self.code = CodeTracker::new();
                self.skip(length);
                self.traits.thoughts = true;
                self.traits.unopened = true;
                self.holds = false;
            }
            Tag::Header(length) => self.skip(length),
            Tag::OpenWord => {
                self.open_words += 1;
                self.add(length);
            }
            Tag::CloseWord => {
                self.open_words = self.open_words.saturating_sub(1);
                self.add(length);
            }
            Tag::None => match token(&place) {
                Token::Partial => return false,
                Token::Skip(length) => self.skip(length),
                Token::End => self.traits.ended_by_token = true,
                Token::None => self.add(length),
            },
        }
        true
    }

    /// Reads up to the thought's end; false if that has to come.
    fn read_thought(&mut self, thought: Thought) -> bool {
        while let Some(next) = self.raw[self.at..].find(MARKS) {
            self.at += next;
            let (before, rest) = self.raw.split_at(self.at);
            match thought.end(before, rest, self.ended) {
                Match::Whole(length) => {
                    self.at += length;
                    self.thought = None;
                    return true;
                }
                Match::Partial => return false,
                Match::No => self.at += rest.chars().next().map_or(0, char::len_utf8),
            }
        }
        self.at = self.raw.len();
        false
    }

    /// Takes the next `length` bytes as text. White space between something dropped and
    /// the first text is dropped too.
    fn add(&mut self, length: usize) {
        let piece = &self.raw[self.at..self.at + length];
        let piece = match self.text.is_empty() && self.at > 0 {
            true => piece.trim_start(),
            false => piece,
        };
        self.code.advance(piece);
        self.text.push_str(piece);
        self.at += length;
    }

    /// Leaves out the next `length` bytes.
    fn skip(&mut self, length: usize) {
        if self.text.trim().is_empty() {
            self.text.clear();
        }
        self.at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the text is divided, what is left of it is the same, and is what was
    /// handed on.
    fn read(raw: &str, expects_thoughts: bool) -> (String, Traits) {
        let read = |size: usize| {
            let mut filter = TextFilter::new(expects_thoughts);
            let mut heard = String::new();
            let mut hear = |update: Update| {
                if update.restarted {
                    heard.clear();
                }
                heard.push_str(&update.text);
            };
            let chars: Vec<char> = raw.chars().collect();
            for piece in chars.chunks(size) {
                hear(filter.push(&piece.iter().collect::<String>()));
            }
            let (update, traits) = filter.finish();
            hear(update);
            (heard, traits)
        };
        let whole = read(usize::MAX);
        for size in 1..10 {
            assert_eq!(read(size), whole, "in pieces of {size}: {raw:?}");
        }
        whole
    }

    fn text(raw: &str) -> String {
        read(raw, false).0
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
            "茶 <|start|>a茶 <|message|> 茶",
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
    fn tokens_and_further_turns_are_taken_off() {
        let tea = [
            "Tea.<|im_end|>",
            "Tea.\n<|im_end|>\n",
            "Tea.<|eot_id|>",
            "Tea.</s>",
            "Tea.<end_of_turn>\n<end_of_turn>\n<eos>",
            "Tea.<|endoftext|>",
            "Tea.<｜end▁of▁sentence｜>",
            "Tea.<|return|>",
            "Tea. [/INST]",
            "<s>Tea.</s>",
            "<s> [/INST] Tea.",
            "<|im_start|>assistant\nTea.<|im_end|>",
            "<|start_header_id|>assistant<|end_header_id|>\n\nTea.<|eot_id|>",
            "<start_of_turn>model\nTea.",
            "<｜Assistant｜>Tea.",
            "<answer>\nTea.\n</answer>",
            "Tea.<|im_end|>\n<|im_start|>user\nMore?<|im_end|>\n<|im_start|>assistant\nNo.",
            "Tea.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nMore?",
            "Tea.<|end|><|assistant|> Good day!",
            "Tea.</s>[INST] More? [/INST] No.",
            "Tea.<end_of_turn>\n<start_of_turn>user\nMore?",
            "Tea.<|endoftext|>Human: More?\nAssistant: No.",
            "Tea.<|im_end|>\nassistant\nNo.",
            "Tea.<｜end▁of▁sentence｜><｜User｜>More?",
            "Tea.</s>\n### Instruction:\nMore?",
        ];
        for text in tea {
            assert_eq!(self::text(text).trim_end(), "Tea.", "{text:?}");
        }
        assert_eq!(text("```\ntea\n```<|im_end|>"), "```\ntea\n```");
        assert_eq!(text("<|im_end|>\n<|im_start|>user\n"), "");
    }

    #[test]
    fn tokens_are_text_where_the_text_is_about_them() {
        let texts = [
            "A turn ends with `<|im_end|>`",
            "```\nTea.<|im_end|>\n<|im_start|>user\n```",
            "The <|im_end|> token ends it, the <|user|> token begins one.",
            "It costs <s>ten</s> five.",
            "It costs <s>ten</s>",
            "Ends with <|im_end|>.",
            "a <|b c|> d <| e",
            "Tea.\n\nUser: more?",
            "  Tea.\n",
        ];
        for text in texts {
            assert_eq!(self::text(text), text);
        }
    }

    #[test]
    fn text_is_handed_on_as_soon_as_it_is_clear() {
        let mut filter = TextFilter::new(false);
        let pieces = [
            "<th",
            "ink>x</thi",
            "nk>\n",
            "A < b",
            " <",
            "b>\n",
            "`",
            "x`\n",
            "<|im_",
            "end|>",
        ];
        let heard = pieces.map(|piece| filter.push(piece).text);
        assert_eq!(
            heard,
            ["", "", "", "A < b", " ", "<b>\n", "", "`x`\n", "", ""]
        );
        let traits = Traits {
            thoughts: true,
            ended_by_token: true,
            unopened: false,
        };
        assert_eq!(filter.finish(), (Update::default(), traits));
    }

    #[test]
    fn thoughts_without_a_beginning_take_back_what_was_handed_on_unless_they_are_expected() {
        let mut filter = TextFilter::new(false);
        assert_eq!(filter.push("Tea?").text, "Tea?");
        let update = filter.push("</think>\nTea.");
        assert_eq!((update.restarted, update.text.as_str()), (true, "Tea."));
        assert!(filter.finish().1.unopened);

        let mut filter = TextFilter::new(true);
        assert_eq!(filter.push("Tea?"), Update::default());
        let update = filter.push("</think>\nTea.");
        assert_eq!((update.restarted, update.text.as_str()), (false, "Tea."));
        assert_eq!(read("Tea.", true).0, "Tea.");
    }
}
