//! Idempotency keys, with the fingerprint of the request and the stored response.

use chrono::TimeDelta;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{LockBehavior, LockType, OnConflict, SimpleExpr};
use sea_orm::{
    DatabaseTransaction, DbBackend, ExprTrait, IntoActiveModel, QueryOrder, QuerySelect,
    QueryTrait, Statement, UpdateMany,
};

use crate::clock::{Timestamp, now};

/// How long a key is valid.
const KEY_TTL: TimeDelta = TimeDelta::hours(24);

/// A row of `idempotency_keys`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "idempotency_keys")]
pub struct Model {
    /// The user who sent it: users' keys are independent of each other.
    #[sea_orm(primary_key, auto_increment = false)]
    pub user_id: Uuid,
    /// The key as the client chose it.
    #[sea_orm(primary_key, auto_increment = false)]
    pub key: String,
    /// A hash of the request.
    pub fingerprint: String,
    /// The response, in the API's own format. Null until the transaction that claims the key stores
    /// it, and once its post is deleted.
    pub answer: Option<Json>,
    /// The post that the response contains.
    pub post_id: Option<Uuid>,
    /// When the request came.
    pub created_at: Timestamp,
    /// Until when the first request waits for a newer response; null if it does not.
    pub pending_until: Option<Timestamp>,
}

impl ActiveModelBehavior for ActiveModel {}

/// The condition that a key is no longer valid, whether or not it has been deleted yet.
fn is_expired() -> SimpleExpr {
    Column::CreatedAt.lte(now() - KEY_TTL)
}

impl Entity {
    /// About how many bytes a user's stored responses take.
    pub async fn stored_bytes(db: &impl ConnectionTrait, user: Uuid) -> Result<i64, DbErr> {
        // On SQLite the index has this very expression. Neither database reads the responses.
        let sql = match db.get_database_backend() {
            DbBackend::Postgres => {
                "SELECT COALESCE(SUM(pg_column_size(answer)), 0)::bigint \
                 FROM idempotency_keys WHERE user_id = $1"
            }
            _ => {
                "SELECT COALESCE(SUM(length(CAST(answer AS BLOB))), 0) \
                 FROM idempotency_keys WHERE user_id = $1"
            }
        };
        let backend = db.get_database_backend();
        let statement = Statement::from_sql_and_values(backend, sql, [user.into()]);
        let row = db.query_one_raw(statement).await?;
        row.map_or(Ok(0), |row| row.try_get_by_index(0))
    }

    /// Erases the responses that contain a post. The keys stay taken, so that no request is
    /// executed twice.
    pub async fn erase_responses(tx: &DatabaseTransaction, post: Uuid) -> Result<(), DbErr> {
        // Locked in the order of keys, as by everyone who locks several: no deadlocks.
        Entity::find()
            .select_only()
            .column(Column::Key)
            .filter(Column::PostId.eq(post))
            .order_by_asc(Column::UserId)
            .order_by_asc(Column::Key)
            .lock_exclusive()
            .into_tuple::<String>()
            .all(tx)
            .await?;
        Entity::update_many()
            .col_expr(Column::Answer, Expr::cust("NULL"))
            .filter(Column::PostId.eq(post))
            .exec(tx)
            .await?;
        Ok(())
    }

    /// Deletes up to `limit` expired keys, and returns how many.
    pub async fn delete_expired(db: &impl ConnectionTrait, limit: u64) -> Result<u64, DbErr> {
        let ids = [Column::UserId, Column::Key];
        let some = Entity::find()
            .select_only()
            .columns(ids)
            .filter(is_expired())
            .limit(limit)
            // A locked one is about to be claimed again.
            .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
            .into_query();
        let delete = Entity::delete_many()
            .filter(Expr::tuple(ids.map(Expr::col)).in_subquery(some))
            // One that was selected may have been claimed again meanwhile.
            .filter(is_expired());
        Ok(delete.exec(db).await?.rows_affected)
    }
}

impl Model {
    /// Claims the key; false if it is taken. Waits for another transaction that is claiming it.
    ///
    /// # Errors
    /// A foreign key violation if the user is deleted.
    pub async fn claim(&self, tx: &DatabaseTransaction) -> Result<bool, DbErr> {
        let replace_expired = OnConflict::columns([Column::UserId, Column::Key])
            .update_columns([
                Column::Fingerprint,
                Column::Answer,
                Column::PostId,
                Column::CreatedAt,
                Column::PendingUntil,
            ])
            .action_and_where(is_expired())
            .to_owned();
        let claimed = Entity::insert(self.clone().into_active_model())
            .on_conflict(replace_expired)
            .exec_without_returning(tx)
            .await?;
        Ok(claimed == 1)
    }

    /// Stores the response, which contains `post`, in the transaction that claimed the key.
    pub async fn store_response(
        &self,
        tx: &DatabaseTransaction,
        response: Json,
        post: Uuid,
    ) -> Result<(), DbErr> {
        let update = self.set_response(response);
        update
            .col_expr(Column::PostId, Expr::value(post))
            .exec(tx)
            .await?;
        Ok(())
    }

    /// Replaces the response by a newer one, unless `pending_until` has passed, after which the
    /// first may have been replayed, or its post is deleted.
    pub async fn replace_response(
        &self,
        tx: &DatabaseTransaction,
        response: Json,
    ) -> Result<(), DbErr> {
        self.set_response(response)
            .col_expr(Column::PendingUntil, Expr::cust("NULL"))
            .filter(Column::PendingUntil.gt(now()))
            .filter(Column::Answer.is_not_null())
            .exec(tx)
            .await?;
        Ok(())
    }

    /// The stored row that has this key.
    pub async fn find(&self, tx: &DatabaseTransaction) -> Result<Option<Model>, DbErr> {
        Entity::find_by_id((self.user_id, self.key.clone()))
            .one(tx)
            .await
    }

    fn set_response(&self, response: Json) -> UpdateMany<Entity> {
        Entity::update_many()
            .col_expr(Column::Answer, Expr::value(response))
            .filter(Column::UserId.eq(self.user_id))
            .filter(Column::Key.eq(self.key.as_str()))
    }
}
