//! Clients whose requests come through a proxy.

use reqwest::{Method, RequestBuilder};
use serde_json::json;
use testing::{PASSWORD, TestClient};

use crate::support::TestApp;

/// The tests' clients are the proxy, and speak for others.
const PROXY: &str = "--trusted-proxies=192.0.2.1,127.0.0.1/32";

/// A client's request, as the proxy passes it on.
fn on_behalf_of(address: &str, request: RequestBuilder) -> RequestBuilder {
    // What the client has written there itself comes first.
    let told = format!("203.0.113.99, {address}");
    request.header("x-forwarded-for", told)
}

fn login(through: &TestClient, password: &str) -> RequestBuilder {
    let body = json!({ "username": "ann", "password": password });
    through.request(Method::POST, "/users/login").json(&body)
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_have_a_limit_each() {
    let app = TestApp::with(&[PROXY, "--rate-limit-per-minute=2"]).await;
    let proxy = app.anonymous();
    let ask = async |address: &str| {
        let request = proxy.request(Method::GET, "/models");
        proxy.send(on_behalf_of(address, request)).await.status
    };
    for address in ["198.51.100.1", "198.51.100.2", "2001:db8::1"] {
        let statuses = [ask(address).await, ask(address).await, ask(address).await];
        assert_eq!(statuses, [401, 401, 429], "{address}");
    }
    // A neighbour in the same network of IPv6.
    assert_eq!(ask("2001:db8::2").await, 429);
}

#[tokio::test]
async fn a_client_that_bypasses_the_proxy_has_its_own_address() {
    let app = TestApp::with(&[PROXY, "--rate-limit-per-minute=2"]).await;
    let past = app.client_from_ip(2);
    let mut statuses = Vec::new();
    for address in ["198.51.100.1", "198.51.100.2", "198.51.100.3"] {
        let request = past.request(Method::GET, "/models");
        statuses.push(past.send(on_behalf_of(address, request)).await.status);
    }
    assert_eq!(statuses, [401, 401, 429]);
}

#[tokio::test]
async fn guessing_behind_a_proxy_delays_the_guesser_and_not_the_owner() {
    let app = TestApp::with(&[PROXY]).await;
    let ann = app.admin("ann").await;
    let proxy = app.anonymous();
    let at_home = async |password| {
        let request = on_behalf_of("198.51.100.1", login(&proxy, password));
        proxy.send(request).await
    };
    at_home(PASSWORD).await.expect(200);
    // The sixth begins to wait, and each further one for longer.
    let mut refused = None;
    for _ in 0..10 {
        let request = on_behalf_of("198.51.100.2", login(&proxy, "a wrong guess"));
        let answer = proxy.send(request).await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
    }
    assert_eq!(refused.expect("nobody waits").code(), "rate_limited");
    at_home(PASSWORD).await.expect(200);

    let sessions = ann.get("/users/me/sessions").await;
    assert!(sessions.text.contains("\"198.51.100.1\""), "{sessions:?}");
    let trail = ann.get("/admin/audit").await;
    assert_eq!(trail.body["items"][0]["action"], "login_failed");
    assert_eq!(trail.body["items"][0]["address"], "198.51.100.2");
    assert!(!trail.text.contains("203.0.113.99"), "{trail:?}");
}
