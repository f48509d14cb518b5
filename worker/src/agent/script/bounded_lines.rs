//! Lines of bounded length, within a bound for all of them.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use crate::agent::{AgentError, AgentErrorKind};

/// Reads lines, and fails on more than it may read.
pub(super) struct BoundedLines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    max_line: usize,
    left: usize,
}

impl<R: AsyncRead + Unpin> BoundedLines<R> {
    pub(super) fn new(reader: R, max_line: usize, max_total: usize) -> Self {
        BoundedLines {
            reader: BufReader::new(reader),
            line: Vec::new(),
            max_line,
            left: max_total,
        }
    }

    /// Reads the next line; none at the end. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, AgentError> {
        loop {
            let chunk = self.reader.fill_buf().await.map_err(|error| {
                AgentError::retry(
                    AgentErrorKind::Unavailable,
                    format!("can't read from the script: {error}"),
                )
            })?;
            if chunk.is_empty() {
                let rest = std::mem::take(&mut self.line);
                return Ok((!rest.is_empty()).then_some(rest));
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let length = end.map_or(chunk.len(), |end| end + 1);
            self.line.extend_from_slice(&chunk[..length]);
            self.reader.consume(length);
            if self.line.len() > self.max_line {
                return Err(AgentError::fatal(
                    AgentErrorKind::BadOutput,
                    format!("a line is longer than {} bytes", self.max_line),
                ));
            }
            self.left = self.left.checked_sub(length).ok_or_else(|| {
                AgentError::retry(
                    AgentErrorKind::BadOutput,
                    "the script's output does not end",
                )
            })?;
            if end.is_some() {
                return Ok(Some(std::mem::take(&mut self.line)));
            }
        }
    }
}
