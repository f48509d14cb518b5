//! Tells code from prose in Markdown that is read from its start: in code, tags
//! and tokens are what the text is about.

/// Where in a Markdown text one is.
#[derive(Debug)]
pub(super) struct CodeTracker {
    /// The mark and length of the open fence.
    fence: Option<(u8, usize)>,
    /// This line may be what closes the fence, if nothing follows.
    closing: bool,
    /// This line opened the fence.
    opening: bool,
    /// The length of the backticks that opened the code span; 0 outside of one.
    span: usize,
    /// The line so far is blank, and this wide.
    indent: Option<usize>,
}

impl CodeTracker {
    pub(super) fn new() -> Self {
        CodeTracker {
            fence: None,
            closing: false,
            opening: false,
            span: 0,
            indent: Some(0),
        }
    }

    /// Whether what follows is code.
    pub(super) fn is_code(&self) -> bool {
        // A token right behind the closing fence is not code any more.
        (self.fence.is_some() && !self.closing) || self.span > 0 || self.indent >= Some(4)
    }

    /// Whether the line has been blank so far.
    pub(super) fn is_line_start(&self) -> bool {
        self.indent.is_some()
    }

    /// Reads on: `text` is a run of backticks or tildes, whole, or has none.
    pub(super) fn advance(&mut self, text: &str) {
        match text.bytes().next() {
            Some(mark @ (b'`' | b'~')) => self.advance_run(mark, text.len()),
            _ => text.chars().for_each(|c| self.advance_char(c)),
        }
    }

    fn advance_run(&mut self, mark: u8, length: usize) {
        let starts_line = self.indent.take().is_some_and(|indent| indent < 4);
        match self.fence {
            Some((open, least)) if open == mark && starts_line && length >= least => {
                self.closing = true;
            }
            // Backticks in its first line make it a span.
            Some((b'`', least)) if self.opening && mark == b'`' => {
                self.fence = None;
                self.opening = false;
                self.span = if length == least { 0 } else { least };
            }
            Some(_) => self.closing = false,
            None if starts_line && self.span == 0 && length >= 3 => {
                self.fence = Some((mark, length));
                self.opening = true;
            }
            None if mark == b'~' => {}
            None if self.span == 0 => self.span = length,
            None if self.span == length => self.span = 0,
            None => {}
        }
    }

    fn advance_char(&mut self, c: char) {
        match c {
            '\n' => {
                if self.closing {
                    self.fence = None;
                }
                // A span may go on, but mostly it is a backtick without a second.
                self.span = 0;
                (self.closing, self.opening, self.indent) = (false, false, Some(0));
            }
            ' ' => self.indent = self.indent.map(|indent| indent + 1),
            '\t' => self.indent = self.indent.map(|indent| indent + 4),
            c if c.is_whitespace() => {}
            _ => {
                self.indent = None;
                self.closing = false;
            }
        }
    }
}

/// Where the run of one character at the start of `text` ends.
pub(super) fn run_length(text: &str) -> usize {
    let first = text.chars().next();
    text.find(|c| Some(c) != first).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The places of marks in `text` outside of code.
    fn outside_code(text: &str) -> Vec<usize> {
        let mut tracker = CodeTracker::new();
        let mut places = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            let length = match rest.as_bytes()[0] {
                b'`' | b'~' => run_length(rest),
                _ => {
                    if rest.starts_with(['<', '[']) && !tracker.is_code() {
                        places.push(at);
                    }
                    let first = rest.chars().next().map_or(1, char::len_utf8);
                    let next = rest[first..].find(['`', '~', '<', '[']);
                    next.map_or(rest.len(), |next| first + next)
                }
            };
            tracker.advance(&rest[..length]);
            at += length;
        }
        places
    }

    #[test]
    fn prose_is_told_from_code() {
        let prose = [
            "<",
            "`a` <",
            "a ` b\n<",
            "```\na\n```\n<",
            "~~~~ x\n```\n~~~\n~~~~\n<",
            "```a``` <",
            "   <",
            "``` ` ```\n<",
            "```\na\n```<",
            "``a ` b`` <",
        ];
        for text in prose {
            assert_eq!(outside_code(text), [text.len() - 1], "{text:?}");
        }
        let code = [
            "`<`",
            "``a ` <``",
            "```\n<\n```",
            "```html\n<",
            "~~~\n```\n<",
            "    <",
            "\t<",
            "```\na\n``` b\n<",
        ];
        for text in code {
            assert!(outside_code(text).is_empty(), "{text:?}");
        }
    }
}
