//! The text of an answer as it comes: bounded, and reported piece by piece.

use super::{AgentError, AgentErrorKind, Event, OnEvent};

/// The text so far.
pub(super) struct OutputBuffer<'a> {
    text: String,
    max_bytes: usize,
    on_event: &'a OnEvent<'a>,
}

impl<'a> OutputBuffer<'a> {
    pub(super) fn new(max_bytes: usize, on_event: &'a OnEvent<'a>) -> Self {
        OutputBuffer {
            text: String::new(),
            max_bytes,
            on_event,
        }
    }

    /// Adds a piece of the text.
    pub(super) fn write(&mut self, mut piece: String) -> Result<(), AgentError> {
        piece.retain(is_text);
        self.check(self.text.len() + piece.len())?;
        if !piece.is_empty() {
            self.text.push_str(&piece);
            (self.on_event)(Event::Text(piece));
        }
        Ok(())
    }

    /// Drops the text so far.
    pub(super) fn discard(&mut self) {
        self.text.clear();
        (self.on_event)(Event::Discarded);
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Replaces the pieces so far by the whole text.
    pub(super) fn replace(&mut self, mut text: String) -> Result<(), AgentError> {
        text.retain(is_text);
        self.check(text.len())?;
        self.text = text;
        Ok(())
    }

    /// Reports how far the post is.
    pub(super) fn progress(&self, percent: u8, message: Option<String>) {
        (self.on_event)(Event::Progress { percent, message });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The whole text. Models return nothing now and then, and write when they
    /// are asked again.
    pub(super) fn finish(self) -> Result<String, AgentError> {
        if self.text.trim().is_empty() {
            return Err(AgentError::retry(
                AgentErrorKind::BadOutput,
                "the agent finished without a text",
            ));
        }
        Ok(self.text)
    }

    fn check(&self, bytes: usize) -> Result<(), AgentError> {
        if bytes > self.max_bytes {
            let message = format!("the text is longer than {} bytes", self.max_bytes);
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
    fn nul_is_left_out() {
        let ignore = |_| {};
        let mut output = OutputBuffer::new(100, &ignore);
        output.write("a\0b".to_owned()).unwrap();
        assert_eq!(output.finish().unwrap(), "ab");
    }
}
