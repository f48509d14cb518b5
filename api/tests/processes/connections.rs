//! Very many connections over which nothing is asked.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use api::connections::raise_open_file_limit;
use reqwest::Method;
use testing::TestClient;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{Api, Process, Service};

/// How long `/health` may take, on a machine that has other tests to run.
const AT_ONCE: Duration = Duration::from_secs(3);

/// An API that can open so many files and no more.
async fn api_with_open_files(limit: &str, service: &Service) -> Api {
    let settings = &service.settings;
    let process = Process::start_with_open_files(limit, "api", service.path(), settings);
    Api::ready(process).await
}

/// A connection from 127.0.0.`number` with a request whose head is never whole.
async fn half_open(number: u8, api: &Api) -> TcpStream {
    let to: SocketAddr = api.url.strip_prefix("http://").unwrap().parse().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    let from = Ipv4Addr::new(127, 0, 0, number);
    socket.bind((from, 0).into()).unwrap();
    let mut connection = socket.connect(to).await.unwrap();
    let head = b"GET /health HTTP/1.1\r\nhost: here\r\nx-slowly: ";
    // It may be closed by now.
    let _ = connection.write_all(head).await;
    connection
}

/// A new connection is served at once, again and again.
async fn is_healthy(api: &Api) {
    for _ in 0..5 {
        let new = TestClient::anonymous(&api.url);
        let request = new.request(Method::GET, "//health").timeout(AT_ONCE);
        assert_eq!(new.send(request).await.status, 200);
    }
}

#[tokio::test]
async fn half_open_connections_from_one_address_block_nobody() {
    raise_open_file_limit().unwrap();
    let service = Service::new();
    let api = api_with_open_files("-n 1024", &service).await;
    let mut connections = Vec::new();
    for _ in 0..970 {
        connections.push(half_open(2, &api).await);
    }
    is_healthy(&api).await;
    // Not even who comes from there.
    let neighbour = reqwest::Client::builder().local_address(Some([127, 0, 0, 2].into()));
    let request = neighbour
        .build()
        .unwrap()
        .get(format!("{}/health", api.url));
    let answer = request.timeout(AT_ONCE).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    drop(connections);
    api.stop().await.assert_no_warnings();
}

#[tokio::test]
async fn half_open_connections_from_many_addresses_block_nobody() {
    let service = Service::new();
    let api = api_with_open_files("-n 128", &service).await;
    let mut connections = Vec::new();
    for number in 2..12 {
        for _ in 0..10 {
            connections.push(half_open(number, &api).await);
        }
    }
    is_healthy(&api).await;
}

#[tokio::test]
async fn as_many_files_may_be_opened_as_the_system_allows() {
    let service = Service::new();
    let api = api_with_open_files("-S -n 256", &service).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", api.id())).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let files: Vec<&str> = files.unwrap().split_whitespace().skip(3).collect();
    // None if there is no limit.
    let hard: Option<u64> = files[1].parse().ok();
    let expected = hard.unwrap_or(u64::MAX).min(65_536);
    assert_eq!(files[0], expected.to_string(), "{files:?}");
}
