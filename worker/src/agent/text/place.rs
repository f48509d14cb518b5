//! A place in a text at which a tag or a token may stand.

/// The place, with what is known around it.
pub(super) struct Place<'a> {
    /// The text before, without what was taken out of it.
    pub(super) before: &'a str,
    pub(super) rest: &'a str,
    /// Nothing but white space stands before it in its line.
    pub(super) is_line_start: bool,
    /// Nothing more comes after `rest`.
    pub(super) ended: bool,
}

impl Place<'_> {
    /// Whether there is no text before.
    pub(super) fn is_first(&self) -> bool {
        self.before.trim().is_empty()
    }

    /// Whether the tag before `after` is a word of a sentence, going by what stands
    /// around it; none if more has to come.
    pub(super) fn is_word(&self, after: &str) -> Option<bool> {
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
        let before = self.before.ends_with([' ', '(', '"', '“', '*']);
        Some(goes_on && before && !self.is_line_start)
    }
}

/// How much of a tag stands at the start of a text; letter case does not matter.
#[derive(Clone, Copy, PartialEq, PartialOrd, Eq, Ord)]
pub(super) enum Match {
    No,
    /// More of it may come.
    Partial,
    /// It is so long.
    Whole(usize),
}

impl Match {
    pub(super) fn of(text: &str, tag: &str) -> Self {
        let length = text.len().min(tag.len());
        let (text, start) = (&text.as_bytes()[..length], &tag.as_bytes()[..length]);
        match text.eq_ignore_ascii_case(start) {
            true if length == tag.len() => Match::Whole(length),
            true => Match::Partial,
            false => Match::No,
        }
    }
}
