//! Who gets in, and to what.

use std::time::Duration;

use entity::clock::{Timestamp, now};
use entity::user;
use reqwest::Method;
use ring::hmac;
use serde_json::{Value, json};
use testing::{PASSWORD, TIMEOUT, TestClient, TestResponse, text};
use uuid::Uuid;

use crate::support::{
    Route, SECRET, TestApp, decode_token, documented_routes, encode_part, forge_token, sign_token,
};

/// What is told to whoever sends this `Authorization`.
async fn with_header(app: &TestApp, value: impl Into<Vec<u8>>) -> TestResponse {
    let client = app.anonymous();
    let value = reqwest::header::HeaderValue::from_bytes(&value.into()).unwrap();
    let request = client.request(Method::GET, "/users/me");
    client.send(request.header("authorization", value)).await
}

fn assert_refused(answer: &TestResponse, code: &str) {
    answer.assert_error(401, code);
    assert_eq!(answer.header("www-authenticate"), "Bearer");
}

#[tokio::test]
async fn a_request_without_a_token_is_unauthenticated() {
    let app = TestApp::new().await;
    assert_refused(&app.anonymous().get("/users/me").await, "unauthenticated");
}

#[tokio::test]
async fn a_token_counts_only_as_a_bearer_token() {
    let app = TestApp::new().await;
    let token = app.user("ann").await.token;
    let basic = encode_part(format!("ann:{PASSWORD}").as_bytes());
    let bad = [
        token.clone(),
        format!("Basic {basic}"),
        format!("Basic {token}"),
        format!("Token {token}"),
        format!("Bearer{token}"),
        format!("Bearer,{token}"),
        format!("Bearer \"{token}\""),
        format!("Bearer Bearer {token}"),
        format!("Bearer {token}, Bearer {token}"),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        String::new(),
    ];
    for value in bad {
        assert_refused(&with_header(&app, value).await, "unauthenticated");
    }
    let bytes = [b"Bearer \xff\xfe".as_slice(), token.as_bytes()].concat();
    assert_refused(&with_header(&app, bytes).await, "unauthenticated");
    // The scheme's case does not matter (RFC 9110, 11.1).
    for good in ["Bearer", "bearer", "BEARER"] {
        let answer = with_header(&app, format!("{good} {token}")).await;
        answer.assert_status(200);
    }
    // A token in the address would end up in logs.
    let path = format!("/users/me?access_token={token}");
    assert_refused(&app.anonymous().get(&path).await, "unauthenticated");
}

#[tokio::test]
async fn a_token_that_was_changed_anywhere_is_refused() {
    let app = TestApp::new().await;
    let token = app.user("ann").await.token;
    let (header, claims) = decode_token(&token);
    let response = app
        .client_with_token(&sign_token(&claims))
        .get("/users/me")
        .await;
    response.assert_status(200);

    // Each sign of the last part is tried; of the others, some.
    let signature = token.rfind('.').unwrap() + 1;
    let tried = (0..signature).step_by(17).chain(signature..token.len());
    for place in tried {
        let mut changed = token.clone().into_bytes();
        changed[place] = match changed[place] {
            b'A' => b'B',
            _ => b'A',
        };
        let answer = with_header(&app, [b"Bearer ", changed.as_slice()].concat()).await;
        assert_refused(&answer, "unauthenticated");
    }
    let said = token.rsplit_once('.').unwrap().0;
    let none = encode_part(
        json!({ "typ": "JWT", "alg": "none" })
            .to_string()
            .as_bytes(),
    );
    let body = encode_part(claims.to_string().as_bytes());
    let forged = [
        "x".to_owned(),
        "a.b.c".to_owned(),
        "..".to_owned(),
        said.to_owned(),
        format!("{said}."),
        format!("{token}.{body}"),
        format!("{token}="),
        format!("{none}.{body}"),
        format!("{none}.{body}."),
        format!("{none}.{body}.{}", token.rsplit('.').next().unwrap()),
        forge_token(
            &header,
            &claims,
            hmac::HMAC_SHA256,
            "another secret, but as long as ours",
        ),
        forge_token(&header, &claims, hmac::HMAC_SHA256, ""),
        "x".repeat(7000),
    ];
    for token in forged {
        let answer = app.client_with_token(&token).get("/users/me").await;
        assert_refused(&answer, "unauthenticated");
    }
}

#[tokio::test]
async fn only_hs256_is_accepted_even_with_the_right_key() {
    let app = TestApp::new().await;
    let (_, claims) = decode_token(&app.user("ann").await.token);
    let others = [
        ("HS512", hmac::HMAC_SHA512),
        ("HS384", hmac::HMAC_SHA384),
        // What the header says is what must have been done.
        ("HS512", hmac::HMAC_SHA256),
        ("HS256", hmac::HMAC_SHA512),
        ("none", hmac::HMAC_SHA256),
        ("None", hmac::HMAC_SHA256),
        ("RS256", hmac::HMAC_SHA256),
        ("hs256", hmac::HMAC_SHA256),
    ];
    for (name, algorithm) in others {
        let token = forge_token(
            &json!({ "typ": "JWT", "alg": name }),
            &claims,
            algorithm,
            SECRET,
        );
        let answer = app.client_with_token(&token).get("/users/me").await;
        assert_refused(&answer, "unauthenticated");
    }
}

#[tokio::test]
async fn a_token_needs_our_issuer_our_audience_and_its_type() {
    let app = TestApp::new().await;
    let (_, good) = decode_token(&app.user("ann").await.token);
    let bad = [
        ("iss", json!("someone-else")),
        ("iss", Value::Null),
        ("aud", json!("someone-else")),
        ("aud", json!([])),
        ("typ", json!("refresh")),
        ("typ", json!("Access")),
        ("sub", json!("ann")),
        ("sub", Value::Null),
        ("sid", json!("1")),
        ("exp", json!("tomorrow")),
        ("exp", json!(-1)),
        ("nbf", json!(now().timestamp() + 600)),
    ];
    for (name, value) in bad {
        let mut claims = good.clone();
        claims[name] = value;
        let answer = app
            .client_with_token(&sign_token(&claims))
            .get("/users/me")
            .await;
        answer.assert_status(401);
    }
    for name in ["iss", "aud", "typ", "sub", "sid", "exp", "nbf"] {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        let answer = app
            .client_with_token(&sign_token(&claims))
            .get("/users/me")
            .await;
        assert_refused(&answer, "unauthenticated");
    }
}

#[tokio::test]
async fn a_token_is_good_for_its_own_user_and_session_only() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let (_, of_ann) = decode_token(&ann.token);
    let (_, of_bob) = decode_token(&bob.token);
    for (sub, sid) in [
        (&of_bob["sub"], &of_ann["sid"]),
        (&of_ann["sub"], &of_bob["sid"]),
        (&of_ann["sub"], &json!(Uuid::now_v7())),
    ] {
        let mut claims = of_ann.clone();
        claims["sub"] = sub.clone();
        claims["sid"] = sid.clone();
        let answer = app
            .client_with_token(&sign_token(&claims))
            .get("/users/me")
            .await;
        assert_refused(&answer, "session_revoked");
    }
}

#[tokio::test]
async fn a_token_expires_when_it_says_so() {
    let app = TestApp::with(&["--access-token-ttl-secs=1"]).await;
    let ann = app.user("ann").await;
    let (_, claims) = decode_token(&ann.token);
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        1
    );
    let expired = async {
        loop {
            let answer = ann.get("/users/me").await;
            if answer.status != 200 {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let answer = tokio::time::timeout(TIMEOUT, expired).await;
    assert_refused(&answer.expect("it never expires"), "token_expired");
    assert!(now().timestamp() >= claims["exp"].as_i64().unwrap());

    let pair = app.anonymous().refresh(&ann.refresh_token).await;
    assert_eq!(pair.body["expires_in"], 1);
    // Whether it had expired is told only of a token that we signed.
    let header = json!({ "typ": "JWT", "alg": "HS256" });
    let token = forge_token(
        &header,
        &claims,
        hmac::HMAC_SHA256,
        "another secret, but as long as ours",
    );
    assert_refused(
        &app.client_with_token(&token).get("/users/me").await,
        "unauthenticated",
    );
}

#[tokio::test]
async fn a_refresh_token_is_no_access_token() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let answer = app
        .client_with_token(&ann.refresh_token)
        .get("/users/me")
        .await;
    assert_refused(&answer, "unauthenticated");
}

#[tokio::test]
async fn a_disabled_account_is_kept_out_at_once() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    app.set_all(user::Column::DisabledAt, now()).await;
    let topic = json!({ "topic": "Growing tomatoes" });
    for answer in [
        ann.get("/users/me").await,
        ann.post("/blogs", topic).await,
        app.anonymous().login("ann", PASSWORD).await,
        app.anonymous().refresh(&ann.refresh_token).await,
    ] {
        answer.assert_error(403, "forbidden");
    }
    // Who does not know the password does not learn that it is disabled.
    let answer = app.anonymous().login("ann", "not the password").await;
    assert_refused(&answer, "invalid_credentials");

    // Once it is enabled again, the refresh that was refused can be made.
    let never = None::<Timestamp>;
    app.set_all(user::Column::DisabledAt, never).await;
    ann.get("/users/me").await.expect(200);
    let answer = app.anonymous().refresh(&ann.refresh_token).await;
    answer.assert_status(200);
}

#[tokio::test]
async fn every_route_but_a_few_is_closed_to_strangers() {
    let app = TestApp::new().await;
    let routes = documented_routes(&app).await;
    let (open, closed): (Vec<Route>, Vec<Route>) = routes.into_iter().partition(|r| r.is_public);
    let mut open: Vec<&str> = open.iter().map(|route| route.path.as_str()).collect();
    open.sort_unstable();
    let expected = [
        "/api/v1/users/login",
        "/api/v1/users/refresh",
        "/api/v1/users/register",
        "/health",
        "/metrics",
        "/ready",
    ];
    assert_eq!(open, expected);
    let id = Uuid::now_v7().to_string();
    for route in closed {
        // Neither what they send nor what they ask for makes a difference.
        for client in [app.anonymous(), app.client_with_token("nonsense")] {
            let request = client.request(route.method.clone(), &route.path(&id));
            let answer = client.send(request).await;
            assert_refused(&answer, "unauthenticated");
            let request = client.request(route.method.clone(), &route.path("x"));
            let answer = client.send(request.body("{")).await;
            assert_refused(&answer, "unauthenticated");
        }
    }
}

/// What somebody gets who asks for a thing, but for the request's own id.
async fn told(client: &TestClient, route: &Route, id: &str) -> (u16, Vec<String>, Value) {
    let request = client.request(route.method.clone(), &route.path(id));
    let request = match route.method {
        Method::PUT | Method::PATCH => request.json(&route.some_body()),
        _ => request,
    };
    let mut answer = client.send(request).await;
    answer.body["request_id"] = Value::Null;
    let mut headers: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
    headers.sort_unstable();
    (answer.status, headers, answer.body)
}

#[tokio::test]
async fn a_resource_of_another_user_looks_like_a_missing_one() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let ready = ann.create_post("Growing tomatoes").await;
    app.run_jobs().await;
    let waiting = ann.create_post("Growing basil").await;
    let before = [ann.get_post(&ready).await, ann.get_post(&waiting).await];
    let session = ann.get("/users/me/sessions").await.expect(200);
    let session = text(&session["items"][0]["id"]);
    let key = json!({ "name": "deploy", "scopes": ["read"] });
    let key = text(&ann.post("/users/me/keys", key).await.expect(201)["id"]);

    let mut tried = 0;
    for route in documented_routes(&app).await {
        if !route.path.contains('{') {
            continue;
        }
        let things = match route.path.as_str() {
            path if path.starts_with("/api/v1/blogs/{id}") => {
                [&ready, &waiting].map(|post| text(&post["id"])).to_vec()
            }
            path if path.starts_with("/api/v1/jobs/{id}") => [&ready, &waiting]
                .map(|post| text(&post["job"]["id"]))
                .to_vec(),
            "/api/v1/users/me/sessions/{id}" => vec![session.clone()],
            "/api/v1/users/me/keys/{id}" => vec![key.clone()],
            // They belong to no one, and are closed to both.
            path if path.starts_with("/api/v1/admin/") => continue,
            path => panic!("whose are the ids of {path}?"),
        };
        let nothing = told(&bob, &route, &Uuid::now_v7().to_string()).await;
        assert_eq!((nothing.0, &nothing.2["code"]), (404, &json!("not_found")));
        for id in things {
            assert_eq!(told(&bob, &route, &id).await, nothing, "{route:?}");
            tried += 1;
        }
    }
    assert!(tried > 12, "only {tried}");
    assert_eq!(
        [ann.get_post(&ready).await, ann.get_post(&waiting).await],
        before
    );
    assert_eq!(bob.get("/blogs").await.expect(200)["items"], json!([]));
    assert_eq!(bob.get("/jobs").await.expect(200)["items"], json!([]));
    app.run_jobs().await;
}
