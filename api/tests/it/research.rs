//! Posts that are written from what a search of the web finds.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use testing::stub_openai::StubBehavior;
use testing::{EventReader, TestClient, assert_fields, post_path, text};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use url::Url;

use crate::support::{SHORT_LEASE, Site, TestApp};

const POST: &str = "# Red\n\nTomatoes need six hours of sun a day [1].\n";
const QUERIES: &str = "1. tomato sun hours\n2. \"tomato planting month\"\n3. one too many";

/// A request to a search.
#[derive(Clone)]
struct Asked {
    query: String,
    path: String,
    headers: HeaderMap,
}

/// A search, which answers as it is told.
struct SearchService {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    came: Arc<Notify>,
}

impl SearchService {
    /// `answer` gets the query, and how often it was asked before. Where it gives none, none comes.
    async fn start(
        answer: impl Fn(&str, usize) -> Option<Response> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, came) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
        let (answer, all, news) = (Arc::new(answer), asked.clone(), came.clone());
        let handler = move |request: Request| {
            let (answer, all, news) = (answer.clone(), all.clone(), news.clone());
            async move {
                let request = read_request(request).await;
                let before = {
                    let mut all: std::sync::MutexGuard<'_, Vec<Asked>> = all.lock().unwrap();
                    let before = all.iter().filter(|it| it.query == request.query).count();
                    all.push(request.clone());
                    before
                };
                news.notify_waiters();
                match answer(&request.query, before) {
                    Some(response) => response,
                    None => std::future::pending().await,
                }
            }
        };
        let router = Router::new().fallback(handler);
        tokio::spawn(async move { axum::serve(listener, router).await });
        SearchService { url, asked, came }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn queries(&self) -> Vec<String> {
        self.asked().into_iter().map(|it| it.query).collect()
    }

    async fn asked_for(&self, query: &str) {
        loop {
            let came = self.came.notified();
            if self.queries().iter().any(|asked| asked == query) {
                return;
            }
            came.await;
        }
    }
}

async fn read_request(request: Request) -> Asked {
    let path = request.uri().path().to_owned();
    let headers = request.headers().clone();
    let url = Url::parse(&format!("http://search.example{}", request.uri())).unwrap();
    let of_url = url.query_pairs().find(|(name, _)| name == "q");
    let of_url = of_url.map(|(_, query)| query.into_owned());
    let body = to_bytes(request.into_body(), 10_000).await.unwrap();
    let of_body = || text(&serde_json::from_slice::<Value>(&body).unwrap()["query"]);
    Asked {
        query: of_url.unwrap_or_else(of_body),
        path,
        headers,
    }
}

/// Results as each service sends them.
fn results(protocol: &str, urls: &[String]) -> Response {
    let results: Vec<Value> = urls
        .iter()
        .map(|url| json!({ "url": url, "title": "As the search has it", "content": "…" }))
        .collect();
    let answer = match protocol {
        "brave" => json!({ "type": "search", "web": { "results": results } }),
        _ => json!({ "query": "…", "results": results }),
    };
    answer.to_string().into_response()
}

fn found(urls: &[String]) -> Option<Response> {
    Some(results("searxng", urls))
}

/// An app whose API knows of a search, and whose model makes queries, and writes.
async fn app() -> (TestApp, TestClient) {
    let app = TestApp::with(&["--search-url=http://search.example"]).await;
    let ann = app.user("ann").await;
    app.agent.set(StubBehavior::per_request(|call| {
        let asks_queries = call.prompt().contains("type into a search engine");
        StubBehavior::WriteText(if asks_queries { QUERIES } else { POST })
    }));
    (app, ann)
}

/// How often the model was asked for queries.
fn times_asked_for_queries(app: &TestApp) -> usize {
    let calls = app.agent.calls().into_iter();
    let calls = calls.filter(|call| call.prompt().contains("type into a search engine"));
    calls.count()
}

async fn ask(owner: &TestClient, sources: Value, mut options: Value) -> Value {
    options["research"] = json!("web");
    options["words"] = json!(100);
    let body = json!({ "topic": "Growing tomatoes", "options": options, "sources": sources });
    owner.post("/blogs", body).await.expect(202)
}

/// The post when its job has ended, by a worker with this search and these further settings.
async fn written(
    app: &TestApp,
    owner: &TestClient,
    post: &Value,
    search: &SearchService,
    more: &[&str],
) -> Value {
    let url = format!("--search-url={}", search.url);
    let worker = app.worker_with(&settings(&url, more)).await;
    app.wait_until_jobs_finished().await;
    worker.stop().await;
    owner.get_post(post).await
}

fn settings<'a>(search: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let ours = [
        "--agent-writing=one-call",
        "--source-private-hosts=127.0.0.1",
        search,
    ];
    ours.iter().chain(more).copied().collect()
}

#[tokio::test]
async fn a_post_is_written_from_pages_that_a_search_finds() {
    let (app, ann) = app().await;
    let site = Site::start().await;
    for (protocol, path, header) in [
        ("searxng", "/search", "authorization"),
        ("brave", "/res/v1/web/search", "x-subscription-token"),
        ("tavily", "/search", "authorization"),
    ] {
        let pages = ["/good", "/broken"].map(|path| text(&site.page(path)["url"]));
        let search = SearchService::start(move |_, _| Some(results(protocol, &pages))).await;
        let kind = format!("--search={protocol}");
        let asked = ask(&ann, json!([]), json!({})).await;
        let mut reader = EventReader::of(&ann, &asked);
        reader.connect().await;
        let more = [kind.as_str(), "--search-api-key=geheim"];
        let post = written(&app, &ann, &asked, &search, &more).await;

        let queries = [
            "Growing tomatoes",
            "tomato sun hours",
            "tomato planting month",
        ];
        assert_eq!(search.queries(), queries);
        let request = &search.asked()[0];
        assert_eq!(request.path, path);
        let key = request.headers[header].to_str().unwrap();
        assert!(key.ends_with("geheim"), "{key}");
        assert_eq!(post["status"], "ready", "{post}");
        let sources = post["sources"].as_array().unwrap();
        assert_eq!(sources.len(), 2);
        let expected = json!({ "number": 1, "found_by": "Growing tomatoes", "status": "read",
            "title": "Tomatoes", "used": true });
        assert_fields(&sources[0], expected);
        let expected = json!({ "status": "unreachable", "title": "As the search has it" });
        assert_fields(&sources[1], expected);
        let content = text(&post["content"]);
        let list = format!("- \\[1\\] [Tomatoes](<{}/good>)\n", site.url);
        assert!(content.ends_with(&list), "{content}");

        reader.read_to_end().await;
        let data = |name: &str| {
            let events = reader.events.iter().filter(|event| event["event"] == name);
            events
                .map(|event| event["data"].clone())
                .collect::<Vec<_>>()
        };
        let phases = data("phase");
        let searched = phases.iter().any(|it| it["phase"] == "researching");
        assert!(searched, "{phases:?}");
        let told = data("source");
        let of = |number| told.iter().rfind(|it| it["number"] == number).unwrap();
        assert_fields(of(1), json!({ "status": "read", "title": "Tomatoes" }));
        assert_fields(of(2), json!({ "status": "unreachable" }));
    }
}

#[tokio::test]
async fn whether_there_is_a_search_is_told() {
    let (app, ann) = app().await;
    assert_eq!(ann.get("/models").await.expect(200)["web_search"], true);
    drop(app);
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    assert_eq!(ann.get("/models").await.expect(200)["web_search"], false);
    let body = json!({ "topic": "Growing tomatoes", "options": { "research": "web" } });
    let refused = ann.post("/blogs", body).await;
    refused.assert_field_errors(&["options.research: unsupported"]);
}

#[tokio::test]
async fn a_search_that_fails_is_tried_again_by_the_next_attempt() {
    let (app, ann) = app().await;
    let site = Site::start().await;
    let page = [text(&site.page("/good")["url"])];
    let search = SearchService::start(move |_, before| match before {
        0 => Some(StatusCode::BAD_GATEWAY.into_response()),
        _ => found(&page),
    });
    let search = search.await;
    let asked = ask(&ann, json!([]), json!({})).await;
    let post = written(&app, &ann, &asked, &search, &[]).await;
    assert_eq!(post["status"], "ready");
    let attempts = post["job"]["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[0]["error"]["code"], "search_unavailable");
    assert_eq!(times_asked_for_queries(&app), 1);
}

#[tokio::test]
async fn without_a_search_a_post_is_written_from_what_there_is() {
    let (app, ann) = app().await;
    let site = Site::start().await;
    let down = SearchService::start(|_, _| Some(StatusCode::FORBIDDEN.into_response())).await;
    let given = json!([site.page("/good")]);
    let asked = ask(&ann, given, json!({})).await;
    let post = written(&app, &ann, &asked, &down, &[]).await;
    assert_eq!(post["sources"].as_array().unwrap().len(), 1);
    assert_eq!(post["sources"][0]["used"], true);
    let warning = json!({ "code": "search_failed" });
    assert_fields(&post["job"]["warnings"][0], warning.clone());

    let asked = ask(&ann, json!([]), json!({ "without_sources": "write" })).await;
    let post = written(&app, &ann, &asked, &down, &[]).await;
    assert_eq!(post["status"], "ready");
    assert_fields(&post["job"]["warnings"][0], warning);
    assert_fields(&post["job"]["warnings"][1], json!({ "code": "no_sources" }));
}

#[tokio::test]
async fn a_worker_that_has_no_search_leaves_the_post_to_others() {
    let (app, ann) = app().await;
    let site = Site::start().await;
    let page = [text(&site.page("/good")["url"])];
    let search = SearchService::start(move |_, _| found(&page)).await;
    let asked = ask(&ann, json!([]), json!({})).await;
    let without = app.worker_with(&["--agent-writing=one-call"]).await;
    let job = ann.wait_for_status(&asked, "failed").await;
    without.stop().await;
    assert_eq!(job["error"]["code"], "search_unavailable");
    ann.retry(&asked).await.assert_status(202);
    let post = written(&app, &ann, &asked, &search, &[]).await;
    assert_eq!(post["status"], "ready");
}

#[tokio::test]
async fn a_model_that_makes_no_queries_leaves_the_topic() {
    let (app, ann) = app().await;
    let site = Site::start().await;
    app.agent.set(StubBehavior::per_request(|call| {
        match call.prompt().contains("type into a search engine") {
            true => StubBehavior::Fail(400, "content filter"),
            false => StubBehavior::WriteText(POST),
        }
    }));
    let page = [text(&site.page("/good")["url"])];
    let search = SearchService::start(move |_, _| found(&page)).await;
    let asked = ask(&ann, json!([]), json!({ "language": "zh-Hant" })).await;
    let post = written(&app, &ann, &asked, &search, &[]).await;
    assert_eq!(post["status"], "ready", "{post}");
    assert_eq!(search.queries(), ["Growing tomatoes"]);
}

#[tokio::test]
async fn a_search_that_is_busy_is_asked_again() {
    let (app, ann) = app().await;
    let site = Site::start().await;
    let page = [text(&site.page("/good")["url"])];
    let search = SearchService::start(move |_, before| match before {
        0 => Some(StatusCode::TOO_MANY_REQUESTS.into_response()),
        _ => found(&page),
    });
    let search = search.await;
    let asked = ask(&ann, json!([]), json!({})).await;
    let post = written(&app, &ann, &asked, &search, &["--search-max-queries=1"]).await;
    assert_eq!(post["job"]["attempts"].as_array().unwrap().len(), 1);
    assert_eq!(search.queries(), ["Growing tomatoes"; 2]);
}

#[tokio::test]
async fn a_worker_that_dies_while_it_searches_pays_for_nothing_twice() {
    let (app, ann) = app().await;
    let site = Site::start().await;
    let page = [text(&site.page("/good")["url"])];
    let search = SearchService::start(move |query, before| {
        let hangs = query == "tomato sun hours" && before == 0;
        if hangs { None } else { found(&page) }
    });
    let search = search.await;
    let url = format!("--search-url={}", search.url);
    let settings = settings(&url, SHORT_LEASE);
    let asked = ask(&ann, json!([]), json!({})).await;
    let lost = app.worker_with(&settings).await;
    search.asked_for("tomato sun hours").await;
    lost.abort();
    let heir = app.worker_with(&settings).await;
    ann.wait_for_status(&asked, "succeeded").await;
    heir.stop().await;
    let queries = search.queries();
    let times = |query: &str| queries.iter().filter(|it| *it == query).count();
    assert_eq!(times("Growing tomatoes"), 1);
    assert_eq!(times("tomato sun hours"), 2);
    assert_eq!(times("tomato planting month"), 1);
    assert_eq!(site.times("/good"), 1);
    assert_eq!(times_asked_for_queries(&app), 1);
}

#[tokio::test]
async fn queries_and_pages_are_no_more_than_set() {
    let (app, ann) = app().await;
    let site = Site::start().await;
    let pages = ["/good", "/packed"].map(|path| text(&site.page(path)["url"]));
    let search = SearchService::start(move |_, _| found(&pages)).await;
    let limits = ["--search-max-queries=1", "--search-max-pages=1"];
    let asked = ask(&ann, json!([]), json!({})).await;
    let post = written(&app, &ann, &asked, &search, &limits).await;
    assert_eq!(search.queries(), ["Growing tomatoes"]);
    assert_eq!(post["sources"].as_array().unwrap().len(), 1);
    assert_eq!(times_asked_for_queries(&app), 0);
}

#[tokio::test]
async fn a_post_is_written_from_what_was_read_in_time() {
    let (app, ann) = app().await;
    let site = Site::start().await;
    // The first time the slow one never comes, and has its host to itself meanwhile.
    let given = json!([site.page("/good"), site.page("/slow"), site.page("/packed")]);
    let nothing = SearchService::start(|_, _| found(&[])).await;
    let limits = ["--search-max-queries=1", "--source-timeout-secs=4"];
    let asked = ask(&ann, given, json!({})).await;
    let post = written(&app, &ann, &asked, &nothing, &limits).await;
    assert_eq!(post["status"], "ready");
    let statuses = ["read", "unreachable", "unreachable"];
    for (source, status) in post["sources"].as_array().unwrap().iter().zip(statuses) {
        assert_eq!(source["status"], status, "{source}");
    }
}

#[tokio::test]
async fn no_more_pages_are_read_than_a_post_may_cost() {
    let (app, ann) = app().await;
    let site = Site::start().await;
    // Four are begun at once.
    let paths = ["/good", "/packed", "/moved", "/blank", "/broken", "/image"];
    let given = json!(paths.map(|path| site.page(path)));
    let nothing = SearchService::start(|_, _| found(&[])).await;
    let limits = ["--search-max-queries=1", "--source-max-bytes=10"];
    let asked = ask(&ann, given, json!({})).await;
    let post = written(&app, &ann, &asked, &nothing, &limits).await;
    assert_eq!(post["sources"][0]["status"], "read");
    assert_eq!(post["sources"][5]["status"], "too_large");
    assert_eq!(site.times("/image"), 0);
}

#[tokio::test]
async fn a_post_that_is_regenerated_is_searched_for_anew_and_a_section_is_not() {
    let (app, ann) = app().await;
    let site = Site::start().await;
    let pages = ["/good", "/packed"].map(|path| [text(&site.page(path)["url"])]);
    let search = SearchService::start(move |_, before| found(&pages[before.min(1)]));
    let search = search.await;
    let one = ["--search-max-queries=1"];
    let own = json!([{ "title": "Mine", "text": "A tomato of mine is called Otto." }]);
    let asked = ask(&ann, own, json!({})).await;
    written(&app, &ann, &asked, &search, &one).await;
    let path = post_path(&asked);
    let section = format!("{path}/sections/0/regenerate");
    ann.post(&section, json!({})).await.assert_status(202);
    let post = written(&app, &ann, &asked, &search, &one).await;
    assert_eq!(search.queries().len(), 1);
    let urls = |post: &Value| {
        let sources = post["sources"].as_array().unwrap().iter();
        sources.map(|it| it["url"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        urls(&post),
        [Value::Null, site.page("/good")["url"].clone()]
    );

    let again = ann.post(&format!("{path}/regenerate"), json!({})).await;
    again.assert_status(202);
    let post = written(&app, &ann, &asked, &search, &one).await;
    assert_eq!(search.queries().len(), 2);
    assert_eq!(
        urls(&post),
        [Value::Null, site.page("/packed")["url"].clone()]
    );
}
