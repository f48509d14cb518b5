//! Several APIs, and one who guesses passwords at all of them.

use futures_util::future::join_all;
use serde_json::json;
use testing::TestClient;

use crate::support::Service;

#[tokio::test]
async fn guesses_at_several_apis_get_no_more_tries_than_at_one() {
    let service = Service::new();
    let apis = [service.api().await, service.api().await];
    // Made before: while one is made the others can't send, and connections on which nothing comes
    // are closed.
    let clients = apis.iter().cycle().take(64);
    let clients: Vec<TestClient> = clients.map(|api| TestClient::anonymous(&api.url)).collect();
    let guesses = clients.iter().map(async |client| {
        let body = json!({ "username": "nobody", "password": "not the password" });
        client.post("/users/login", body).await.status
    });
    let statuses = join_all(guesses).await;
    let tried = statuses.iter().filter(|status| **status == 401).count();
    // On a slow machine delays may be over before the last has come.
    assert!((5..=8).contains(&tried), "{statuses:?}");
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert_eq!(tried + refused, 64, "{statuses:?}");
    for api in apis {
        api.stop().await.assert_no_warnings();
    }
}
