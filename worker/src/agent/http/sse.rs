//! Reads server-sent events, and the JSON that servers send in their place.
//!
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation>

use std::collections::VecDeque;

use super::json;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// What an answer consists of.
#[derive(Debug, Default, PartialEq)]
pub(super) struct SseEvent {
    /// The event's type; empty for most.
    pub(super) name: String,
    pub(super) data: String,
}

#[derive(Debug, Default, PartialEq)]
enum Format {
    /// Nothing but white space has come.
    #[default]
    Unknown,
    /// Lines, events between blank ones.
    Events,
    /// JSON from the first byte on; read once it has come whole.
    Json,
}

/// Turns bytes, divided anyhow, into events.
#[derive(Debug, Default)]
pub(super) struct SseReader {
    format: Format,
    /// The line that has not ended yet, or the JSON so far.
    line: Vec<u8>,
    /// The line before ended with CR, so that an LF belongs to that end.
    after_cr: bool,
    name: String,
    data: Option<String>,
    events: VecDeque<SseEvent>,
    /// The body was one JSON value.
    is_document: bool,
}

impl SseReader {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        match self.format {
            Format::Unknown => self.begin(bytes),
            Format::Json => self.line.extend_from_slice(bytes),
            Format::Events => self.push_lines(bytes),
        }
    }

    /// The next event that has come whole.
    pub(super) fn pop(&mut self) -> Option<SseEvent> {
        self.events.pop_front()
    }

    /// Nothing more comes: the last event may lack the blank line after it, but
    /// half a line is none.
    pub(super) fn end(&mut self) {
        let rest = std::mem::take(&mut self.line);
        if self.format == Format::Json {
            let values = json::split(&String::from_utf8_lossy(&rest));
            let is_value = |value: &&String| value.starts_with(['{', '[']);
            self.is_document = values.iter().filter(is_value).count() == 1;
            self.events.extend(values.into_iter().map(|value| SseEvent {
                name: String::new(),
                data: without_prefix(&value).to_owned(),
            }));
            return;
        }
        if !rest.is_empty() {
            self.read_line(&rest);
        }
        if self.data.as_deref().is_some_and(is_complete) {
            self.dispatch();
        }
    }

    pub(super) fn is_document(&self) -> bool {
        self.is_document
    }

    /// Whether the body is JSON, not events.
    pub(super) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    fn begin(&mut self, bytes: &[u8]) {
        self.line.extend_from_slice(bytes);
        let start = self.line.strip_prefix(BOM).unwrap_or(&self.line);
        let start = start.trim_ascii_start().to_vec();
        if BOM.starts_with(&start) {
            return;
        }
        self.line.clear();
        if start.starts_with(b"{") || start.starts_with(b"[") {
            self.format = Format::Json;
            self.line = start;
        } else {
            self.format = Format::Events;
            self.push_lines(&start);
        }
    }

    fn push_lines(&mut self, mut bytes: &[u8]) {
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(&bytes[..end]);
            self.read_line(&line);
            let is_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if is_cr {
                self.after_cr = bytes.is_empty();
                bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
        }
        self.line.extend_from_slice(bytes);
    }

    fn read_line(&mut self, line: &[u8]) {
        if line.is_empty() {
            self.dispatch();
            return;
        }
        let line = String::from_utf8_lossy(line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field.trim() {
            "event" => self.name = value.trim().to_owned(),
            "data" => self.add_data(without_prefix(value)),
            // Some leave out the field's name.
            _ if line.starts_with('{') => self.add_data(&line),
            _ => {}
        }
    }

    fn add_data(&mut self, value: &str) {
        // Some leave out the blank line between events.
        if self.data.as_deref().is_some_and(is_complete) {
            self.dispatch();
        }
        match &mut self.data {
            Some(data) => {
                data.push('\n');
                data.push_str(value);
            }
            None => self.data = Some(value.to_owned()),
        }
    }

    fn dispatch(&mut self) {
        let name = std::mem::take(&mut self.name);
        if let Some(data) = self.data.take() {
            self.events.push_back(SseEvent { name, data });
        }
    }
}

/// Some write the field's name twice.
fn without_prefix(mut value: &str) -> &str {
    while let Some(rest) = value.trim_start().strip_prefix("data:") {
        value = rest.trim_start();
    }
    value
}

fn is_complete(data: &str) -> bool {
    is_done(data) || serde_json::from_str::<serde::de::IgnoredAny>(data).is_ok()
}

/// Whether data is the mark after the last event.
pub(super) fn is_done(data: &str) -> bool {
    let mark = data.trim().trim_matches('"');
    mark.eq_ignore_ascii_case("[DONE]") || mark == "DONE"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: impl Iterator<Item = Vec<u8>>) -> Vec<(String, String)> {
        let mut reader = SseReader::default();
        pieces.for_each(|piece| reader.push(&piece));
        reader.end();
        let events = std::iter::from_fn(|| reader.pop());
        events.map(|event| (event.name, event.data)).collect()
    }

    /// However the bytes are divided, the events are the same.
    fn events(body: &str) -> Vec<(String, String)> {
        let whole = read(std::iter::once(body.as_bytes().to_vec()));
        for size in 1..7 {
            let pieces = body.as_bytes().chunks(size).map(<[u8]>::to_vec);
            assert_eq!(read(pieces), whole, "in pieces of {size}: {body:?}");
        }
        whole
    }

    #[test]
    fn events_are_read_however_lines_end() {
        let body = "event: a\ndata: 1\n\n: a comment\ndata:2\nid: 7\n\ndata: 3\ndata:  4 é\n\n\n";
        let expected = [("a", "1"), ("", "2"), ("", "3"), ("", " 4 é")]
            .map(|(name, data)| (name.to_owned(), data.to_owned()));
        for end in ["\n", "\r\n", "\r"] {
            let body = body.replace('\n', end);
            assert_eq!(events(&body), expected);
            assert_eq!(events(&format!("\u{feff}{body}")), expected);
            assert_eq!(events(&format!("{end}{end} {body}")), expected);
        }
    }

    #[test]
    fn an_event_may_have_several_lines() {
        assert_eq!(
            events("data: {\ndata: \"a\"\ndata: : 1}\n\n")[0].1,
            "{\n\"a\"\n: 1}"
        );
    }

    #[test]
    fn what_servers_leave_out_or_write_twice_is_no_matter() {
        let data = |body| {
            events(body)
                .into_iter()
                .map(|(_, data)| data)
                .collect::<Vec<_>>()
        };
        // No blank lines, none at the end.
        assert_eq!(
            data("data: {\"a\":1}\ndata: {\"b\":2}\ndata: [DONE]"),
            ["{\"a\":1}", "{\"b\":2}", "[DONE]"]
        );
        assert_eq!(
            data(": hello\n{\"a\":1}\n{\"b\":2}\n"),
            ["{\"a\":1}", "{\"b\":2}"]
        );
        assert_eq!(data("data: data: {}\n\n"), ["{}"]);
        assert_eq!(data("data\n\ndata:\n\n"), ["", ""]);
    }

    #[test]
    fn half_an_event_is_none() {
        assert!(events("data: {\"a\":").is_empty());
        assert!(events("data: {}\n\nda").len() == 1);
        assert!(events("").is_empty() && events("\u{feff}").is_empty() && events(" \n").is_empty());
    }

    #[test]
    fn json_is_read_whole() {
        let pretty = "{\n  \"data: \": 1\n}";
        assert_eq!(
            events(&format!("\u{feff}\n {pretty}\n")),
            [(String::new(), pretty.to_owned())]
        );
        assert_eq!(events("{}\ndata: [DONE]\n").len(), 2);
    }
}
