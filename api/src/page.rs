//! The page at `/`, for people. Its files are compiled in; it uses nothing but the public API.

use std::io::Write;
use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use ring::digest;

use crate::auth::tokens::hex;
use crate::error::{Error, Result};
use crate::state::AppState;

const INDEX: &str = include_str!("../web/index.html");

const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// The files of the page, by their names.
const FILES: [(&str, &str, &str); 26] = [
    ("style.css", CSS, include_str!("../web/style.css")),
    ("account.js", JS, include_str!("../web/account.js")),
    ("api.js", JS, include_str!("../web/api.js")),
    (
        "console-audit.js",
        JS,
        include_str!("../web/console-audit.js"),
    ),
    ("console-job.js", JS, include_str!("../web/console-job.js")),
    (
        "console-jobs.js",
        JS,
        include_str!("../web/console-jobs.js"),
    ),
    (
        "console-queue.js",
        JS,
        include_str!("../web/console-queue.js"),
    ),
    (
        "console-users.js",
        JS,
        include_str!("../web/console-users.js"),
    ),
    (
        "console-workers.js",
        JS,
        include_str!("../web/console-workers.js"),
    ),
    ("console.js", JS, include_str!("../web/console.js")),
    ("dom.js", JS, include_str!("../web/dom.js")),
    ("edit.js", JS, include_str!("../web/edit.js")),
    ("events.js", JS, include_str!("../web/events.js")),
    ("job.js", JS, include_str!("../web/job.js")),
    ("live.js", JS, include_str!("../web/live.js")),
    ("main.js", JS, include_str!("../web/main.js")),
    ("navigate.js", JS, include_str!("../web/navigate.js")),
    ("outline.js", JS, include_str!("../web/outline.js")),
    ("post.js", JS, include_str!("../web/post.js")),
    ("posts.js", JS, include_str!("../web/posts.js")),
    ("sign-in.js", JS, include_str!("../web/sign-in.js")),
    ("sources.js", JS, include_str!("../web/sources.js")),
    ("text.js", JS, include_str!("../web/text.js")),
    ("versions.js", JS, include_str!("../web/versions.js")),
    ("write.js", JS, include_str!("../web/write.js")),
    (
        "vendor/streaming-markdown.js",
        JS,
        include_str!("../web/vendor/streaming-markdown.js"),
    ),
];

/// A hash of all files, which is part of their addresses: what is cached is never outdated.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hash = digest::Context::new(&digest::SHA256);
    for (name, _, content) in FILES {
        hash.update(name.as_bytes());
        hash.update(content.as_bytes());
    }
    hex(&hash.finish().as_ref()[..8])
});

/// The files as they are sent to browsers that take gzip.
static COMPRESSED: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| FILES.iter().map(|(_, _, content)| gzip(content)).collect());

fn gzip(content: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to memory can't fail; an empty file would be noticed by any test of the page.
    let _ = encoder.write_all(content.as_bytes());
    encoder.finish().unwrap_or_default()
}

/// Nothing runs and nothing is loaded but what comes from here; posts may show images.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' https: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

const FOR_GOOD: &str = "public, max-age=31536000, immutable";

pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/", get(index))
        .route("/app/", get(index))
        .route("/app/{*path}", get(index))
        .route("/assets/{version}/{*name}", get(file))
}

/// The page, which shows what its address says.
async fn index() -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, Html(INDEX.replace("VERSION", &VERSION))).into_response()
}

async fn file(Path((version, name)): Path<(String, String)>, asked: HeaderMap) -> Result<Response> {
    let at = FILES.iter().position(|file| file.0 == name);
    let at = at.filter(|_| version == *VERSION).ok_or(Error::NotFound)?;
    let (_, media_type, content) = FILES[at];
    let mut headers = HeaderMap::new();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_TYPE, media_type);
    set(header::CACHE_CONTROL, FOR_GOOD);
    set(header::VARY, "accept-encoding");
    let encodings = asked.get(header::ACCEPT_ENCODING);
    let takes_gzip = encodings
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains("gzip"));
    if takes_gzip {
        set(header::CONTENT_ENCODING, "gzip");
        return Ok((headers, COMPRESSED[at].as_slice()).into_response());
    }
    Ok((headers, content).into_response())
}
