//! Links from responses to further operations.

use serde_json::json;
use utoipa::openapi::RefOr;
use utoipa::openapi::link::{Link, LinkBuilder};
use utoipa::openapi::path::Operation;
use utoipa::openapi::response::Response;

/// A response's schema, which field of it is which parameter, and of which operations.
const LINKS: [(&str, &str, &str, &[&str]); 19] = [
    ("Post", "id", "id", POST),
    ("Post", "job/id", "id", JOB),
    ("PostSections", "items/0/number", "number", SECTION),
    (
        "RevisionSummaryPage",
        "items/0/version",
        "version",
        REVISION,
    ),
    ("PostSummaryPage", "items/0/id", "id", POST),
    ("PostSummaryPage", "next_cursor", "cursor", &["list_blogs"]),
    ("Job", "id", "id", JOB),
    ("Job", "blog_id", "id", POST),
    ("JobPage", "items/0/id", "id", JOB),
    ("JobPage", "next_cursor", "cursor", &["list_jobs"]),
    ("Sessions", "items/0/id", "id", &["revoke_session"]),
    ("ApiKeys", "items/0/id", "id", &["revoke_api_key"]),
    ("NewApiKey", "id", "id", &["revoke_api_key"]),
    ("AdminJob", "id", "id", ANY_JOB),
    ("AdminJobPage", "items/0/id", "id", ANY_JOB),
    ("AdminJobPage", "next_cursor", "cursor", &["list_all_jobs"]),
    ("AdminUserViewPage", "items/0/id", "id", &["update_user"]),
    (
        "AdminUserViewPage",
        "next_cursor",
        "cursor",
        &["list_users"],
    ),
    (
        "AuditEventPage",
        "next_cursor",
        "cursor",
        &["list_audit_events"],
    ),
];

const POST: &[&str] = &[
    "get_blog",
    "get_blog_status",
    "update_blog",
    "patch_blog",
    "delete_blog",
    "regenerate_blog",
    "list_blog_revisions",
    "list_blog_sections",
];
const SECTION: &[&str] = &["regenerate_blog_section"];
const REVISION: &[&str] = &["get_blog_revision", "restore_blog_revision"];
const JOB: &[&str] = &["get_job", "get_job_events", "cancel_job", "retry_job"];
const ANY_JOB: &[&str] = &["get_any_job", "cancel_any_job", "retry_any_job"];

/// Adds links to the successful responses.
pub(super) fn add(operation: &mut Operation) {
    let responses = operation.responses.responses.iter_mut();
    for (_, response) in responses.filter(|(status, _)| status.starts_with('2')) {
        if let RefOr::T(response) = response
            && let Some(answered) = schema(response)
        {
            add_to(response, &answered);
        }
    }
}

fn add_to(response: &mut Response, answered: &str) {
    let mut lead_to = |operation: &str, link: LinkBuilder| {
        let link = link.operation_id(operation).build();
        response.links.insert(operation.to_owned(), link.into());
    };
    for (_, field, parameter, operations) in LINKS.iter().filter(|link| link.0 == answered) {
        let value = format!("$response.body#/{field}");
        for operation in *operations {
            let mut link = Link::builder().parameter(*parameter, &*value);
            if matches!(*parameter, "number" | "version") {
                // Of the same post.
                link = link.parameter("id", "$request.path.id");
            }
            lead_to(operation, link);
        }
    }
    if answered == "TokenPair" {
        let body = json!({ "refresh_token": "$response.body#/refresh_token" });
        lead_to("refresh", Link::builder().request_body(Some(body)));
    }
}

/// The name of a response's JSON schema.
fn schema(response: &Response) -> Option<String> {
    let RefOr::T(content) = response.content.get("application/json")? else {
        return None;
    };
    match content.schema.as_ref()? {
        RefOr::Ref(reference) => reference.ref_location.rsplit('/').next().map(str::to_owned),
        RefOr::T(_) => None,
    }
}
