//! Connections that fall silent.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::serve::serve;
use axum::Router;
use axum::body::Body;
use axum::routing::get;
use futures_util::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

const PATIENCE: Duration = Duration::from_millis(300);

const MOST: usize = 3;

/// Serves until the guard is dropped.
async fn serving(app: Router) -> (SocketAddr, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, app, PATIENCE, MOST, stop.clone()));
    (address, stop.drop_guard())
}

/// `/slow` is slower than the patience, and tells when it has been asked.
async fn served() -> (SocketAddr, DropGuard, Arc<Notify>) {
    let asked = Arc::new(Notify::new());
    let tell = asked.clone();
    let slow = || async move {
        tell.notify_one();
        tokio::time::sleep(PATIENCE * 3).await;
        "at last"
    };
    let app = Router::new()
        .route("/slow", get(slow))
        .route("/quick", get(|| async { "here" }));
    let (address, stop) = serving(app).await;
    (address, stop, asked)
}

/// All that comes until the connection is closed, and how long that took.
async fn rest(connection: &mut TcpStream) -> (String, Duration) {
    let begun = Instant::now();
    let mut text = String::new();
    let read = connection.read_to_string(&mut text);
    let read = tokio::time::timeout(Duration::from_secs(30), read).await;
    read.expect("the connection stays open").unwrap();
    (text, begun.elapsed())
}

#[tokio::test]
async fn a_connection_that_never_finishes_its_head_is_closed() {
    let (address, _stop, _) = served().await;
    for head in ["", "GET /quick HTTP/1.1\r\nhost: here\r\nx-slowly: "] {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(head.as_bytes()).await.unwrap();
        let (text, took) = rest(&mut connection).await;
        assert_eq!(text, "");
        assert!(took >= PATIENCE / 2, "{took:?}");
    }
}

#[tokio::test]
async fn a_head_that_comes_bit_by_bit_takes_no_longer_than_one_that_does_not_come() {
    let (address, _stop, _) = served().await;
    let connection = TcpStream::connect(address).await.unwrap();
    let (mut read, mut write) = connection.into_split();
    let trickle = async move {
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(PATIENCE / 10).await;
        }
    };
    let mut text = Vec::new();
    let closed = async {
        // Reset, for what it has not read.
        let _ = read.read_to_end(&mut text).await;
    };
    let both = async { tokio::join!(trickle, closed) };
    let both = tokio::time::timeout(Duration::from_secs(30), both).await;
    both.expect("the connection stays open");
    assert!(text.is_empty());
}

#[tokio::test]
async fn a_connection_is_kept_while_it_waits_for_an_answer_and_closed_when_it_is_idle() {
    let (address, _stop, _) = served().await;
    let mut connection = TcpStream::connect(address).await.unwrap();
    for path in ["/slow", "/quick"] {
        let head = format!("GET {path} HTTP/1.1\r\nhost: here\r\n\r\n");
        connection.write_all(head.as_bytes()).await.unwrap();
    }
    let (text, _) = rest(&mut connection).await;
    assert!(text.contains("at last") && text.contains("here"), "{text}");
}

#[tokio::test]
async fn of_more_connections_than_there_may_be_the_others_wait_until_one_is_closed() {
    let (address, _stop, asked) = served().await;
    let head = b"GET /slow HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
    let mut connections = Vec::new();
    for _ in 0..MOST {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(head).await.unwrap();
        asked.notified().await;
        connections.push(connection);
    }
    let mut next = TcpStream::connect(address).await.unwrap();
    next.write_all(head).await.unwrap();
    let refused = tokio::time::timeout(PATIENCE, asked.notified()).await;
    assert!(refused.is_err(), "there are more connections than may be");
    let (text, _) = rest(&mut next).await;
    assert!(text.contains("at last"), "{text}");
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_not_waited_for() {
    let over = CancellationToken::new();
    let endless = {
        let over = over.clone();
        || async move {
            let guard = over.drop_guard();
            Body::from_stream(stream::repeat_with(move || {
                let _held = &guard;
                Ok::<_, Infallible>(vec![0; 65_536])
            }))
        }
    };
    let (address, _stop) = serving(Router::new().route("/endless", get(endless))).await;
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head = b"GET /endless HTTP/1.1\r\nhost: here\r\n\r\n";
    connection.write_all(head).await.unwrap();
    let over = tokio::time::timeout(Duration::from_secs(30), over.cancelled());
    over.await.expect("the connection stays open");
}

#[tokio::test]
async fn an_answer_may_be_silent_for_longer_than_its_client() {
    let words = || async {
        let words = stream::iter(["so", " far", " so", " good"]).then(|word| async move {
            tokio::time::sleep(PATIENCE * 2).await;
            Ok::<_, Infallible>(word)
        });
        Body::from_stream(words)
    };
    let (address, _stop) = serving(Router::new().route("/words", get(words))).await;
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head = b"GET /words HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
    connection.write_all(head).await.unwrap();
    let (text, _) = rest(&mut connection).await;
    assert!(text.contains(" good\r\n0\r\n"), "{text}");
}

#[tokio::test]
async fn a_request_that_was_begun_is_answered_though_the_server_stops() {
    let (address, stop, asked) = served().await;
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head = b"GET /slow HTTP/1.1\r\nhost: here\r\n\r\n";
    connection.write_all(head).await.unwrap();
    let stopping = async {
        asked.notified().await;
        drop(stop);
    };
    let ((text, _), ()) = tokio::join!(rest(&mut connection), stopping);
    assert!(text.contains("at last"), "{text}");
    assert!(TcpStream::connect(address).await.is_err());
}
