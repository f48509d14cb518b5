//! Which of all users' jobs are meant.

use chrono::{DateTime, TimeDelta, Utc};
use entity::{job, post, user};
use sea_orm::sea_query::{Expr, Query, SimpleExpr};
use sea_orm::{ColumnTrait, Condition, DbBackend, EntityTrait, ExprTrait, QueryFilter, Select};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::body::{Body, Fields, any, text};
use crate::error::{Error, Result, both};
use crate::query::{LONGEST_Q, searched};
use crate::routes::jobs::Status;
use crate::search;

/// Which jobs to list. All that is given must be true of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    status: Option<Status>,
    /// The owner.
    user_id: Option<Uuid>,
    /// The code of the latest error.
    #[param(max_length = 64, pattern = "^[^\\x00]*$")]
    error_code: Option<String>,
    /// The model that writes.
    #[param(max_length = 200, pattern = "^[^\\x00]*$")]
    model: Option<String>,
    /// What the topic or the owner's name must contain, whatever its case.
    #[param(max_length = 200, pattern = "^[^\\x00]*$")]
    q: Option<String>,
    /// The earliest time at which they were asked for.
    created_after: Option<DateTime<Utc>>,
    /// The time before which they were asked for.
    created_before: Option<DateTime<Utc>>,
    /// How many a page may have, by default 20.
    #[param(minimum = 1, maximum = 100)]
    pub(super) limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(max_length = 500, pattern = "^[A-Za-z0-9_-]+$")]
    pub(super) cursor: Option<String>,
}

/// Which jobs are meant. All that is given must be true of them; with nothing
/// given, all are.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
#[schema(as = JobSelection)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    status: Option<Status>,
    /// The owner.
    user_id: Option<Uuid>,
    /// The code of the latest error.
    #[schema(max_length = 64, pattern = "^[^\\x00]*$")]
    error_code: Option<String>,
    /// The model that writes.
    #[schema(max_length = 200, pattern = "^[^\\x00]*$")]
    model: Option<String>,
    /// What the topic or the owner's name must contain, whatever its case.
    #[schema(max_length = 200, pattern = "^[^\\x00]*$")]
    q: Option<String>,
    /// The earliest time at which they were asked for.
    created_after: Option<DateTime<Utc>>,
    /// The time before which they were asked for.
    created_before: Option<DateTime<Utc>>,
}

const LONGEST_CODE: usize = 64;
const LONGEST_MODEL: usize = 200;

impl Body for Selection {
    fn read(fields: &mut Fields) -> Option<Self> {
        let status = fields.optional("status", any);
        let user_id = fields.optional("user_id", any);
        let error_code = fields.optional("error_code", text(0, LONGEST_CODE));
        let model = fields.optional("model", text(0, LONGEST_MODEL));
        let q = fields.optional("q", text(0, LONGEST_Q));
        let created_after = fields.optional("created_after", any);
        let created_before = fields.optional("created_before", any);
        Some(Selection {
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

impl TryFrom<&Filter> for Selection {
    type Error = Error;

    fn try_from(filter: &Filter) -> Result<Self> {
        let error_code = checked("error_code", &filter.error_code, LONGEST_CODE);
        let model = checked("model", &filter.model, LONGEST_MODEL);
        let q = searched(filter.q.as_deref());
        let ((error_code, model), q) = both(both(error_code, model), q)?;
        Ok(Selection {
            status: filter.status,
            user_id: filter.user_id,
            error_code,
            model,
            q: q.map(str::to_owned),
            created_after: filter.created_after,
            created_before: filter.created_before,
        })
    }
}

/// Text of a query, held to what a body's is.
fn checked(field: &str, value: &Option<String>, longest: usize) -> Result<Option<String>> {
    let checked = value.clone().map(text(0, longest)).transpose();
    checked.map_err(|(code, message)| Error::invalid(field, code, message))
}

impl Selection {
    /// The jobs to look through, along an index, and what is wanted of them.
    ///
    /// # Errors
    /// [`crate::error::Error::Validation`] if `q` can't be searched for.
    pub(super) fn rows(
        &self,
        backend: DbBackend,
    ) -> Result<(Select<job::Entity>, Option<Condition>)> {
        use job::Column;
        // The first leads, for it leaves the fewest.
        let indexed = [
            self.user_id.map(|user| Column::UserId.eq(user)),
            self.error_code
                .as_ref()
                .map(|code| Column::ErrorCode.eq(code)),
            self.status
                .map(|status| job::Status::from(status).is_in_index()),
            self.model.as_ref().map(|model| Column::Model.eq(model)),
        ];
        let mut indexed = indexed.into_iter().flatten();
        let mut rows = job::Entity::find();
        if let Some(leading) = indexed.next() {
            rows = rows.filter(leading);
        }
        // An id is a little older than what it is the id of.
        let (created_after, created_before) = (
            self.created_after.map(within_reach),
            self.created_before.map(within_reach),
        );
        if let Some(after) = created_after {
            rows = rows.filter(Column::Id.gte(id_at(after - SLACK)));
        }
        if let Some(before) = created_before {
            rows = rows.filter(Column::Id.lt(id_at(before)));
        }
        let exact = [
            created_after.map(|after| Column::CreatedAt.gte(after)),
            created_before.map(|before| Column::CreatedAt.lt(before)),
            searched(self.q.as_deref())?.map(|q| is_about(backend, q)),
        ];
        let wanted: Vec<SimpleExpr> = indexed.chain(exact.into_iter().flatten()).collect();
        let wanted = match wanted.is_empty() {
            true => None,
            false => Some(wanted.into_iter().fold(Condition::all(), Condition::add)),
        };
        Ok((rows, wanted))
    }
}

/// A time that databases know: before it there were no jobs, and after it there
/// are none yet.
fn within_reach(time: DateTime<Utc>) -> DateTime<Utc> {
    time.clamp(
        DateTime::UNIX_EPOCH,
        DateTime::from_timestamp_nanos(i64::MAX),
    )
}

const SLACK: TimeDelta = TimeDelta::seconds(1);

/// The least UUIDv7 of a moment.
fn id_at(time: DateTime<Utc>) -> Uuid {
    const LATEST: u128 = (1 << 48) - 1;
    let millis = u128::try_from(time.timestamp_millis()).unwrap_or(0);
    Uuid::from_u128(millis.min(LATEST) << 80)
}

/// Jobs whose topic, or whose owner's name, contains `q`.
fn is_about(backend: DbBackend, q: &str) -> SimpleExpr {
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
    // Not as EXISTS, for which Postgres would search all the posts there are.
    let contains = |text| search::contains(backend, SimpleExpr::SubQuery(None, Box::new(text)), q);
    contains(topic.into()).or(contains(owner.into()))
}
