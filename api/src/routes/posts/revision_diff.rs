//! The difference between two revisions of a post.

use std::ops::Range;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use similar::{ChangeTag, DiffOp, TextDiff};
use utoipa::ToSchema;
use uuid::Uuid;

use super::revisions::find_two;
use crate::auth::current_user::CurrentUser;
use crate::error::Result;
use crate::extract::path::PathParts;
use crate::http_headers::prefers_json_to;
use crate::state::AppState;

/// What differs between two revisions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RevisionDiff {
    from: DiffSide,
    to: DiffSide,
    /// Where the contents differ, in order.
    hunks: Vec<DiffHunk>,
}

/// A revision that is compared.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DiffSide {
    version: i32,
    title: Option<String>,
}

/// A place where two contents differ, with up to three lines around it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DiffHunk {
    /// Counted from 1, as are the lines of the new content.
    old_start: u32,
    old_lines: u32,
    new_start: u32,
    new_lines: u32,
    lines: Vec<DiffLine>,
}

/// A line of a hunk.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DiffLine {
    kind: DiffLineKind,
    /// With its line break.
    text: String,
}

/// In which of the contents a line is.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DiffLineKind {
    /// In both.
    Context,
    /// In the old one.
    Deleted,
    /// In the new one.
    Inserted,
}

const CONTEXT_LINES: usize = 3;

/// Computing a minimal difference takes quadratic time at worst. After this one that is correct but
/// larger is given.
const TIMEOUT: Duration = Duration::from_millis(500);

const UNIFIED_DIFF: &str = "text/x-diff";

/// Compare two revisions of a post
///
/// As a unified diff of their contents, or as JSON if `Accept` prefers it.
#[utoipa::path(
    get, path = "/blogs/{id}/revisions/{from}/diff/{to}", tag = "blogs",
    operation_id = "diff_blog_revisions",
    params(
        ("id" = Uuid, Path),
        ("from" = i32, Path, minimum = 1, maximum = 2147483647),
        ("to" = i32, Path, minimum = 1, maximum = 2147483647),
    ),
    responses((status = 200, content((RevisionDiff = "application/json"), (String = "text/x-diff")))),
)]
pub(crate) async fn diff_revisions(
    State(state): State<AppState>,
    me: CurrentUser,
    PathParts((id, from, to)): PathParts<(Uuid, i32, i32)>,
    headers: HeaderMap,
) -> Result<Response> {
    let versions = (from, to);
    let [old, new] = find_two(state.db.read(), &me, id, versions).await?;
    let vary = [(header::VARY, "Accept")];
    if prefers_json_to(&headers, UNIFIED_DIFF) {
        let compare = move || (vary, Json(diff_as_json(versions, old, new))).into_response();
        return state.renders.run_blocking(compare).await;
    }
    let compare = move || unified_diff(versions, &old.1, &new.1);
    let diff = state.renders.run_blocking(compare).await?;
    let media_type = [(header::CONTENT_TYPE, "text/x-diff; charset=utf-8")];
    Ok((vary, media_type, diff).into_response())
}

fn compare<'a>(old: &'a str, new: &'a str) -> TextDiff<'a, 'a, 'a, str> {
    TextDiff::configure().timeout(TIMEOUT).diff_lines(old, new)
}

fn unified_diff((from, to): (i32, i32), old: &str, new: &str) -> String {
    compare(old, new)
        .unified_diff()
        .context_radius(CONTEXT_LINES)
        .header(&format!("version {from}"), &format!("version {to}"))
        .to_string()
}

fn diff_as_json(
    versions: (i32, i32),
    (old_title, old): (Option<String>, String),
    (new_title, new): (Option<String>, String),
) -> RevisionDiff {
    let diff = compare(&old, &new);
    let groups = diff.grouped_ops(CONTEXT_LINES);
    let side = |version, title| DiffSide { version, title };
    RevisionDiff {
        from: side(versions.0, old_title),
        to: side(versions.1, new_title),
        hunks: groups.iter().map(|ops| hunk(&diff, ops)).collect(),
    }
}

fn hunk(diff: &TextDiff<'_, '_, '_, str>, ops: &[DiffOp]) -> DiffHunk {
    let changes = ops.iter().flat_map(|op| diff.iter_changes(op));
    let lines = changes.map(|change| DiffLine {
        kind: match change.tag() {
            ChangeTag::Equal => DiffLineKind::Context,
            ChangeTag::Delete => DiffLineKind::Deleted,
            ChangeTag::Insert => DiffLineKind::Inserted,
        },
        text: change.value().to_owned(),
    });
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let start = |range: fn(&DiffOp) -> Range<usize>| {
        let first = ops.first().map_or(0, |op| range(op).start);
        count(first + 1)
    };
    let length = |range: fn(&DiffOp) -> Range<usize>| {
        let lines = ops.iter().map(|op| range(op).len());
        count(lines.sum())
    };
    DiffHunk {
        old_start: start(DiffOp::old_range),
        old_lines: length(DiffOp::old_range),
        new_start: start(DiffOp::new_range),
        new_lines: length(DiffOp::new_range),
        lines: lines.collect(),
    }
}
