use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use crate::agent::{AgentError, AgentErrorKind};

/// Lines of bounded length, and not more of them than fit into a bound.
pub(super) struct BoundedLines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    line_most: usize,
    left: usize,
}

impl<R: AsyncRead + Unpin> BoundedLines<R> {
    pub(super) fn new(reader: R, line_most: usize, most: usize) -> Self {
        BoundedLines {
            reader: BufReader::new(reader),
            line: Vec::new(),
            line_most,
            left: most,
        }
    }

    /// The next line, or none at the end. It loses nothing when it is dropped
    /// while it waits.
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
            if self.line.len() > self.line_most {
                return Err(AgentError::fatal(
                    AgentErrorKind::BadOutput,
                    format!("a line is longer than {} bytes", self.line_most),
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
