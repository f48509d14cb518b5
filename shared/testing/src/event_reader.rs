//! A client that watches a job and puts its text together, as the contract tells clients to.

use reqwest::{Method, Response};
use serde_json::Value;
use tokio::time::timeout;

use crate::TIMEOUT;
use crate::client::{TestClient, job_path};
use crate::json::text;

/// A reader of one job's events. It keeps what it has read when its connection ends.
pub struct EventReader {
    client: TestClient,
    path: String,
    connection: Option<Connection>,
    /// The last event that it has.
    pub after: Option<i64>,
    /// All events that it has got, but for snapshots.
    pub events: Vec<Value>,
    /// How many snapshots it has got.
    pub snapshots: usize,
    /// The title, as told so far.
    pub title: Option<String>,
    /// The sections, as told so far: their headings and texts.
    pub sections: Vec<(Option<String>, String)>,
    /// The data of the last event of all.
    pub end: Option<Value>,
}

struct Connection {
    response: Response,
    buffer: String,
}

impl EventReader {
    /// A reader of the job of a post.
    pub fn of(client: &TestClient, post: &Value) -> Self {
        Self::of_job(client, &job_path(post))
    }

    /// A reader of the job at a path, such as `/jobs/{id}`.
    pub fn of_job(client: &TestClient, path: &str) -> Self {
        EventReader {
            client: client.clone(),
            path: format!("{path}/events"),
            connection: None,
            after: None,
            events: Vec::new(),
            snapshots: 0,
            title: None,
            sections: Vec::new(),
            end: None,
        }
    }

    /// The same, which has all up to this event.
    pub fn after(mut self, event: i64) -> Self {
        self.after = Some(event);
        self
    }

    /// Connects, and returns the status.
    pub async fn connect(&mut self) -> u16 {
        let client = self.client.clone();
        self.try_connect(client.url()).await.unwrap()
    }

    /// Connects to the API at `url`. An error if it goes before it has answered.
    pub async fn try_connect(&mut self, url: &str) -> reqwest::Result<u16> {
        let mut request = self.client.at(url).request(Method::GET, &self.path);
        if let Some(after) = self.after {
            request = request.header("last-event-id", after);
        }
        let response = timeout(TIMEOUT, request.send()).await;
        let response = response.expect("no answer")?;
        let status = response.status().as_u16();
        self.connection = (status == 200).then_some(Connection {
            response,
            buffer: String::new(),
        });
        Ok(status)
    }

    /// A header of the current answer.
    pub fn header(&self, name: &str) -> String {
        let connection = self.connection.as_ref().expect("a connection");
        let value = &connection.response.headers()[name];
        value.to_str().unwrap().to_owned()
    }

    /// Drops the connection.
    pub fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Reads the next event of the connection; None if it has ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            let connection = self.connection.as_mut()?;
            if let Some(end) = connection.buffer.find("\n\n") {
                let block: String = connection.buffer.drain(..end + 2).collect();
                let field = |name: &str| {
                    let mut lines = block.lines();
                    lines.find_map(|line| line.strip_prefix(&format!("{name}: ")))
                };
                let (Some(id), Some(name), Some(data)) =
                    (field("id"), field("event"), field("data"))
                else {
                    continue;
                };
                let data: Value = serde_json::from_str(data).unwrap();
                assert_eq!(data["seq"].to_string(), id);
                let name = name.to_owned();
                self.take(&name, &data);
                return Some(serde_json::json!({ "event": name, "data": data }));
            }
            let chunk = timeout(TIMEOUT, connection.response.chunk()).await;
            match chunk.expect("no further event") {
                Ok(Some(bytes)) => connection.buffer += std::str::from_utf8(&bytes).unwrap(),
                _ => self.connection = None,
            }
        }
    }

    /// Reads until `is_enough`, or the connection ends.
    pub async fn read_until(&mut self, is_enough: impl Fn(&Self) -> bool) {
        while !is_enough(self) && self.next().await.is_some() {}
    }

    /// Reads until the job has finished, however often it has to connect.
    pub async fn read_to_end(&mut self) {
        while self.end.is_none() {
            if self.connection.is_none() {
                assert_eq!(self.connect().await, 200);
            }
            self.next().await;
        }
    }

    /// What was told of the content.
    pub fn content(&self) -> String {
        let sections = self.sections.iter().map(|(heading, text)| match heading {
            Some(heading) => format!("## {heading}\n\n{text}\n"),
            None => format!("{text}\n"),
        });
        sections.collect::<Vec<_>>().join("\n")
    }

    fn section(&mut self, data: &Value) -> &mut (Option<String>, String) {
        let at = data["section"].as_u64().unwrap() as usize;
        if self.sections.len() <= at {
            self.sections.resize(at + 1, Default::default());
        }
        &mut self.sections[at]
    }

    fn take(&mut self, name: &str, data: &Value) {
        let seq = data["seq"].as_i64().unwrap();
        let heading = |section: &Value| section["heading"].as_str().map(str::to_owned);
        if name == "snapshot" {
            self.snapshots += 1;
            self.title = data["title"].as_str().map(str::to_owned);
            let sections = data["sections"].as_array().unwrap().iter();
            self.sections = sections.map(|s| (heading(s), text(&s["text"]))).collect();
            self.after = Some(seq);
            return;
        }
        let expected = self.after.map_or(seq, |after| after + 1);
        assert_eq!(seq, expected, "a gap before {data}");
        self.after = Some(seq);
        self.events
            .push(serde_json::json!({ "event": name, "data": data }));
        match name {
            "outline" => {
                self.title = data["title"].as_str().map(str::to_owned);
                let sections = data["sections"].as_array().unwrap();
                self.sections.resize(sections.len(), Default::default());
                for (section, told) in self.sections.iter_mut().zip(sections) {
                    section.0 = heading(told);
                }
            }
            "delta" => self.section(data).1 += &text(&data["text"]),
            "section.reset" => self.section(data).1.clear(),
            "section.done" => self.section(data).0 = heading(data),
            "end" => self.end = Some(data.clone()),
            _ => {}
        }
    }
}
