//! Connections that fall silent, and those that would take all places.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::connections::ConnectionLimits;
use api::server::serve;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::TestApp;

const PATIENCE: Duration = Duration::from_millis(300);

/// Longer than any test takes.
const FOR_EVER: Duration = Duration::from_secs(600);

const MOST: usize = 3;

const HALF_A_HEAD: &str = "GET /quick HTTP/1.1\r\nhost: here\r\nx-slowly: ";

const QUICK: &str = "GET /quick HTTP/1.1\r\nhost: here\r\n\r\n";

/// Silent clients are soon given up, and one address may have all places.
fn impatient() -> ConnectionLimits {
    ConnectionLimits {
        max_connections: MOST,
        max_per_address: usize::MAX,
        head_timeout: PATIENCE,
        idle_timeout: PATIENCE,
        trusted_proxies: Vec::new(),
    }
}

/// Nobody is given up but for somebody else.
fn patient(max_connections: usize, max_per_address: usize) -> ConnectionLimits {
    ConnectionLimits {
        max_connections,
        max_per_address,
        head_timeout: FOR_EVER,
        idle_timeout: FOR_EVER,
        trusted_proxies: Vec::new(),
    }
}

/// Serves until the guard is dropped.
async fn serving(app: Router) -> (SocketAddr, DropGuard) {
    serving_within(impatient(), app).await
}

async fn serving_within(limits: ConnectionLimits, app: Router) -> (SocketAddr, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, app, limits, stop.clone()));
    (address, stop.drop_guard())
}

/// `/slow` is slower than the patience, and tells when it has been asked.
async fn served() -> (SocketAddr, DropGuard, Arc<Notify>) {
    served_within(impatient()).await
}

async fn served_within(limits: ConnectionLimits) -> (SocketAddr, DropGuard, Arc<Notify>) {
    let asked = Arc::new(Notify::new());
    let tell = asked.clone();
    let slow = || async move {
        tell.notify_one();
        tokio::time::sleep(PATIENCE * 6).await;
        "at last"
    };
    let app = Router::new()
        .route("/slow", get(slow))
        .route("/body", post(|body: Bytes| async { body }))
        .route("/large", get(|| async { vec![b'x'; LARGE] }))
        .route("/quick", get(|| async { "here" }));
    let (address, stop) = serving_within(limits, app).await;
    (address, stop, asked)
}

/// More than the system takes of an answer that is not read.
const LARGE: usize = 64 * 1024 * 1024;

const LARGE_ONE: &str = "GET /large HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";

/// A connection from 127.0.0.`number`, over which this is sent.
async fn sending(number: u8, to: SocketAddr, text: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let from = Ipv4Addr::new(127, 0, 0, number);
    socket.bind((from, 0).into()).unwrap();
    let mut connection = socket.connect(to).await.unwrap();
    connection.write_all(text.as_bytes()).await.unwrap();
    connection
}

/// Asks for `/quick` over a connection that remains open.
async fn ask_quick(connection: &mut TcpStream) {
    connection.write_all(QUICK.as_bytes()).await.unwrap();
    read_until(connection, "here").await;
}

/// Reads until this has come.
async fn read_until(connection: &mut TcpStream, end: &str) {
    let mut text = Vec::new();
    let read = async {
        while !text.ends_with(end.as_bytes()) {
            text.push(connection.read_u8().await.unwrap());
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(30), read).await;
    read.expect("no answer comes");
}

/// Waits until the connection is closed without an answer.
async fn is_closed(connection: &mut TcpStream) {
    let mut text = Vec::new();
    let read = connection.read_to_end(&mut text);
    let read = tokio::time::timeout(Duration::from_secs(30), read).await;
    // It may be reset, for what was not read.
    let _ = read.expect("the connection stays open");
    assert_eq!(String::from_utf8_lossy(&text), "");
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
    for head in ["", HALF_A_HEAD] {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(head.as_bytes()).await.unwrap();
        let (text, took) = rest(&mut connection).await;
        assert_eq!(text, "");
        assert!(took >= PATIENCE / 2, "{took:?}");
    }
}

#[tokio::test]
async fn a_head_that_comes_bit_by_bit_takes_no_longer_than_one_that_does_not_come() {
    let limits = ConnectionLimits {
        idle_timeout: FOR_EVER,
        ..impatient()
    };
    let (address, _stop, _) = served_within(limits).await;
    let new = TcpStream::connect(address).await.unwrap();
    let mut used = TcpStream::connect(address).await.unwrap();
    ask_quick(&mut used).await;
    for connection in [new, used] {
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
}

#[tokio::test]
async fn a_head_has_less_time_than_a_connection_may_be_idle() {
    let limits = ConnectionLimits {
        idle_timeout: FOR_EVER,
        ..impatient()
    };
    let (address, _stop, _) = served_within(limits).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    ask_quick(&mut idle).await;
    let mut slow = sending(1, address, HALF_A_HEAD).await;
    let (text, took) = rest(&mut slow).await;
    assert_eq!(text, "");
    assert!(took >= PATIENCE / 2, "{took:?}");
    // By now this one has been idle for longer than that. Its next request may take
    // no longer than the first.
    ask_quick(&mut idle).await;
    idle.write_all(HALF_A_HEAD.as_bytes()).await.unwrap();
    let (text, took) = rest(&mut idle).await;
    assert_eq!(text, "");
    assert!(took >= PATIENCE / 2, "{took:?}");
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
async fn connections_beyond_the_limit_wait_until_one_is_closed() {
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

#[tokio::test]
async fn an_address_at_its_limit_leaves_others_their_connections() {
    let (address, _stop, _) = served_within(patient(4, 2)).await;
    // Nobody has waited longer for a client.
    let mut other = sending(2, address, "").await;
    ask_quick(&mut other).await;
    let mut greedy = Vec::new();
    for _ in 0..10 {
        greedy.push(sending(1, address, HALF_A_HEAD).await);
    }
    // Its own connections make place for each other.
    for connection in &mut greedy[..8] {
        is_closed(connection).await;
    }
    ask_quick(&mut other).await;
    ask_quick(&mut sending(3, address, "").await).await;
    ask_quick(&mut sending(1, address, "").await).await;
}

#[tokio::test]
async fn an_address_whose_requests_are_all_being_answered_gets_no_further_connection() {
    let (address, _stop, asked) = served_within(patient(4, 2)).await;
    let head = "GET /slow HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
    let mut answered = Vec::new();
    for _ in 0..2 {
        answered.push(sending(1, address, head).await);
        asked.notified().await;
    }
    is_closed(&mut sending(1, address, "").await).await;
    ask_quick(&mut sending(2, address, "").await).await;
    for connection in &mut answered {
        let (text, _) = rest(connection).await;
        assert!(text.contains("at last"), "{text}");
    }
    ask_quick(&mut sending(1, address, "").await).await;
}

#[tokio::test]
async fn silent_connections_are_closed_when_others_wait() {
    let (address, _stop, asked) = served_within(patient(8, 2)).await;
    let head = "GET /slow HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
    let mut answered = sending(1, address, head).await;
    asked.notified().await;
    let mut idle = sending(2, address, "").await;
    ask_quick(&mut idle).await;
    let mut silent = Vec::new();
    for number in 3..9 {
        silent.push(sending(number, address, HALF_A_HEAD).await);
    }
    // All places are taken. Who has waited longest goes first, but for the one
    // whose request is being answered.
    let mut new = Vec::new();
    for number in 10..14 {
        let mut connection = sending(number, address, "").await;
        ask_quick(&mut connection).await;
        new.push(connection);
    }
    is_closed(&mut idle).await;
    for connection in &mut silent[..3] {
        is_closed(connection).await;
    }
    let (text, _) = rest(&mut answered).await;
    assert!(text.contains("at last"), "{text}");
}

#[tokio::test]
async fn a_connection_whose_body_does_not_come_is_closed_when_others_wait() {
    let (address, _stop, _) = served_within(patient(1, 1)).await;
    let head = "POST /body HTTP/1.1\r\nhost: here\r\ncontent-length: 9\r\n\
                expect: 100-continue\r\n\r\n";
    let mut slow = sending(1, address, head).await;
    // The server wants the body.
    read_until(&mut slow, "100 Continue\r\n\r\n").await;
    slow.write_all(b"half").await.unwrap();
    ask_quick(&mut sending(2, address, "").await).await;
    is_closed(&mut slow).await;
}

#[tokio::test]
async fn a_connection_whose_body_has_come_is_kept_though_others_wait() {
    let asked = Arc::new(Notify::new());
    let tell = asked.clone();
    let slow = async move |body: Bytes| {
        tell.notify_one();
        tokio::time::sleep(PATIENCE).await;
        body
    };
    let app = Router::new().route("/slow", post(slow));
    let (address, _stop) = serving_within(patient(1, 1), app).await;
    let head = "POST /slow HTTP/1.1\r\nhost: here\r\ncontent-length: 5\r\n\
                connection: close\r\nexpect: 100-continue\r\n\r\n";
    let mut first = sending(1, address, head).await;
    read_until(&mut first, "100 Continue\r\n\r\n").await;
    first.write_all(b"whole").await.unwrap();
    asked.notified().await;
    let _second = sending(2, address, HALF_A_HEAD).await;
    let (text, _) = rest(&mut first).await;
    assert!(text.ends_with("whole"), "{text}");
}

#[tokio::test]
async fn an_answer_is_sent_to_its_end_though_others_wait() {
    let (address, _stop, _) = served_within(patient(1, 1)).await;
    let mut first = sending(1, address, LARGE_ONE).await;
    read_until(&mut first, "\r\n\r\n").await;
    let mut second = sending(2, address, "").await;
    let refused = tokio::time::timeout(PATIENCE, ask_quick(&mut second)).await;
    assert!(refused.is_err(), "there are more connections than may be");
    let (text, _) = rest(&mut first).await;
    assert_eq!(text.len(), LARGE);
    // It was asked for before.
    read_until(&mut second, "here").await;
}

#[tokio::test]
async fn a_connection_that_does_not_read_is_closed_after_a_while_when_others_wait() {
    let limits = ConnectionLimits {
        head_timeout: PATIENCE,
        ..patient(1, 1)
    };
    let (address, _stop, _) = served_within(limits).await;
    let mut unread = sending(1, address, LARGE_ONE).await;
    read_until(&mut unread, "\r\n\r\n").await;
    ask_quick(&mut sending(2, address, "").await).await;
    let mut text = Vec::new();
    let _ = unread.read_to_end(&mut text).await;
    assert!(text.len() < LARGE, "all of it was sent");
}

#[tokio::test]
async fn an_answer_that_is_read_slowly_is_sent_to_its_end() {
    let limits = ConnectionLimits {
        head_timeout: PATIENCE * 7,
        ..patient(1, 1)
    };
    let (address, _stop, _) = served_within(limits).await;
    let mut slow = sending(1, address, LARGE_ONE).await;
    read_until(&mut slow, "\r\n\r\n").await;
    let mut next = sending(2, address, QUICK).await;
    let mut part = vec![0; LARGE / 64];
    for _ in 0..64 {
        slow.read_exact(&mut part).await.unwrap();
        tokio::time::sleep(PATIENCE / 7).await;
    }
    read_until(&mut next, "here").await;
}

#[tokio::test]
async fn a_long_poll_keeps_its_connection() {
    let app = TestApp::with(&["--max-connections-per-address=2"]).await;
    let ann = app.user("ann").await;
    let away = app.client_from_ip(2).with_token(&ann.token);
    let body = json!({ "topic": "Growing tomatoes" });
    let asked = ann.request(Method::POST, "/blogs").json(&body);
    let asked = ann.send(asked.header("prefer", "wait=60"));
    let meanwhile = async {
        let post = loop {
            let list = away.get("/blogs").await.body;
            if let Some(post) = list["items"].get(0) {
                break away.get_post(post).await;
            }
        };
        // It waits by now. Whoever else comes from its address has one place.
        let address = app.url.strip_prefix("http://").unwrap().parse().unwrap();
        for _ in 0..4 {
            let mut silent = sending(1, address, HALF_A_HEAD).await;
            let _next = sending(1, address, HALF_A_HEAD).await;
            is_closed(&mut silent).await;
        }
        away.cancel(&post).await;
    };
    let (answer, ()) = tokio::join!(asked, meanwhile);
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.header("preference-applied"), "wait=60");
    assert_eq!(answer.body["job"]["status"], "canceled");
}

#[tokio::test]
async fn a_trusted_proxy_may_have_any_number_of_connections() {
    let settings = [
        "--max-connections-per-address=1",
        "--trusted-proxies=127.0.0.1",
    ];
    let app = TestApp::with(&settings).await;
    let address = app.url.strip_prefix("http://").unwrap().parse().unwrap();
    let head = "GET /health HTTP/1.1\r\nhost: here\r\nconnection: close\r\n";
    let mut proxy = Vec::new();
    for _ in 0..5 {
        proxy.push(sending(1, address, head).await);
    }
    let mut past = sending(2, address, head).await;
    let _next = sending(2, address, head).await;
    is_closed(&mut past).await;
    for mut connection in proxy {
        connection.write_all(b"\r\n").await.unwrap();
        let (text, _) = rest(&mut connection).await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
}

/// Nothing else makes the server read from it once more.
#[tokio::test]
async fn a_connection_that_is_idle_after_a_long_answer_is_closed_too() {
    let (address, _stop, _) = served().await;
    let slow = "GET /slow HTTP/1.1\r\nhost: here\r\n\r\n";
    let mut connection = sending(1, address, slow).await;
    read_until(&mut connection, "at last").await;
    is_closed(&mut connection).await;
}
