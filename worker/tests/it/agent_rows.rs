//! Tables of what endpoints answer, byte for byte, and what is to come of each.

use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use worker::agent::{Agent, AgentError, AgentErrorKind, Completion, Event};

use super::agent_provider::{KEY, request};

/// A body, its type, and what is to come of it.
pub(crate) type Row = (&'static str, String, Expected);

#[derive(Debug)]
pub(crate) enum Expected {
    Text(&'static str),
    /// A text that was cut at the limit.
    Cut(&'static str),
    /// "Tea." and these counts, of tokens read and written.
    Usage(u32, u32),
    /// Errors, with a part of their message.
    Retry(AgentErrorKind, &'static str),
    Fatal(AgentErrorKind, &'static str),
}

impl Expected {
    pub(crate) fn fits(&self, reply: &Result<Completion, AgentError>) -> bool {
        match (self, reply) {
            (Expected::Text(text), Ok(reply)) => reply.text == *text && !reply.truncated,
            (Expected::Cut(text), Ok(reply)) => reply.text == *text && reply.truncated,
            (Expected::Usage(input, output), Ok(reply)) => {
                let usage = (reply.usage.input_tokens, reply.usage.output_tokens);
                reply.text == "Tea." && usage == (*input, *output)
            }
            (
                Expected::Retry(kind, part),
                Err(AgentError::Retry {
                    failure, message, ..
                }),
            )
            | (Expected::Fatal(kind, part), Err(AgentError::Fatal { failure, message })) => {
                failure == kind && message.contains(part)
            }
            _ => false,
        }
    }
}

/// An endpoint that sends the bytes it was given, one answer after the other and
/// the last one again and again, each on a connection of its own.
pub(crate) struct Server {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Server {
    pub(crate) async fn start(answers: Vec<Vec<u8>>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let Some(request) = read(&mut stream).await else {
                    continue;
                };
                let number = seen.lock().unwrap().len();
                seen.lock().unwrap().push(request);
                let answer = &answers[number.min(answers.len() - 1)];
                // The client goes as soon as it has read enough.
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
            }
        });
        Server { url, requests }
    }

    /// The bodies of the requests so far.
    pub(crate) fn bodies(&self) -> Vec<Value> {
        let requests = self.requests.lock().unwrap();
        requests.iter().map(|(_, body)| body.clone()).collect()
    }

    /// The paths of the requests so far.
    pub(crate) fn paths(&self) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        requests.iter().map(|(path, _)| path.clone()).collect()
    }
}

async fn read(stream: &mut TcpStream) -> Option<(String, Value)> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && let Ok(body) = serde_json::from_str(body)
        {
            return Some((head.split(' ').nth(1)?.to_owned(), body));
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

pub(crate) fn http(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status} Whatever\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Each byte as a chunk of its own.
fn byte_by_byte(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n{headers}\r\n"
    );
    let chunks = body
        .iter()
        .flat_map(|byte| [b"1\r\n", &[*byte][..], b"\r\n"].concat());
    [head.as_bytes(), &chunks.collect::<Vec<u8>>(), b"0\r\n\r\n"].concat()
}

pub(crate) const EVENTS: &str = "content-type: text/event-stream\r\n";
pub(crate) const JSON: &str = "content-type: application/json\r\n";

/// Sends every row at once and byte by byte, and names those that come out wrong.
pub(crate) async fn check(rows: Vec<Row>, headers: &str, agent: impl Fn(&str) -> Box<dyn Agent>) {
    let mut cases = Vec::new();
    for (name, body, expected) in &rows {
        for bytes in [
            http(200, headers, body.as_bytes()),
            byte_by_byte(headers, body.as_bytes()),
        ] {
            let server = Server::start(vec![bytes]).await;
            cases.push((name, body, expected, agent(&server.url)));
        }
    }
    let outcomes = cases.iter().map(async |(name, body, expected, agent)| {
        let reply = reply(&**agent).await;
        (!expected.fits(&reply))
            .then(|| format!("{name}: {body}\n  expected {expected:?}\n  got {reply:?}"))
    });
    let wrong: Vec<String> = join_all(outcomes).await.into_iter().flatten().collect();
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

/// Calls an agent; the text that is heard as it comes must be that of the answer.
pub(crate) async fn reply(agent: &dyn Agent) -> Result<Completion, AgentError> {
    let heard = Mutex::new(String::new());
    let listen = |event| match event {
        Event::Text(text) => heard.lock().unwrap().push_str(&text),
        Event::Discarded | Event::Restarted => heard.lock().unwrap().clear(),
        Event::Progress { .. } => {}
    };
    let reply = agent.call(&request(), &listen).await;
    if let Ok(reply) = &reply {
        assert_eq!(*heard.lock().unwrap(), reply.text);
    }
    assert!(!format!("{reply:?}").contains(KEY), "{reply:?}");
    reply
}

/// What an agent makes of a whole answer.
pub(crate) async fn reply_to(
    bytes: Vec<u8>,
    agent: impl Fn(&str) -> Box<dyn Agent>,
) -> Result<Completion, AgentError> {
    let server = Server::start(vec![bytes]).await;
    reply(&*agent(&server.url)).await
}
