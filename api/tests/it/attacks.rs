//! What somebody would try who wants in, or wants what is not theirs. Routes are
//! those of the OpenAPI document, so that new ones are tried as well.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use entity::login_throttle;
use reqwest::{Method, RequestBuilder};
use ring::hmac;
use sea_orm::EntityTrait;
use serde_json::{Map, Value, json};
use testing::{PASSWORD, TestClient, post_path, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::support::{Route, SECRET, TestApp, decode_token, documented_routes, forge_token};

const WRONG: &str = "not the password";

/// All that is answered to these bytes, until the connection is closed.
async fn raw(app: &TestApp, sent: &str) -> String {
    let address = app.url.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(sent.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    let read = connection.read_to_end(&mut answers);
    let read = tokio::time::timeout(Duration::from_secs(10), read).await;
    // It may be reset, for what was not read.
    let _ = read.expect("the connection stays open");
    String::from_utf8(answers).unwrap()
}

/// The statuses of raw answers.
fn statuses(answers: &str) -> Vec<&str> {
    let rest = answers.split("HTTP/1.1 ").skip(1);
    rest.map(|answer| &answer[..3]).collect()
}

/// The id that a route is about, of things that are all somebody's own.
fn id_for<'a>(route: &Route, post: &'a Value, session: &'a Value) -> &'a str {
    let id = match route.path.as_str() {
        path if path.starts_with("/api/v1/blogs/") => &post["id"],
        path if path.starts_with("/api/v1/jobs/") => &post["job"]["id"],
        path if path.starts_with("/api/v1/users/") => &session["id"],
        _ => &Value::Null,
    };
    id.as_str()
        .unwrap_or("01900000-0000-7000-8000-000000000000")
}

async fn session(client: &TestClient) -> Value {
    client.get("/users/me/sessions").await.items().remove(0)
}

#[tokio::test]
async fn an_ended_session_opens_no_route() {
    let app = TestApp::new().await;
    let root = app.admin("the_first").await;
    // All could do everything until a moment ago.
    let mut over = Vec::new();
    for name in ["ann", "bob", "cay", "dan"] {
        over.push(app.admin(name).await);
    }
    let [out, changed, disabled, deleted] = &over[..] else {
        panic!("one for each way to end");
    };
    out.post_empty("/users/logout").await.expect(204);
    let elsewhere = app.login(&changed.name).await;
    let change = elsewhere.change_password(PASSWORD, "another horse").await;
    change.assert_status(204);
    app.update_user(&root, &disabled.name, json!({ "disabled": true }))
        .await;
    deleted.delete_account(PASSWORD).await.expect(204);

    let id = Uuid::now_v7().to_string();
    let routes = documented_routes(&app).await;
    for route in routes.iter().filter(|route| !route.is_public) {
        for client in &over {
            let request = client.request(route.method.clone(), &route.path(&id));
            let answer = client.send(request.json(&json!({}))).await;
            answer.assert_error(401, "session_revoked");
            if route.method == Method::GET {
                let head = client.request(Method::HEAD, &route.path(&id)).send().await;
                assert_eq!(head.unwrap().status(), 401, "{route:?}");
            }
        }
    }
    for client in &over {
        let answer = app.anonymous().refresh(&client.refresh_token).await;
        answer.assert_status(401);
    }
}

#[tokio::test]
async fn no_answer_tells_anything_of_somebody_else() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.user("annabella").await, app.user("bob").await);
    let theirs = ann.create_post("Growing artichokes").await;
    let own = bob.create_post("Growing basil").await;
    app.run_jobs().await;
    let me = ann.get("/users/me").await.expect(200);
    let [of_ann, of_bob] = [session(&ann).await, session(&bob).await];
    let secrets = [
        &me["id"],
        &theirs["id"],
        &theirs["job"]["id"],
        &of_ann["id"],
    ];
    let mut secrets: Vec<String> = secrets.map(text).into();
    secrets.extend(["annabella", "artichokes", "$argon2"].map(str::to_owned));

    let mut answered = 0;
    for route in documented_routes(&app).await {
        if route.method != Method::GET {
            continue;
        }
        let path = route.path(id_for(&route, &own, &of_bob));
        let owner = format!("{path}?user_id={}", secrets[0]);
        for path in [&path, &owner] {
            let answer = bob.get(path).await;
            answered += usize::from(answer.status == 200);
            // What was asked for may be told again.
            let told = answer.text.replace(path.as_str(), "");
            for secret in &secrets {
                assert!(!told.contains(secret), "{path} tells {secret}: {told}");
            }
        }
    }
    assert!(answered >= 10, "only {answered}");
}

#[tokio::test]
async fn an_admin_cannot_read_the_posts_of_others() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.admin("ann").await, app.user("bob").await);
    let post = bob.create_post("Growing artichokes").await;
    app.run_jobs().await;
    let of_bob = session(&bob).await;
    let before = bob.get_post(&post).await;
    for route in documented_routes(&app).await {
        if route.is_for_admins() || !route.path.contains('{') {
            continue;
        }
        let path = route.path(id_for(&route, &post, &of_bob));
        let request = ann.request(route.method.clone(), &path);
        let request = match route.method {
            Method::PUT | Method::PATCH => request.json(&route.some_body()),
            _ => request,
        };
        ann.send(request).await.assert_error(404, "not_found");
    }
    assert_eq!(bob.get_post(&post).await, before);
    assert_eq!(session(&bob).await["id"], of_bob["id"]);
    // Nor do the lists for admins tell what was written.
    let words = text(&before["content"]);
    for list in ["/admin/jobs", "/admin/users", "/admin/audit"] {
        let page = ann.get(list).await;
        assert!(!page.text.contains(&words[..40]), "{page:?}");
    }
}

#[tokio::test]
async fn no_route_accepts_internal_fields() {
    let app = TestApp::new().await;
    let ann = app.admin("ann").await;
    let own = ann.create_post("Growing tomatoes").await;
    app.run_jobs().await;
    let before = [
        ann.get_post(&own).await,
        ann.get("/users/me").await.expect(200),
        ann.get("/admin/users").await.expect(200),
    ];
    let inside = [
        "id",
        "user_id",
        "owner",
        "author",
        "username",
        "username_key",
        "role",
        "is_admin",
        "disabled",
        "disabled_at",
        "password_hash",
        "created_at",
        "updated_at",
        "version",
        "status",
        "attempt",
        "max_attempts",
        "security_question",
        "password_hint",
        "__proto__",
    ];
    let mut tried = 0;
    for route in documented_routes(&app).await {
        let Some(known) = &route.fields else { continue };
        let foreign = inside
            .iter()
            .filter(|name| !known.iter().any(|k| k == *name));
        let body: Map<String, Value> = foreign
            .clone()
            .map(|name| ((*name).to_owned(), json!("admin")))
            .collect();
        let path = route.path(id_for(&route, &own, &Value::Null));
        let request = ann.request(route.method.clone(), &path).json(&body);
        let answer = ann.send(request).await;
        answer.assert_status(422);
        let faults = answer.field_errors();
        for name in foreign {
            let fault = format!("{name}: unknown_field");
            assert!(faults.contains(&fault), "{route:?}: no {fault}");
        }
        tried += 1;
    }
    assert!(tried >= 10, "only {tried}");
    let after = [
        ann.get_post(&own).await,
        ann.get("/users/me").await.expect(200),
        ann.get("/admin/users").await.expect(200),
    ];
    assert_eq!(after, before);
}

#[tokio::test]
async fn no_answer_can_be_read_by_another_site() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    for (method, path) in [
        (Method::GET, "/users/me"),
        (Method::OPTIONS, "/users/refresh"),
    ] {
        let request = ann
            .request(method, path)
            .header("origin", "https://elsewhere.example")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "x-requested-with");
        let answer = request.send().await.unwrap();
        let lets_in = |name: &str| name.starts_with("access-control-");
        assert!(!answer.headers().keys().any(|name| lets_in(name.as_str())));
    }
}

#[tokio::test]
async fn no_header_changes_the_user_or_the_method_of_a_request() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.admin("ann").await, app.user("bob").await);
    let own = bob.create_post("Growing tomatoes").await;
    app.run_jobs().await;
    let id_of_ann = app.id_of("ann").await;
    let cookie = format!("access_token={0}; token={0}; session={0}", ann.token);
    let tampered = |method: Method, path: &str| {
        let mut request = bob.request(method, path).header("cookie", &cookie);
        for name in ["x-user", "x-remote-user", "x-forwarded-user", "x-username"] {
            request = request.header(name, "ann");
        }
        for name in ["x-user-id", "x-account-id"] {
            request = request.header(name, &id_of_ann);
        }
        for name in ["x-role", "x-user-role", "x-admin", "x-is-admin"] {
            request = request.header(name, "admin");
        }
        for name in [
            "x-http-method-override",
            "x-http-method",
            "x-method-override",
        ] {
            request = request.header(name, "DELETE");
        }
        for name in ["x-original-url", "x-rewrite-url", "x-forwarded-prefix"] {
            request = request.header(name, "/api/v1/admin/users");
        }
        for name in ["host", "x-forwarded-host", "x-host"] {
            request = request.header(name, "localhost.admin.internal");
        }
        for name in ["x-forwarded-for", "x-real-ip", "forwarded"] {
            request = request.header(name, "127.0.0.1");
        }
        let proxied = request.header("x-forwarded-proto", "https");
        proxied.header("x-access-token", &ann.token)
    };
    let me = bob.get("/users/me").await.expect(200);
    let send = async |method, path: &str| bob.send(tampered(method, path)).await;
    assert_eq!(send(Method::GET, "/users/me").await.body, me);
    // Neither is bob's post deleted, nor made by a GET.
    let path = post_path(&own);
    let post = send(Method::GET, &path).await;
    post.assert_fields(200, json!({ "id": own["id"] }));
    let list = send(Method::GET, "/blogs?limit=1&_method=DELETE").await;
    list.assert_error(400, "malformed_query");
    bob.get(&path).await.expect(200);
    for route in documented_routes(&app).await {
        if route.is_for_admins() {
            let path = route.path(&id_of_ann);
            let answer = send(route.method.clone(), &path).await;
            answer.assert_error(403, "forbidden");
        }
    }
    // Of links, none leads where a header says.
    let another = bob.create_post("Growing basil").await;
    let page = send(Method::GET, "/blogs?limit=1").await;
    assert!(page.header("link").starts_with("</api/v1/blogs?limit=1&"));
    assert!(!format!("{page:?}").contains("internal"), "{page:?}");
    app.run_jobs().await;
    assert_eq!(bob.get_post(&another).await["status"], "ready");
}

/// A request that claims to come from elsewhere, in every way that proxies know.
fn from_elsewhere(request: RequestBuilder, address: &str) -> RequestBuilder {
    let names = [
        "x-forwarded-for",
        "x-real-ip",
        "true-client-ip",
        "cf-connecting-ip",
    ];
    let forwarded = request.header("forwarded", format!("for={address}"));
    let claim = |request: RequestBuilder, name| request.header(name, address);
    names.into_iter().fold(forwarded, claim)
}

#[tokio::test]
async fn forwarded_headers_of_a_client_do_not_change_its_address() {
    let app = TestApp::new().await;
    let ann = app.admin("ann").await;
    let stranger = app.client_from_ip(2);
    let mut statuses = Vec::new();
    for number in 1..=6 {
        let password = if number == 1 { PASSWORD } else { WRONG };
        let body = json!({ "username": "ann", "password": password });
        let request = stranger.request(Method::POST, "/users/login").json(&body);
        let request = from_elsewhere(request, &format!("192.0.2.{number}"));
        statuses.push(stranger.send(request).await.status);
    }
    assert_eq!(statuses, [200, 401, 401, 401, 401, 401]);
    let body = json!({ "username": "ann", "password": WRONG });
    let request = stranger.request(Method::POST, "/users/login").json(&body);
    // All were counted together; on a slow machine the wait may be over already.
    let answer = stranger.send(from_elsewhere(request, "192.0.2.7")).await;
    assert!([401, 429].contains(&answer.status), "{answer:?}");
    let counted = login_throttle::Entity::find().all(app.db.read()).await;
    let failures: Vec<i32> = counted.unwrap().iter().map(|row| row.failures).collect();
    assert_eq!(failures.iter().filter(|failures| **failures > 0).count(), 1);

    let sessions = ann.get("/users/me/sessions").await.expect(200);
    assert_eq!(sessions["items"][0]["ip"], "127.0.0.2");
    let trail = ann.get("/admin/audit").await;
    assert!(!trail.text.contains("192.0.2."), "{trail:?}");
    assert_eq!(trail.body["items"][0]["action"], "login_failed");
    assert_eq!(trail.body["items"][0]["address"], "127.0.0.2");
}

#[tokio::test]
async fn forwarded_headers_of_a_client_do_not_evade_the_rate_limit() {
    let app = TestApp::with(&["--rate-limit-per-minute=4"]).await;
    let client = app.anonymous();
    let mut statuses = Vec::new();
    for number in 1..=5 {
        let request = client.request(Method::GET, "/models");
        let request = from_elsewhere(request, &format!("192.0.2.{number}"));
        statuses.push(client.send(request).await.status);
    }
    assert_eq!(statuses, [401, 401, 401, 401, 429]);
}

#[tokio::test]
async fn a_request_with_two_tokens_is_unauthenticated() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let good = format!("Bearer {}", ann.token);
    let other = format!("Bearer {}", bob.token);
    for second in [&good, &other, "Bearer nonsense", "Basic YW5uOmFubg==", ""] {
        for [first, second] in [[good.as_str(), second], [second, good.as_str()]] {
            let request = app.anonymous().request(Method::GET, "/users/me");
            let request = request.header("authorization", first);
            let answer = ann.send(request.header("authorization", second)).await;
            answer.assert_error(401, "unauthenticated");
        }
    }
}

#[tokio::test]
async fn a_key_in_or_named_by_a_token_is_not_used() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let (_, claims) = decode_token(&ann.token);
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", elsewhere.local_addr().unwrap());
    let secret = "a key that somebody else has made up";
    let key = BASE64_URL_SAFE_NO_PAD.encode(secret);
    let jwk = json!({ "kty": "oct", "alg": "HS256", "kid": "1", "k": key });
    let named = [
        json!({ "jwk": jwk }),
        json!({ "jwk": jwk, "kid": "1" }),
        json!({ "jku": url, "kid": "1" }),
        json!({ "x5u": url }),
        json!({ "x5c": [key] }),
        json!({ "kid": "../../../dev/null" }),
        json!({ "kid": "' UNION SELECT 'x" }),
        json!({ "crit": ["exp"] }),
        json!({ "b64": false, "crit": ["b64"] }),
    ];
    for fields in named {
        let mut header = json!({ "typ": "JWT", "alg": "HS256" });
        let fields = fields.as_object().unwrap().clone();
        header.as_object_mut().unwrap().extend(fields);
        for secret in [secret, ""] {
            let token = forge_token(&header, &claims, hmac::HMAC_SHA256, secret);
            let answer = app.client_with_token(&token).get("/users/me").await;
            answer.assert_error(401, "unauthenticated");
        }
    }
    // Nobody was asked for a key.
    let asked = tokio::time::timeout(Duration::ZERO, elsewhere.accept()).await;
    assert!(asked.is_err());
}

#[tokio::test]
async fn a_token_or_cursor_is_good_for_its_own_purpose_only() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    ann.create_post("Growing tomatoes").await;
    ann.create_post("Growing basil").await;
    let page = ann.get("/blogs?limit=1").await.expect(200);
    let cursor = text(&page["next_cursor"]);
    let (_, mut claims) = decode_token(&ann.token);
    claims["typ"] = json!("cursor");
    let header = json!({ "typ": "JWT", "alg": "HS256" });
    let other = forge_token(&header, &claims, hmac::HMAC_SHA256, SECRET);
    for token in [&ann.refresh_token, &cursor, &other] {
        let answer = app.client_with_token(token).get("/users/me").await;
        answer.assert_error(401, "unauthenticated");
    }
    for token in [&ann.token, &cursor, &other] {
        let answer = app.anonymous().refresh(token).await;
        answer.assert_error(401, "unauthenticated");
    }
    for token in [&ann.token, &ann.refresh_token, &other] {
        let answer = ann.get(&format!("/blogs?cursor={token}")).await;
        answer.assert_error(400, "invalid_cursor");
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn a_cursor_is_good_for_nobody_else_and_for_no_other_list() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.admin("ann").await, app.admin("bob").await);
    let mut posts = Vec::new();
    for client in [&ann, &bob] {
        client.create_post("Growing tomatoes").await;
        posts.push(client.create_post("Growing basil").await);
    }
    app.run_jobs().await;
    for (client, post) in [&ann, &bob].into_iter().zip(&posts) {
        let edit = json!({ "content": "Mine." });
        client.put(&post_path(post), edit).await.expect(200);
    }
    let routes = documented_routes(&app).await;
    let lists = |post: &Value| -> Vec<String> {
        let paged = routes.iter().filter(|route| route.is_paged);
        paged.map(|route| route.path(&text(&post["id"]))).collect()
    };
    let (of_ann, of_bob) = (lists(&posts[0]), lists(&posts[1]));
    assert!(of_ann.len() >= 6, "{of_ann:?}");
    for of in &of_ann {
        let page = ann.get(&format!("{of}?limit=1")).await.expect(200);
        let cursor = text(&page["next_cursor"]);
        for (list, of_bob) in of_ann.iter().zip(&of_bob) {
            let expected = if list == of { 200 } else { 400 };
            let path = format!("{list}?limit=1&cursor={cursor}");
            ann.get(&path).await.expect(expected);
            let path = format!("{of_bob}?limit=1&cursor={cursor}");
            bob.get(&path).await.assert_error(400, "invalid_cursor");
        }
        for length in 0..cursor.len() {
            let path = format!("{of}?cursor={}", &cursor[..length]);
            ann.get(&path).await.assert_error(400, "invalid_cursor");
        }
    }
}

#[tokio::test]
async fn a_path_in_another_spelling_is_not_found() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.admin("ann").await, app.user("bob").await);
    let get = async |client: &TestClient, path: &str| {
        let token = &client.token;
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {token}\r\n\
             connection: close\r\n\r\n"
        );
        raw(&app, &head).await
    };
    for path in [
        "/api/v1/admin/users/",
        "/api/v1/admin//users",
        "/api/v1//admin/users",
        "//api/v1/admin/users",
        "/api/v1/./admin/users",
        "/api/v1/x/../admin/users",
        "/api/v1/blogs/../admin/users",
        "/api/v1/admin/%75sers",
        "/api/v1/%61dmin/users",
        "/api/v1/admin%2Fusers",
        "/api/v1/admin\\users",
        "/api/v1/admin/users;x=1",
        "/api/v1/admin/users%00",
        "/api/v1/admin/users%20",
        "/api/v1/admin/users.json",
        "/api/v1/Admin/Users",
        "/API/V1/admin/users",
        "/docs/../api/v1/admin/users",
    ] {
        for client in [&ann, &bob] {
            let answer = get(client, path).await;
            assert!(
                ["400", "404"].contains(&statuses(&answer)[0]),
                "{path}: {answer}"
            );
        }
    }
    // One that names a host is the same route, and as closed.
    let absolute = "http://elsewhere.internal/api/v1/admin/users";
    assert_eq!(statuses(&get(&ann, absolute).await), ["200"]);
    assert_eq!(statuses(&get(&bob, absolute).await), ["403"]);
}

#[tokio::test]
async fn no_request_can_be_smuggled() {
    let app = TestApp::new().await;
    let hidden = "GET /api/v1/openapi.json HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
    let post = |head: &str, body: &str| {
        format!("POST /api/v1/users/refresh HTTP/1.1\r\nhost: here\r\n{head}\r\n{body}{hidden}")
    };
    // Chunks count and a length beside them does not, whichever comes first; and
    // what follows is not read, in case somebody on the way took it otherwise.
    let length = format!("content-length: {}\r\n", hidden.len() + 5);
    let chunked = "transfer-encoding: chunked\r\n";
    for head in [format!("{length}{chunked}"), format!("{chunked}{length}")] {
        let answers = raw(&app, &post(&head, "0\r\n\r\n")).await;
        assert_eq!(statuses(&answers), ["401"], "{head}");
    }
    for (head, body) in [(chunked, "0\r\n\r\n"), ("content-length: 2\r\n", "{}")] {
        let head = format!("{head}content-type: application/json\r\n");
        let answers = raw(&app, &post(&head, body)).await;
        let first = if body == "{}" { "401" } else { "400" };
        assert_eq!(statuses(&answers), [first, "200"], "{head}");
    }

    // What could be read in two ways is not read at all, nor what follows it.
    for head in [
        "content-length: 0\r\ncontent-length: 5\r\n",
        "content-length: 0, 5\r\n",
        "content-length: +5\r\n",
        "content-length: -1\r\n",
        "content-length: 0x5\r\n",
        "content-length: 5 5\r\n",
        "content-length: 18446744073709551616\r\n",
        "content-length : 5\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding : chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "x: \0\r\n",
        "x: a\r\n b\r\n",
    ] {
        let answers = raw(&app, &post(head, "0\r\n\r\n")).await;
        assert_eq!(statuses(&answers), ["400"], "{head:?}");
    }
    for chunks in [
        "zz\r\n",
        "-1\r\n",
        "fffffffffffffffff\r\n",
        "1\r\nxx\r\n0\r\n\r\n",
    ] {
        let head = format!("{chunked}content-type: application/json\r\n");
        let answers = raw(&app, &post(&head, chunks)).await;
        assert_eq!(statuses(&answers), ["400"], "{chunks:?}");
    }
    // There were no chunks in version 1.0.
    let old = post(chunked, "0\r\n\r\n").replace("refresh HTTP/1.1", "refresh HTTP/1.0");
    let answers = raw(&app, &old).await;
    assert_eq!(answers.split("HTTP/1").count(), 2, "{answers}");
    assert!(answers[8..].starts_with(" 400"), "{answers}");
}

#[tokio::test]
async fn no_route_sends_a_request_elsewhere() {
    let app = TestApp::new().await;
    let id = Uuid::now_v7();
    for route in documented_routes(&app).await {
        let (method, path) = (&route.method, route.path.replace("{id}", &id.to_string()));
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: here\r\nx-forwarded-proto: http\r\n\
             forwarded: proto=http\r\nupgrade-insecure-requests: 1\r\nconnection: close\r\n\r\n"
        );
        let answer = raw(&app, &head).await;
        assert!(
            !statuses(&answer)[0].starts_with('3'),
            "{route:?}: {answer}"
        );
        assert!(!answer.to_lowercase().contains("\r\nlocation:"), "{answer}");
    }
}

#[tokio::test]
async fn each_login_creates_a_new_session() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    // Whatever session one comes with, one gets a new one, of one's own.
    let answer = bob.login("ann", PASSWORD).await;
    let new = app.client_with_token(&text(&answer.body["access_token"]));
    let [of_ann, of_bob, of_new] = [&ann, &bob, &new].map(|client| decode_token(&client.token).1);
    assert_eq!(of_new["sub"], of_ann["sub"]);
    assert_ne!(of_new["sid"], of_ann["sid"]);
    assert_ne!(of_new["sid"], of_bob["sid"]);
    let body = json!({ "username": "ann", "password": PASSWORD, "sid": of_bob["sid"] });
    let answer = app.anonymous().post("/users/login", body).await;
    answer.assert_field_errors(&["sid: unknown_field"]);
}
