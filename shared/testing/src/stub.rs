//! An HTTP server on loopback that does to its clients what real ones do at
//! their worst. It takes one request a connection, unless it is told to keep it, and is told, byte
//! by byte, what to answer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::AbortHandle;

use crate::TIMEOUT;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// Such as `POST /v1/chat/completions`.
    pub line: String,
    /// By their names in lower case.
    pub headers: HashMap<String, String>,
    /// Null where it is not JSON.
    pub body: Value,
}

impl RecordedRequest {
    /// All messages to the model, as JSON.
    pub fn prompt(&self) -> String {
        self.body["messages"].to_string()
    }
}

/// One step of an answer.
#[derive(Clone)]
pub enum Act {
    /// Bytes as they are.
    Raw(String),
    /// One chunk of a chunked body.
    Chunk(String),
    /// The end of a chunked body; an answer without it is cut short.
    End,
    /// The same chunk until the client goes.
    Endless(String),
    /// A pause.
    Wait(Duration),
    /// Until the test says so.
    Gate(Arc<Notify>),
    /// Until the client goes.
    Hold,
    /// Not a close but a reset.
    Reset,
    /// The connection is kept for the next request.
    Keep,
}

/// The server, until this is dropped.
pub struct Stub {
    address: SocketAddr,
    calls: watch::Sender<Vec<RecordedRequest>>,
    connections: Arc<AtomicUsize>,
    gone: Arc<Semaphore>,
    server: AbortHandle,
}

impl Stub {
    /// The answer may depend on the request.
    pub async fn start(
        answer: impl Fn(&RecordedRequest) -> Vec<Act> + Send + Sync + 'static,
    ) -> Stub {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let calls = watch::Sender::new(Vec::new());
        let gone = Arc::new(Semaphore::new(0));
        let connections = Arc::new(AtomicUsize::new(0));
        let answer = Arc::new(answer);
        let (calls_too, gone_too) = (calls.clone(), gone.clone());
        let counted = connections.clone();
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let (answer, calls, gone) = (answer.clone(), calls_too.clone(), gone_too.clone());
                tokio::spawn(async move {
                    while let Some(call) = read(&mut stream).await {
                        let acts = answer(&call);
                        let is_kept = matches!(acts.last(), Some(Act::Keep));
                        calls.send_modify(|calls| calls.push(call));
                        if play(&mut stream, acts).await.is_none() {
                            gone.add_permits(1);
                        }
                        if !is_kept {
                            break;
                        }
                    }
                });
            }
        });
        Stub {
            address,
            calls,
            connections,
            gone,
            server: server.abort_handle(),
        }
    }

    /// Always the same answer.
    pub async fn answering(acts: Vec<Act>) -> Stub {
        Stub::start(move |_| acts.clone()).await
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far.
    pub fn calls(&self) -> Vec<RecordedRequest> {
        self.calls.borrow().clone()
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Wait until so many requests have come.
    pub async fn called(&self, times: usize) {
        let mut calls = self.calls.subscribe();
        let enough = calls.wait_for(|calls| calls.len() >= times);
        let enough = tokio::time::timeout(TIMEOUT, enough).await;
        enough.expect("too few requests come").unwrap();
    }

    /// Wait until a client has closed its connection in the middle of an answer.
    pub async fn client_gone(&self) {
        let gone = tokio::time::timeout(TIMEOUT, self.gone.acquire());
        gone.await
            .expect("the client keeps its connection")
            .unwrap()
            .forget();
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A whole answer in one piece.
pub fn whole(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<Act> {
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    vec![Act::Raw(format!(
        "HTTP/1.1 {status} Whatever\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    ))]
}

/// An answer that begins as a stream of events and goes on with `acts`.
pub fn stream(acts: impl IntoIterator<Item = Act>) -> Vec<Act> {
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\
                transfer-encoding: chunked\r\n\r\n";
    std::iter::once(Act::Raw(head.to_owned()))
        .chain(acts)
        .collect()
}

/// Nothing if the client has gone.
async fn read(stream: &mut TcpStream) -> Option<RecordedRequest> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        more(stream, &mut bytes).await?;
    };
    let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
    let mut lines = text.lines();
    let line = lines
        .next()
        .unwrap()
        .trim_end_matches(" HTTP/1.1")
        .to_owned();
    let headers: HashMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers
        .get("content-length")
        .map_or(0, |length| length.parse().unwrap());
    while bytes.len() < head + 4 + length {
        more(stream, &mut bytes).await?;
    }
    let body = serde_json::from_slice(&bytes[head + 4..]).unwrap_or(Value::Null);
    Some(RecordedRequest {
        line,
        headers,
        body,
    })
}

async fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    matches!(stream.read_buf(bytes).await, Ok(1..)).then_some(())
}

/// Nothing if the client has gone before the end.
async fn play(stream: &mut TcpStream, acts: Vec<Act>) -> Option<()> {
    for act in acts {
        match act {
            Act::Raw(bytes) => send(stream, &bytes).await?,
            Act::Chunk(text) => send(stream, &chunk(&text)).await?,
            Act::End => send(stream, "0\r\n\r\n").await?,
            Act::Endless(text) => loop {
                send(stream, &chunk(&text)).await?;
            },
            Act::Wait(time) => tokio::time::sleep(time).await,
            Act::Gate(gate) => gate.notified().await,
            Act::Hold => loop {
                more(stream, &mut Vec::new()).await?;
            },
            Act::Reset => stream.set_zero_linger().unwrap(),
            Act::Keep => {}
        }
    }
    Some(())
}

async fn send(stream: &mut TcpStream, bytes: &str) -> Option<()> {
    stream.write_all(bytes.as_bytes()).await.ok()
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}
