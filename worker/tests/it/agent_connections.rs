//! Connections to a provider: kept where it keeps them, and nothing is lost where it does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::join;
use testing::stub::{Act, Stub};
use testing::stub_openai::{DONE, delta, finish};
use tokio::sync::Notify;
use worker::agent::{AgentErrorKind, OpenAi};

use super::agent_provider::{assert_retry, call, limits};

/// An answer after which the connection is kept.
fn kept() -> Vec<Act> {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let text = delta("Tea.") + &finish("stop") + DONE;
    vec![
        Act::Raw(head.to_owned()),
        Act::Chunk(text),
        Act::End,
        Act::Keep,
    ]
}

/// A provider that answers the requests with these numbers, from 0, and closes the connections of the
/// others without a word.
async fn answering(answered: &'static [usize]) -> (Stub, OpenAi) {
    let number = AtomicUsize::new(0);
    let stub =
        Stub::start(
            move |_| match answered.contains(&number.fetch_add(1, Ordering::Relaxed)) {
                true => kept(),
                false => vec![Act::Reset],
            },
        );
    let stub = stub.await;
    let agent = OpenAi::new(&format!("{}/v1", stub.url()), None, &[], limits()).unwrap();
    (stub, agent)
}

#[tokio::test]
async fn calls_one_after_the_other_share_a_connection() {
    let (stub, agent) = answering(&[0, 1, 2]).await;
    for _ in 0..3 {
        assert_eq!(call(&agent).await.unwrap().text, "Tea.");
    }
    assert_eq!((stub.calls().len(), stub.connections()), (3, 1));
}

#[tokio::test]
async fn a_call_on_a_connection_that_the_provider_closes_is_made_again_on_a_new_one() {
    let (stub, agent) = answering(&[0, 2]).await;
    for _ in 0..2 {
        assert_eq!(call(&agent).await.unwrap().text, "Tea.");
    }
    assert_eq!((stub.calls().len(), stub.connections()), (3, 2));
}

#[tokio::test]
async fn a_call_on_a_new_connection_is_not_made_again() {
    let (stub, agent) = answering(&[1]).await;
    assert_retry(
        &call(&agent).await.unwrap_err(),
        AgentErrorKind::Unavailable,
    );
    assert_eq!((stub.calls().len(), stub.connections()), (1, 1));
}

/// A provider of which it is not known yet whether its paths begin with a version.
#[tokio::test]
async fn of_calls_at_once_each_finds_the_path_that_the_provider_knows() {
    let gate = Arc::new(Notify::new());
    let opened = gate.clone();
    let missing = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let number = AtomicUsize::new(0);
    let stub = Stub::start(move |call| {
        if call.line.contains(" /chat/") {
            return kept();
        }
        let missing = Act::Raw(missing.to_owned());
        match number.fetch_add(1, Ordering::Relaxed) {
            0 => vec![Act::Gate(opened.clone()), missing],
            _ => vec![missing],
        }
    });
    let stub = stub.await;
    let agent = OpenAi::new(&stub.url(), None, &[], limits()).unwrap();
    let second = async {
        stub.called(1).await;
        let text = call(&agent).await.unwrap().text;
        gate.notify_one();
        text
    };
    let (first, second) = join!(call(&agent), second);
    assert_eq!(first.unwrap().text, "Tea.");
    assert_eq!(second, "Tea.");
}
