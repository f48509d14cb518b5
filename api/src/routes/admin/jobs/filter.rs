//! Filters for all users' jobs.

use chrono::{DateTime, TimeDelta, Utc};
use entity::{job, post, user};
use sea_orm::sea_query::{Expr, Query, SimpleExpr};
use sea_orm::{ColumnTrait, Condition, DbBackend, EntityTrait, ExprTrait, QueryFilter, Select};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::error::{Error, Result, merge_violations};
use crate::extract::field_reader::{FieldReader, FromFields, accept_any};
use crate::extract::query::{MAX_SEARCH_LEN, search_term};
use crate::extract::text_rules::length;
use crate::substring_search;

/// Which jobs to list. All filters must match.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListAllJobsQuery {
    status: Option<job::Status>,
    /// The owner's id.
    user_id: Option<Uuid>,
    /// The code of the latest error.
    #[param(max_length = 64, pattern = "^[^\\x00]*$")]
    error_code: Option<String>,
    /// The model.
    #[param(max_length = 200, pattern = "^[^\\x00]*$")]
    model: Option<String>,
    /// Text in the topic or the owner's name, case-insensitive.
    #[param(max_length = 200, pattern = "^[^\\x00]*$")]
    q: Option<String>,
    /// Jobs created at this time or later.
    created_after: Option<DateTime<Utc>>,
    /// Jobs created before this time.
    created_before: Option<DateTime<Utc>>,
    /// Entries per page, by default 20.
    #[param(minimum = 1, maximum = 100)]
    pub(super) limit: Option<u64>,
    /// `next_cursor` of the previous page.
    #[param(max_length = 500, pattern = "^[A-Za-z0-9_-]+$")]
    pub(super) cursor: Option<String>,
}

/// Which jobs to change. All fields must match; an empty filter matches all jobs.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
#[schema(as = JobSelection)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobFilter {
    status: Option<job::Status>,
    /// The owner's id.
    user_id: Option<Uuid>,
    /// The code of the latest error.
    #[schema(max_length = 64, pattern = "^[^\\x00]*$")]
    error_code: Option<String>,
    /// The model.
    #[schema(max_length = 200, pattern = "^[^\\x00]*$")]
    model: Option<String>,
    /// Text in the topic or the owner's name, case-insensitive.
    #[schema(max_length = 200, pattern = "^[^\\x00]*$")]
    q: Option<String>,
    /// Jobs created at this time or later.
    created_after: Option<DateTime<Utc>>,
    /// Jobs created before this time.
    created_before: Option<DateTime<Utc>>,
}

const MAX_CODE_LEN: usize = 64;
const MAX_MODEL_LEN: usize = 200;

impl FromFields for JobFilter {
    fn from_fields(fields: &mut FieldReader) -> Option<Self> {
        let status = fields.optional("status", accept_any);
        let user_id = fields.optional("user_id", accept_any);
        let error_code = fields.optional("error_code", length(0, MAX_CODE_LEN));
        let model = fields.optional("model", length(0, MAX_MODEL_LEN));
        let q = fields.optional("q", length(0, MAX_SEARCH_LEN));
        let created_after = fields.optional("created_after", accept_any);
        let created_before = fields.optional("created_before", accept_any);
        Some(JobFilter {
            status: status?,
            user_id: user_id?,
            error_code: error_code?,
            model: model?,
            q: q?,
            created_after: created_after?,
            created_before: created_before?,
        })
    }
}

impl TryFrom<&ListAllJobsQuery> for JobFilter {
    type Error = Error;

    fn try_from(query: &ListAllJobsQuery) -> Result<Self> {
        let error_code = validate("error_code", &query.error_code, MAX_CODE_LEN);
        let model = validate("model", &query.model, MAX_MODEL_LEN);
        let q = search_term(query.q.as_deref());
        let ((error_code, model), q) = merge_violations(merge_violations(error_code, model), q)?;
        Ok(JobFilter {
            status: query.status,
            user_id: query.user_id,
            error_code,
            model,
            q: q.map(str::to_owned),
            created_after: query.created_after,
            created_before: query.created_before,
        })
    }
}

/// Checks text in a query as it is checked in a body.
fn validate(field: &str, value: &Option<String>, longest: usize) -> Result<Option<String>> {
    let checked = value.clone().map(length(0, longest)).transpose();
    checked.map_err(|(code, message)| Error::invalid(field, code, message))
}

impl JobFilter {
    /// The jobs to scan, along an index, and the conditions to check on each.
    pub(super) fn rows(
        &self,
        backend: DbBackend,
    ) -> Result<(Select<job::Entity>, Option<Condition>)> {
        use job::Column;
        // The most selective first: it chooses the index.
        let indexed = [
            self.user_id.map(|user| Column::UserId.eq(user)),
            self.error_code
                .as_ref()
                .map(|code| Column::ErrorCode.eq(code)),
            self.status.map(job::Status::is_in_index),
            self.model.as_ref().map(|model| Column::Model.eq(model)),
        ];
        let mut indexed = indexed.into_iter().flatten();
        let mut rows = job::Entity::find();
        if let Some(leading) = indexed.next() {
            rows = rows.filter(leading);
        }
        // An id is made a little before its row's `created_at`.
        let created_after = self.created_after.map(clamp_to_range);
        let created_before = self.created_before.map(clamp_to_range);
        if let Some(after) = created_after {
            rows = rows.filter(Column::Id.gte(id_at(after - SLACK)));
        }
        if let Some(before) = created_before {
            rows = rows.filter(Column::Id.lt(id_at(before)));
        }
        let exact = [
            created_after.map(|after| Column::CreatedAt.gte(after)),
            created_before.map(|before| Column::CreatedAt.lt(before)),
            search_term(self.q.as_deref())?.map(|q| matches_search(backend, q)),
        ];
        let mut wanted = indexed.chain(exact.into_iter().flatten()).peekable();
        let wanted = wanted
            .peek()
            .is_some()
            .then(|| wanted.fold(Condition::all(), Condition::add));
        Ok((rows, wanted))
    }
}

/// A time that both databases can represent.
fn clamp_to_range(time: DateTime<Utc>) -> DateTime<Utc> {
    time.clamp(
        DateTime::UNIX_EPOCH,
        DateTime::from_timestamp_nanos(i64::MAX),
    )
}

const SLACK: TimeDelta = TimeDelta::seconds(1);

/// The smallest UUIDv7 of a time.
fn id_at(time: DateTime<Utc>) -> Uuid {
    const LATEST: u128 = (1 << 48) - 1;
    let millis = u128::try_from(time.timestamp_millis()).unwrap_or(0);
    Uuid::from_u128(millis.min(LATEST) << 80)
}

/// Jobs whose topic or owner's name contains `q`.
fn matches_search(backend: DbBackend, q: &str) -> SimpleExpr {
    let topic = Query::select()
        .column(post::Column::Topic)
        .from(post::Entity)
        .and_where(
            Expr::col((post::Entity, post::Column::Id)).equals((job::Entity, job::Column::PostId)),
        )
        .take();
    let owner = Query::select()
        .column(user::Column::Username)
        .from(user::Entity)
        .and_where(
            Expr::col((user::Entity, user::Column::Id)).equals((job::Entity, job::Column::UserId)),
        )
        .take();
    // Not as EXISTS, for which Postgres would search all posts.
    let contains =
        |text| substring_search::contains(backend, SimpleExpr::SubQuery(None, Box::new(text)), q);
    contains(topic.into()).or(contains(owner.into()))
}
