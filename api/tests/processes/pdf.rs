//! PDFs as sources: each is read by a process of its own, which may die of it.

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use testing::{assert_fields, post_path, text};
use tokio::net::TcpListener;

use crate::support::{ScriptedAgent, Service};

/// A document of one page, with this content and these resources.
fn pdf(content: &str, resources: &str, more: &[String]) -> Vec<u8> {
    let mut objects = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
        format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 4 0 R \
             /Resources << /Font << /F 5 0 R >> {resources} >> >>"
        ),
        stream("", content),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"
            .to_owned(),
        "<< /Title (The garden book) /Author (Ann Green) >>".to_owned(),
    ];
    objects.extend_from_slice(more);
    let mut document = "%PDF-1.4\n".to_owned();
    let mut table = "0000000000 65535 f \n".to_owned();
    for (object, number) in objects.iter().zip(1..) {
        table += &format!("{:010} 00000 n \n", document.len());
        document += &format!("{number} 0 obj\n{object}\nendobj\n");
    }
    let (start, size) = (document.len(), objects.len() + 1);
    document += &format!(
        "xref\n0 {size}\n{table}trailer\n<< /Size {size} /Root 1 0 R /Info 6 0 R >>\n\
         startxref\n{start}\n%%EOF\n"
    );
    document.into_bytes()
}

fn stream(dictionary: &str, content: &str) -> String {
    let length = content.len();
    format!("<< {dictionary} /Length {length} >>\nstream\n{content}\nendstream")
}

const TEXT: &str = "BT /F 12 Tf 50 700 Td (Growing tomatoes takes six hours of sun a day, and \
    a) Tj 0 -14 Td (large pot.) Tj ET";

fn document(path: &str) -> Vec<u8> {
    match path {
        "/good" => pdf(TEXT, "", &[]),
        // It draws itself, again and again.
        "/endless" => {
            let form = stream(
                "/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X 7 0 R >> >>",
                "/X Do",
            );
            pdf("/X Do", "/XObject << /X 7 0 R >>", &[form])
        }
        "/broken" => pdf(TEXT, "", &[])[..300].to_owned(),
        "/picture" => pdf("0 0 50 50 re f", "", &[]),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn a_pdf_is_read_and_one_that_kills_its_reader_harms_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = format!("http://{}", listener.local_addr().unwrap());
    let answer = async |request: Request| {
        let kind = [("content-type", "application/pdf")];
        (kind, document(request.uri().path())).into_response()
    };
    let router = Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await });

    let writer = ScriptedAgent::scripted(|_, _| None).await;
    let service = Service::of(&writer).set("SOURCE_PRIVATE_HOSTS", "127.0.0.1");
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let paths = ["/endless", "/broken", "/picture", "/good"];
    let sources = paths.map(|path| json!({ "url": format!("{site}{path}") }));
    let body = json!({ "topic": "Growing tomatoes", "sources": sources });
    let post = ann.post("/blogs", body).await.expect(202);
    ann.wait_for_status(&post, "succeeded").await;
    let post = ann.get_post(&post).await;
    let statuses = post["sources"].as_array().unwrap().iter();
    let statuses: Vec<String> = statuses.map(|it: &Value| text(&it["status"])).collect();
    assert_eq!(statuses, ["unsupported", "unsupported", "empty", "read"]);
    let path = format!("{}/sources/4", post_path(&post));
    let expected = json!({ "title": "The garden book", "author": "Ann Green",
        "text": "Growing tomatoes takes six hours of sun a day, and a large pot." });
    assert_fields(&ann.get(&path).await.expect(200), expected);
    assert!(!worker.stop().await.text().contains("panicked"));
}
