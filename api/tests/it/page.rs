//! The page for people, as it is sent.

use reqwest::Response;

use crate::support::TestApp;

async fn get(app: &TestApp, path: &str) -> Response {
    // As it is sent.
    let client = reqwest::Client::builder().no_gzip().build().unwrap();
    let request = client.get(format!("{}{path}", app.url));
    let request = request.header("accept-encoding", "gzip");
    request.send().await.unwrap()
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    let value = answer.headers().get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

/// The addresses of what the page loads first.
fn links(html: &str) -> Vec<String> {
    let quoted = html.split('"').filter(|part| part.starts_with("/assets/"));
    quoted.map(str::to_owned).collect()
}

#[tokio::test]
async fn the_page_is_at_the_root_and_below_app() {
    let app = TestApp::new().await;
    let mut pages = Vec::new();
    for path in ["/", "/app/", "/app/posts", "/app/posts/1"] {
        let page = get(&app, path).await;
        assert_eq!(page.status(), 200);
        assert_eq!(header(&page, "content-type"), "text/html; charset=utf-8");
        assert_eq!(header(&page, "cache-control"), "no-store");
        let policy = header(&page, "content-security-policy").to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"));
        assert!(policy.contains("; frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(header(&page, "referrer-policy"), "no-referrer");
        pages.push(page.text().await.unwrap());
    }
    pages.dedup();
    assert_eq!(pages.len(), 1);
    assert_eq!(links(&pages[0]).len(), 2, "{}", pages[0]);
}

#[tokio::test]
async fn its_files_are_kept_for_good_under_the_hash_of_their_content() {
    let app = TestApp::new().await;
    let html = get(&app, "/").await.text().await.unwrap();
    for link in links(&html) {
        let file = get(&app, &link).await;
        assert_eq!(file.status(), 200, "{link}");
        let caching = "public, max-age=31536000, immutable";
        assert_eq!(header(&file, "cache-control"), caching);
        assert_eq!(header(&file, "content-encoding"), "gzip");
        assert_eq!(header(&file, "x-content-type-options"), "nosniff");
        assert!(!file.bytes().await.unwrap().is_empty());
        let (folder, name) = link.rsplit_once('/').unwrap();
        for wrong in [format!("/assets/0/{name}"), format!("{folder}/nothing.js")] {
            assert_eq!(get(&app, &wrong).await.status(), 404, "{wrong}");
        }
    }
}

#[tokio::test]
async fn password_fields_hide_what_is_typed_and_work_with_password_managers() {
    let app = TestApp::new().await;
    let html = get(&app, "/").await.text().await.unwrap();
    let links = links(&html);
    let (folder, _) = links[0].rsplit_once('/').unwrap();
    for (module, fields) in [("sign-in.js", 1), ("account.js", 3)] {
        let url = format!("{}{folder}/{module}", app.url);
        let source = reqwest::get(url).await.unwrap().text().await.unwrap();
        assert_eq!(
            source.matches("type: \"password\"").count(),
            fields,
            "{module}"
        );
        assert!(
            source.matches("-password\"").count() > fields / 2,
            "{module}"
        );
        assert!(!source.contains("paste"), "{module}");
    }
}
