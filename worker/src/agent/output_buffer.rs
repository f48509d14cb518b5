//! The text of an answer as it comes: bounded, and reported piece by piece.

use super::{AgentError, AgentErrorKind, Event, OnEvent};

/// The text as far as it has come; bounded, and handed on piece by piece.
pub(super) struct OutputBuffer<'a> {
    text: String,
    most: usize,
    on_event: &'a OnEvent<'a>,
}

impl<'a> OutputBuffer<'a> {
    pub(super) fn new(most: usize, on_event: &'a OnEvent<'a>) -> Self {
        OutputBuffer {
            text: String::new(),
            most,
            on_event,
        }
    }

    /// Add a piece of the text.
    pub(super) fn write(&mut self, mut piece: String) -> Result<(), AgentError> {
        piece.retain(is_text);
        self.check(self.text.len() + piece.len())?;
        if !piece.is_empty() {
            self.text.push_str(&piece);
            (self.on_event)(Event::Text(piece));
        }
        Ok(())
    }

    /// Put the whole text in the place of the pieces that came before it.
    pub(super) fn replace(&mut self, mut text: String) -> Result<(), AgentError> {
        text.retain(is_text);
        self.check(text.len())?;
        self.text = text;
        Ok(())
    }

    /// Tell how far the post is.
    pub(super) fn progress(&self, percent: u8, message: Option<String>) {
        (self.on_event)(Event::Progress { percent, message });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The whole text. Models come back with nothing now and then, and write
    /// when they are asked again.
    pub(super) fn finish(self) -> Result<String, AgentError> {
        if self.text.trim().is_empty() {
            return Err(AgentError::retry(
                AgentErrorKind::BadOutput,
                "it ended without having written anything",
            ));
        }
        Ok(self.text)
    }

    fn check(&self, bytes: usize) -> Result<(), AgentError> {
        if bytes > self.most {
            let message = format!("the text is longer than {} bytes", self.most);
            return Err(AgentError::retry(AgentErrorKind::BadOutput, message));
        }
        Ok(())
    }
}

/// Postgres can't store NUL.
pub(super) fn is_text(c: char) -> bool {
    c != '\0'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_stored_is_left_out() {
        let ignore = |_| {};
        let mut draft = OutputBuffer::new(100, &ignore);
        draft.write("a\0b".to_owned()).unwrap();
        assert_eq!(draft.finish().unwrap(), "ab");
    }
}
