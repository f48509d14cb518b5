//! Requests that are wrong. Each is refused with the contract's words, and
//! leaves nothing behind.

use entity::{attempt, idempotency, job, post, refresh_token, session, step, user};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use testing::{PASSWORD, TestClient, TestResponse, job_path, post_path, text};
use uuid::Uuid;

use crate::support::TestApp;

/// How many rows each table has.
async fn rows(app: &TestApp) -> [u64; 9] {
    [
        app.count(user::Entity).await,
        app.count(session::Entity).await,
        app.count(refresh_token::Entity).await,
        app.count(post::Entity).await,
        app.count(job::Entity).await,
        app.count(attempt::Entity).await,
        app.count(step::Entity).await,
        app.count(idempotency::Entity).await,
        app.count_deliveries().await.try_into().unwrap(),
    ]
}

/// Sends a request that is refused with this status and code, and changes
/// nothing.
async fn refused(app: &TestApp, request: RequestBuilder, status: u16, code: &str) -> TestResponse {
    let before = rows(app).await;
    let shown = format!("{request:?}");
    let answer = app.anonymous().send(request).await;
    answer.assert_error(status, code);
    assert_eq!(answer.body["type"], "about:blank");
    for words in ["title", "detail"] {
        assert!(!text(&answer.body[words]).is_empty(), "{answer:?}");
    }
    assert_eq!(
        answer.body["errors"].is_array(),
        code == "validation_failed"
    );
    assert_eq!(rows(app).await, before, "{shown}");
    answer
}

/// As [`refused`], of a body whose fields are at fault.
async fn faulty(app: &TestApp, request: RequestBuilder, faults: &[&str]) {
    let answer = refused(app, request, 422, "validation_failed").await;
    assert_eq!(answer.field_errors(), faults);
}

/// A post asked for with this body, whatever it is.
fn raw(client: &TestClient, body: impl Into<reqwest::Body>) -> RequestBuilder {
    let request = client.request(Method::POST, "/blogs");
    request
        .header("content-type", "application/json")
        .body(body)
}

fn asking(client: &TestClient, body: &Value) -> RequestBuilder {
    client.request(Method::POST, "/blogs").json(body)
}

fn asking_with(client: &TestClient, options: &Value) -> RequestBuilder {
    asking(
        client,
        &json!({ "topic": "Growing tomatoes", "options": options }),
    )
}

#[tokio::test]
async fn a_body_that_is_no_json_is_refused() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let bad = [
        "",
        " ",
        "{",
        "topic=Growing+tomatoes",
        r#"{"topic": "Growing tomatoes",}"#,
        r#"{"topic": 'Growing tomatoes'}"#,
        r#"{"topic": "Growing tomatoes"} {}"#,
        r#"{"topic": "Growing tomatoes"}, "#,
        r#"{"topic": "Growing \x tomatoes"}"#,
        r#"{"topic": NaN}"#,
        r#"{"topic": "half of a pair: \ud83e"}"#,
        "{\"topic\": \"a raw\nline end\"}",
        "\u{feff}{\"topic\": \"Growing tomatoes\"}",
        r#"{"topic": "Growing tomatoes", "options": {"words": 1e999}}"#,
        &"[".repeat(100_000),
        &r#"{"options":"#.repeat(1000),
    ];
    for body in bad {
        refused(&app, raw(&ann, body.to_owned()), 400, "malformed_json").await;
    }
}

#[tokio::test]
async fn a_body_in_another_encoding_than_utf_8_is_refused() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let latin_1 = b"{\"topic\": \"Growing t\xf6matoes\"}".to_vec();
    let utf_16: Vec<u8> = "{\"topic\": \"Growing tomatoes\"}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let overlong = b"{\"topic\": \"Growing \xc0\xaf tomatoes\"}".to_vec();
    let surrogate = b"{\"topic\": \"Growing \xed\xa0\x80 tomatoes\"}".to_vec();
    for body in [latin_1, utf_16, overlong, surrogate] {
        refused(&app, raw(&ann, body), 400, "malformed_json").await;
    }
}

#[tokio::test]
async fn a_body_that_is_no_object_is_refused() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    for body in ["[]", "null", "true", "1", "\"Growing tomatoes\""] {
        let missing = [": invalid_type", "topic: required"];
        faulty(&app, raw(&ann, body), &missing).await;
    }
    for options in [json!([]), json!("short"), json!(7), json!(false)] {
        let fault = ["options: invalid_type"];
        faulty(&app, asking_with(&ann, &options), &fault).await;
    }
}

#[tokio::test]
async fn fields_of_the_wrong_type_are_reported_by_their_names() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    for topic in [json!(1), json!(true), json!(["Growing"]), json!({})] {
        let request = asking(&ann, &json!({ "topic": topic }));
        faulty(&app, request, &["topic: invalid_type"]).await;
    }
    let options = json!({
        "tone": 1, "audience": [], "language": {}, "words": "300",
        "keywords": "basil", "instructions": true, "model": 1,
    });
    let faults = [
        "options.tone: invalid_type",
        "options.audience: invalid_type",
        "options.language: invalid_type",
        "options.words: invalid_type",
        "options.keywords: invalid_type",
        "options.instructions: invalid_type",
        "options.model: invalid_type",
    ];
    faulty(&app, asking_with(&ann, &options), &faults).await;
    for keywords in [json!([1]), json!(["basil", null]), json!([["basil"]])] {
        let request = asking_with(&ann, &json!({ "keywords": keywords }));
        faulty(&app, request, &["options.keywords: invalid_type"]).await;
    }
}

#[tokio::test]
async fn unknown_fields_are_refused_wherever_they_are() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let body = json!({
        "topic": "ab",
        "Topic": "Growing tomatoes",
        "status": "ready",
        "options": { "word": 300, "words": 99 },
    });
    let faults = [
        "topic: too_short",
        "options.words: out_of_range",
        "options.word: unknown_field",
        "Topic: unknown_field",
        "status: unknown_field",
    ];
    faulty(&app, asking(&ann, &body), &faults).await;

    let post = ann.create_post("Growing tomatoes").await;
    let path = post_path(&post);
    app.run_jobs().await;
    let before = ann.get_post(&post).await;
    let put = ann.request(Method::PUT, &path);
    let put = put.json(&json!({ "content": "", "title": " ", "version": 7 }));
    let faults = [
        "content: too_short",
        "title: too_short",
        "version: unknown_field",
    ];
    faulty(&app, put, &faults).await;
    let again = ann.request(Method::POST, &format!("{path}/regenerate"));
    let again = again.json(&json!({ "topic": "Growing basil", "options": { "x": 1 } }));
    let faults = ["options.x: unknown_field", "topic: unknown_field"];
    faulty(&app, again, &faults).await;
    assert_eq!(ann.get_post(&post).await, before);
}

#[tokio::test]
async fn a_body_must_say_that_it_is_json() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let body = json!({ "topic": "Growing tomatoes" }).to_string();
    let without = ann.request(Method::POST, "/blogs").body(body.clone());
    refused(&app, without, 415, "unsupported_media_type").await;
    for other in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "text/json",
        "application/jsonp",
        "application/javascript, application/json",
        "json",
        "",
    ] {
        let request = ann.request(Method::POST, "/blogs").body(body.clone());
        let request = request.header("content-type", other);
        refused(&app, request, 415, "unsupported_media_type").await;
    }
    let login = json!({ "username": "ann", "password": PASSWORD }).to_string();
    let login = app
        .anonymous()
        .request(Method::POST, "/users/login")
        .body(login);
    refused(&app, login, 415, "unsupported_media_type").await;

    for good in ["application/json; charset=utf-8", "Application/JSON"] {
        let request = ann.request(Method::POST, "/blogs").body(body.clone());
        let answer = ann.send(request.header("content-type", good)).await;
        answer.assert_status(202);
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn a_body_of_more_than_a_mebibyte_is_refused_and_with_sources_of_more_than_eight() {
    const MEBIBYTE: usize = 1024 * 1024;
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let anonymous = app.anonymous();
    let body = |length: usize| {
        let empty = json!({ "topic": "" }).to_string();
        let padding = "x".repeat(length - empty.len());
        json!({ "topic": padding }).to_string()
    };
    for length in [8 * MEBIBYTE + 1, 20 * MEBIBYTE] {
        refused(&app, raw(&ann, body(length)), 413, "payload_too_large").await;
        // Its length need not be told beforehand.
        let pieces = body(length).into_bytes();
        let pieces: Vec<_> = pieces.chunks(65_536).map(<[u8]>::to_vec).collect();
        let pieces = pieces.into_iter().map(Ok::<_, std::io::Error>);
        let stream = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
        refused(&app, raw(&ann, stream), 413, "payload_too_large").await;
    }
    for length in [MEBIBYTE + 1, 2 * MEBIBYTE, 20 * MEBIBYTE] {
        let login = anonymous.request(Method::POST, "/users/login");
        let login = login.header("content-type", "application/json");
        refused(&app, login.body(body(length)), 413, "payload_too_large").await;
    }
    // Just as much is read.
    faulty(&app, raw(&ann, body(8 * MEBIBYTE)), &["topic: too_long"]).await;
}

#[tokio::test]
async fn all_faults_of_a_request_are_reported_at_once() {
    let app = TestApp::new().await;
    let (ann, root) = (app.user("ann").await, app.admin("root").await);
    let body = json!({ "topic": "x", "options": { "model": "nope", "words": 5 } });
    let faults = [
        "topic: too_short",
        "options.words: out_of_range",
        "options.model: unknown_model",
    ];
    faulty(&app, asking(&ann, &body), &faults).await;
    let long = "x".repeat(201);
    for list in ["/blogs", "/admin/users"] {
        let path = format!("{list}?limit=0&q={long}");
        let request = root.request(Method::GET, &path);
        faulty(&app, request, &["limit: out_of_range", "q: invalid"]).await;
    }
    let path = format!("/admin/jobs?limit=0&error_code={long}&model={long}&q={long}");
    let faults = [
        "limit: out_of_range",
        "error_code: too_long",
        "model: too_long",
        "q: invalid",
    ];
    faulty(&app, root.request(Method::GET, &path), &faults).await;
}

#[tokio::test]
async fn a_nul_is_refused_where_it_cannot_be_stored() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let name = json!({ "username": "ann\0", "password": PASSWORD });
    let register = app.anonymous().request(Method::POST, "/users/register");
    faulty(&app, register.json(&name), &["username: invalid"]).await;
    let login = app.anonymous().request(Method::POST, "/users/login");
    faulty(&app, login.json(&name), &["username: invalid"]).await;

    let topic = asking(&ann, &json!({ "topic": "Growing\0tomatoes" }));
    faulty(&app, topic, &["topic: invalid"]).await;
    let options = json!({
        "audience": "a\0b", "language": "e\0n", "keywords": ["a\0b"],
        "instructions": "a\0b",
    });
    let faults = [
        "options.audience: invalid",
        "options.language: invalid",
        "options.keywords: invalid",
        "options.instructions: invalid",
    ];
    faulty(&app, asking_with(&ann, &options), &faults).await;
    let model = asking_with(&ann, &json!({ "model": "stub-\0" }));
    faulty(&app, model, &["options.model: unknown_model"]).await;
    let search = ann.request(Method::GET, "/blogs?q=a%00b");
    faulty(&app, search, &["q: invalid"]).await;
    // Anywhere in a path, it is of nothing.
    for path in ["/blogs/%00", "/jobs/a%00b", "/users/me/sessions/%00"] {
        let method = if path.contains("sessions") {
            Method::DELETE
        } else {
            Method::GET
        };
        refused(&app, ann.request(method, path), 404, "not_found").await;
    }
}

#[tokio::test]
async fn a_topic_has_3_to_500_characters_that_can_be_seen() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let bad = [
        ("", "too_short"),
        ("      ", "too_short"),
        ("\t\n\r\u{a0}\u{2003}\u{3000}", "too_short"),
        ("ab", "too_short"),
        ("  ab  ", "too_short"),
        ("🦀🦀", "too_short"),
        (&"x".repeat(501), "too_long"),
        (&"é".repeat(501), "too_long"),
    ];
    for (topic, code) in bad {
        let request = asking(&ann, &json!({ "topic": topic }));
        faulty(&app, request, &[&format!("topic: {code}")]).await;
    }
    for missing in [json!({}), json!({ "topic": null })] {
        faulty(&app, asking(&ann, &missing), &["topic: required"]).await;
    }
    for topic in ["abc", "🦀🦀🦀", &"é".repeat(500)] {
        let padded = format!(" \n{topic}\t ");
        assert_eq!(ann.create_post(&padded).await["topic"], *topic);
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn options_are_held_to_their_limits() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let bad = [
        (json!({ "tone": "rude" }), "options.tone: invalid_type"),
        (json!({ "tone": "Friendly" }), "options.tone: invalid_type"),
        (json!({ "tone": "" }), "options.tone: invalid_type"),
        (json!({ "audience": "" }), "options.audience: too_short"),
        (
            json!({ "audience": "x".repeat(201) }),
            "options.audience: too_long",
        ),
        (json!({ "language": "" }), "options.language: invalid"),
        (
            json!({ "language": "english please" }),
            "options.language: invalid",
        ),
        (json!({ "language": "en_GB" }), "options.language: invalid"),
        (
            json!({ "language": format!("en-x{}", "-abcdefgh".repeat(9)) }),
            "options.language: too_long",
        ),
        (json!({ "words": 99 }), "options.words: out_of_range"),
        (json!({ "words": 3001 }), "options.words: out_of_range"),
        (json!({ "words": 0 }), "options.words: out_of_range"),
        (json!({ "words": -300 }), "options.words: invalid_type"),
        (json!({ "words": 300.5 }), "options.words: invalid_type"),
        (json!({ "words": u64::MAX }), "options.words: invalid_type"),
        (
            json!({ "keywords": vec!["x"; 11] }),
            "options.keywords: too_long",
        ),
        (
            json!({ "keywords": ["x".repeat(51)] }),
            "options.keywords: too_long",
        ),
        (
            json!({ "keywords": ["basil", " "] }),
            "options.keywords: too_short",
        ),
        (
            json!({ "instructions": "x".repeat(2001) }),
            "options.instructions: too_long",
        ),
        (
            json!({ "instructions": "  " }),
            "options.instructions: too_short",
        ),
        (json!({ "model": "gpt-17" }), "options.model: unknown_model"),
        (json!({ "model": "" }), "options.model: unknown_model"),
        (
            json!({ "model": "stub-large,stub-small" }),
            "options.model: unknown_model",
        ),
    ];
    for (options, fault) in bad {
        faulty(&app, asking_with(&ann, &options), &[fault]).await;
    }
    let most = json!({
        "tone": "academic", "audience": "é".repeat(200), "language": "zh-Hant-TW",
        "words": 3000, "keywords": vec!["é".repeat(50); 10],
        "instructions": "é".repeat(2000), "model": "stub-small",
    });
    let none = json!({
        "tone": null, "audience": null, "language": null, "words": null,
        "keywords": null, "instructions": null, "model": null,
    });
    for good in [
        most,
        none,
        json!({ "words": 100, "keywords": [] }),
        json!(null),
    ] {
        let answer = ann.send(asking_with(&ann, &good)).await.expect(202);
        let path = format!("/jobs/{}/cancel", text(&answer["job"]["id"]));
        let canceled = ann.send(ann.request(Method::POST, &path)).await;
        assert_eq!(canceled.body["status"], "canceled");
    }
}

#[tokio::test]
async fn a_query_that_cannot_be_read_is_refused() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    for list in ["/blogs", "/jobs"] {
        for query in [
            "limit=abc",
            "limit=",
            "limit=-1",
            "limit=1.5",
            "limit=99999999999999999999",
            "limit=1&limit=2",
            "status=done",
            "status=",
            "status=Ready",
            "status=queued,running",
            "page=2",
            "limit=5&Limit=5",
        ] {
            let request = ann.request(Method::GET, &format!("{list}?{query}"));
            refused(&app, request, 400, "malformed_query").await;
        }
        for limit in [0, 101, 1_000_000] {
            let request = ann.request(Method::GET, &format!("{list}?limit={limit}"));
            faulty(&app, request, &["limit: out_of_range"]).await;
        }
    }
    for query in ["sort=title", "sort=", "sort=-id"] {
        let request = ann.request(Method::GET, &format!("/blogs?{query}"));
        refused(&app, request, 400, "malformed_query").await;
    }
    let long = ann.request(Method::GET, &format!("/blogs?q={}", "x".repeat(201)));
    faulty(&app, long, &["q: invalid"]).await;
    for good in [
        "",
        "?",
        "?limit=1",
        "?limit=100",
        "?q=&limit=5",
        "?q=%25%5F%5C'",
    ] {
        ann.get(&format!("/blogs{good}")).await.expect(200);
    }
}

#[tokio::test]
async fn nobody_waits_longer_than_a_minute() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    let path = job_path(&post);
    for wait in ["61", "18446744073709551615"] {
        let request = ann.request(Method::GET, &format!("{path}?wait={wait}"));
        faulty(&app, request, &["wait: out_of_range"]).await;
    }
    for wait in ["-1", "soon", "", "1.5", "18446744073709551616"] {
        let request = ann.request(Method::GET, &format!("{path}?wait={wait}"));
        refused(&app, request, 400, "malformed_query").await;
    }
    ann.get(&format!("{path}?wait=0")).await.expect(200);
    app.run_jobs().await;
}

/// A cursor of each list that has a second page.
async fn cursor(client: &TestClient, list: &str) -> String {
    let answer = client.get(list).await;
    assert_eq!(answer.body["items"].as_array().unwrap().len(), 1);
    text(&answer.body["next_cursor"])
}

#[tokio::test]
async fn a_cursor_that_was_changed_anywhere_is_refused() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    ann.create_post("Growing tomatoes").await;
    ann.create_post("Growing basil").await;
    for list in ["/blogs", "/jobs"] {
        let good = cursor(&ann, &format!("{list}?limit=1")).await;
        let next = ann.get(&format!("{list}?cursor={good}")).await;
        assert_eq!(next.body["items"].as_array().unwrap().len(), 1);

        let mut bad: Vec<String> = ["", "x", "AAAA", "%00", "%FF", "null", "0"]
            .map(str::to_owned)
            .to_vec();
        bad.extend([
            format!("{good}A"),
            format!("{good}%3D"),
            good[1..].to_owned(),
        ]);
        for place in 0..good.len() {
            let mut changed = good.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            bad.push(String::from_utf8(changed).unwrap());
        }
        let before = rows(&app).await;
        for cursor in bad {
            let answer = ann.get(&format!("{list}?cursor={cursor}")).await;
            answer.assert_error(400, "invalid_cursor");
        }
        assert_eq!(rows(&app).await, before);
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn a_cursor_is_good_for_its_own_list_only() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    for client in [&ann, &bob] {
        client.create_post("Growing tomatoes").await;
        client.create_post("Growing basil").await;
    }
    let lists = [
        "/blogs?limit=1",
        "/blogs?limit=1&sort=created_at",
        "/blogs?limit=1&sort=-updated_at",
        "/blogs?limit=1&sort=updated_at",
        "/jobs?limit=1",
    ];
    for of in lists {
        let cursor = cursor(&ann, of).await;
        for list in lists {
            let path = format!("{list}&cursor={cursor}");
            let status = if of == list { 200 } else { 400 };
            ann.get(&path).await.expect(status);
            let request = bob.request(Method::GET, &path);
            refused(&app, request, 400, "invalid_cursor").await;
        }
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn an_invalid_id_is_not_found() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let (get, post) = (Method::GET, Method::POST);
    let (put, delete) = (Method::PUT, Method::DELETE);
    let random = Uuid::now_v7().to_string();
    for id in [
        "1",
        "x",
        "-",
        "me",
        "%20",
        "%FF",
        "..%2F..",
        "0x7f",
        &random[1..],
        &random,
    ] {
        for (method, path) in [
            (&get, format!("/blogs/{id}")),
            (&delete, format!("/blogs/{id}")),
            (&get, format!("/blogs/{id}/status")),
            (&post, format!("/blogs/{id}/regenerate")),
            (&get, format!("/jobs/{id}")),
            (&post, format!("/jobs/{id}/cancel")),
            (&post, format!("/jobs/{id}/retry")),
            (&delete, format!("/users/me/sessions/{id}")),
        ] {
            refused(&app, ann.request(method.clone(), &path), 404, "not_found").await;
        }
        let request = ann.request(put.clone(), &format!("/blogs/{id}"));
        let request = request.json(&json!({ "content": "New." }));
        refused(&app, request, 404, "not_found").await;
    }
}

#[tokio::test]
async fn an_unknown_path_is_not_found() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    for path in [
        "//api",
        "//api/v1",
        "//api/v2/blogs",
        "//metrics.php",
        "/",
        "/blog",
        "/blogs/",
        "/Blogs",
        "/users",
        "/users/me/",
        "/blogs/x/y/z",
        "/admin",
        "/../../health/x",
        "/%2e%2e/%2e%2e/etc/passwd",
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            refused(&app, ann.request(method, path), 404, "not_found").await;
        }
        // Nor does one have to be known to learn that.
        let stranger = app.anonymous().request(Method::GET, path);
        refused(&app, stranger, 404, "not_found").await;
    }
}

#[tokio::test]
async fn an_unknown_method_is_refused_with_those_allowed() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let id = Uuid::now_v7();
    let wrong = [
        (Method::PATCH, "/users/me".to_owned(), "DELETE,GET,HEAD"),
        (Method::GET, "/users/login".to_owned(), "POST"),
        (Method::DELETE, "/users/register".to_owned(), "POST"),
        (Method::GET, "/users/me/password".to_owned(), "PUT"),
        (
            Method::POST,
            "/users/me/sessions".to_owned(),
            "DELETE,GET,HEAD",
        ),
        (Method::GET, format!("/users/me/sessions/{id}"), "DELETE"),
        (Method::DELETE, "/blogs".to_owned(), "GET,HEAD,POST"),
        (Method::OPTIONS, "/blogs".to_owned(), "GET,HEAD,POST"),
        (
            Method::POST,
            format!("/blogs/{id}"),
            "DELETE,GET,HEAD,PATCH,PUT",
        ),
        (Method::PUT, format!("/blogs/{id}/status"), "GET,HEAD"),
        (Method::GET, format!("/blogs/{id}/regenerate"), "POST"),
        (Method::DELETE, format!("/jobs/{id}"), "GET,HEAD"),
        (Method::GET, format!("/jobs/{id}/cancel"), "POST"),
        (Method::PUT, format!("/jobs/{id}/retry"), "POST"),
        (Method::POST, "/models".to_owned(), "GET,HEAD"),
        (Method::POST, "/openapi.json".to_owned(), "GET,HEAD"),
        (Method::POST, "//health".to_owned(), "GET,HEAD"),
        (Method::DELETE, "//ready".to_owned(), "GET,HEAD"),
        (Method::POST, "//docs/".to_owned(), "GET,HEAD"),
        (
            Method::from_bytes(b"BREW").unwrap(),
            "/blogs".to_owned(),
            "GET,HEAD,POST",
        ),
    ];
    for (method, path, allowed) in wrong {
        let request = ann.request(method, &path);
        let answer = refused(&app, request, 405, "method_not_allowed").await;
        let mut allow: Vec<&str> = answer.header("allow").split(',').map(str::trim).collect();
        allow.sort_unstable();
        assert_eq!(allow.join(","), allowed, "{path}");
    }
}

#[tokio::test]
async fn an_update_of_an_old_version_is_refused() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    app.run_jobs().await;
    let before = ann.get_post(&post).await;
    let path = post_path(&post);
    let past = format!("\"{}\"", before["version"].as_i64().unwrap() - 1);
    for tag in [past.as_str(), "\"\"", "nonsense", "1", "\"1\", \"99\""] {
        let put = ann.request(Method::PUT, &path).header("if-match", tag);
        let put = put.json(&json!({ "content": "New." }));
        refused(&app, put, 412, "version_conflict").await;
    }
    assert_eq!(ann.get_post(&post).await, before);
}
