//! An agent that answers at once, with as little as a post can be made of: an OpenAI-compatible
//! endpoint, or in the worker's own process.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use worker::agent::{Agent, CallFuture, CallScope, Completion, CompletionRequest, Event, OnEvent};

const OUTLINE: &str = "# A Title\n## One Thing\n## Another Thing\n## The Last Thing";

/// Starts it, and returns its base URL.
pub(crate) async fn start() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/v1", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            // A client that goes is none of our business.
            tokio::spawn(async move { answer(connection).await.ok() });
        }
    });
    Ok(url)
}

/// Answers all requests of a connection.
async fn answer(mut connection: TcpStream) -> Result<()> {
    while let Some(request) = read(&mut connection).await? {
        let text = text(&String::from_utf8_lossy(&request)).replace('\n', "\\n");
        connection.write_all(stream(&text).as_bytes()).await?;
    }
    Ok(())
}

/// What is said to a request.
fn text(asked: &str) -> String {
    match asked.contains("ection headings") {
        true => OUTLINE.to_owned(),
        false => section(),
    }
}

fn stream(text: &str) -> String {
    let events = format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n\
         data: {{\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"stop\"}}]}}\n\n\
         data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":9,\"completion_tokens\":9}}}}\n\n\
         data: [DONE]\n\n"
    );
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{events}",
        events.len()
    )
}

/// A request to its end; None if the client goes before.
async fn read(connection: &mut TcpStream) -> Result<Option<Vec<u8>>> {
    let mut request = Vec::with_capacity(4096);
    loop {
        if connection.read_buf(&mut request).await? == 0 {
            return Ok(None);
        }
        let end = request.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end else { continue };
        let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
        let mut lines = head.lines();
        let length = lines.find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.unwrap_or("0").trim().parse()?;
        if request.len() >= end + 4 + length {
            return Ok(Some(request));
        }
    }
}

/// Unlike any other, for what repeats itself is cleaned away.
fn section() -> String {
    static SAID: AtomicUsize = AtomicUsize::new(0);
    let number = SAID.fetch_add(20, Ordering::Relaxed);
    let words: Vec<String> = (number..number + 20).map(|n| format!("word{n}")).collect();
    format!(
        "Once {}. Then {}.",
        words[..10].join(" "),
        words[10..].join(" ")
    )
}

/// The same without HTTP.
pub(crate) struct InstantAgent;

impl Agent for InstantAgent {
    fn scope(&self) -> CallScope {
        CallScope::Prompt
    }

    fn call<'a>(
        &'a self,
        request: &'a CompletionRequest,
        on_event: &'a OnEvent<'a>,
    ) -> CallFuture<'a> {
        let text = text(&format!("{request:?}"));
        Box::pin(async move {
            on_event(Event::Text(text.clone()));
            Ok(Completion {
                text,
                ..Completion::default()
            })
        })
    }
}
