//! Cases of every provider behind HTTP: limits of time and of size, connections
//! that fail, and calls that are dropped.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use testing::stub::{Act, Stub, stream};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use worker::agent::{AgentErrorKind, Event, Limits};

use super::agent_provider::{Provider, answered, assert_retry, call, limits, request, streamed};

pub(crate) async fn silence_in_mid_stream_is_a_timeout<P: Provider>() {
    let limits = Limits {
        idle_timeout: Duration::from_millis(50),
        ..limits()
    };
    let acts = [
        Act::Chunk(P::start()),
        Act::Chunk(P::text("Tea is")),
        Act::Hold,
    ];
    let error = answered::<P>(stream(acts), limits).await.unwrap_err();
    assert_retry(&error, AgentErrorKind::Timeout);
    assert!(error.to_string().contains("stopped coming"), "{error}");
}

pub(crate) async fn a_slow_beginning_is_a_timeout<P: Provider>() {
    let limits = Limits {
        first_token_timeout: Duration::from_millis(50),
        ..limits()
    };
    let error = answered::<P>(vec![Act::Hold], limits).await.unwrap_err();
    assert_retry(&error, AgentErrorKind::Timeout);
}

pub(crate) async fn a_slow_first_event_is_a_timeout<P: Provider>() {
    let limits = Limits {
        first_token_timeout: Duration::from_millis(50),
        ..limits()
    };
    let error = answered::<P>(stream([Act::Hold]), limits)
        .await
        .unwrap_err();
    assert_retry(&error, AgentErrorKind::Timeout);
}

pub(crate) async fn pings_do_not_prolong_the_whole_call<P: Provider>() {
    let limits = Limits {
        total_timeout: Duration::from_millis(100),
        ..limits()
    };
    let pings = [Act::Chunk(P::ping()), Act::Wait(Duration::from_millis(5))];
    let acts = std::iter::repeat_n(pings, 1000).flatten();
    let error = answered::<P>(stream(acts), limits).await.unwrap_err();
    assert_retry(&error, AgentErrorKind::Timeout);
}

pub(crate) async fn an_endless_text_is_stopped<P: Provider>() {
    let acts = [Act::Chunk(P::start()), Act::Endless(P::text("and so on "))];
    let stub = Stub::answering(stream(acts)).await;
    let heard = Mutex::new(0);
    let listen = |event| match event {
        Event::Text(piece) => *heard.lock().unwrap() += piece.len(),
        Event::Progress { .. } | Event::Discarded | Event::Restarted => {}
    };
    let agent = P::agent(&stub.url(), limits());
    let error = agent.call(&request(), &listen).await.unwrap_err();
    assert_retry(&error, AgentErrorKind::BadOutput);
    assert_eq!(*heard.lock().unwrap(), limits().max_bytes);
    stub.client_gone().await;
}

pub(crate) async fn an_endless_event_is_stopped<P: Provider>() {
    let piece = "and so on ".repeat(1000);
    let without_line_end = [Act::Chunk("data: ".into()), Act::Endless(piece)];
    assert_retry(
        &streamed::<P>(without_line_end).await.unwrap_err(),
        AgentErrorKind::BadOutput,
    );
    let comments = [Act::Endless(": and so on\n\n".repeat(1000))];
    assert_retry(
        &streamed::<P>(comments).await.unwrap_err(),
        AgentErrorKind::BadOutput,
    );
}

pub(crate) async fn nobody_listening_may_be_tried_again<P: Provider>() {
    // It keeps the port from others, and does not listen.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let error = call(&*P::agent(&url, limits())).await.unwrap_err();
    assert_retry(&error, AgentErrorKind::Unavailable);
}

pub(crate) async fn a_connection_that_never_stands_is_a_timeout<P: Provider>() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // Once its queue is full, the kernel drops whoever else calls.
    let mut queue = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(50), TcpStream::connect(address)).await
    {
        queue.push(stream);
    }
    let limits = Limits {
        connect: Duration::from_millis(50),
        ..limits()
    };
    let error = call(&*P::agent(&format!("http://{address}"), limits))
        .await
        .unwrap_err();
    assert_retry(&error, AgentErrorKind::Timeout);
}

pub(crate) async fn a_dropped_call_closes_the_connection<P: Provider>() {
    let asked = Arc::new(Notify::new());
    let ring = asked.clone();
    let stub = Stub::start(move |_| {
        ring.notify_one();
        vec![Act::Hold]
    })
    .await;
    let agent = P::agent(&stub.url(), limits());
    tokio::select! {
        reply = call(&*agent) => panic!("{reply:?}"),
        () = asked.notified() => {}
    }
    stub.client_gone().await;
}

pub(crate) async fn a_dropped_call_closes_the_connection_in_mid_stream<P: Provider>() {
    let stub = Stub::answering(stream([Act::Chunk(P::text("Tea")), Act::Hold])).await;
    let agent = P::agent(&stub.url(), limits());
    let heard = Notify::new();
    let (request, listen) = (request(), |_| heard.notify_one());
    tokio::select! {
        reply = agent.call(&request, &listen) => panic!("{reply:?}"),
        () = heard.notified() => {}
    }
    stub.client_gone().await;
}
