//! Idempotency keys: what was asked under them, and how it was answered.

use chrono::TimeDelta;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{LockBehavior, LockType, OnConflict, SimpleExpr};
use sea_orm::{
    DatabaseTransaction, DbBackend, ExprTrait, IntoActiveModel, QueryOrder, QuerySelect,
    QueryTrait, Statement, UpdateMany,
};

use crate::clock::{Timestamp, now};

/// How long a key is kept.
const KEY_TTL: TimeDelta = TimeDelta::hours(24);

/// A row of `idempotency_keys`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "idempotency_keys")]
pub struct Model {
    /// Whose it is. Others may use the same key, and never notice.
    #[sea_orm(primary_key, auto_increment = false)]
    pub user_id: Uuid,
    /// As the client chose it.
    #[sea_orm(primary_key, auto_increment = false)]
    pub key: String,
    /// A hash of what was asked.
    pub fingerprint: String,
    /// As the API keeps it. Null within the transaction that is to bring it, and
    /// once its post is deleted.
    pub answer: Option<Json>,
    /// The post that the answer tells of.
    pub post_id: Option<Uuid>,
    /// When it was asked.
    pub created_at: Timestamp,
    /// Until then, whoever asked first waits for a better answer.
    pub pending_until: Option<Timestamp>,
}

impl ActiveModelBehavior for ActiveModel {}

/// What is kept no longer. It counts for nothing, whether or not it has been
/// removed yet.
fn is_expired() -> SimpleExpr {
    Column::CreatedAt.lte(now() - KEY_TTL)
}

impl Entity {
    /// How many bytes a user's answers take, about.
    pub async fn stored_bytes(db: &impl ConnectionTrait, user: Uuid) -> Result<i64, DbErr> {
        // On SQLite as the index has it. Neither database reads the answers.
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

    /// Erases the answers that tell of a post. The keys stay taken, so that nothing
    /// is done twice.
    pub async fn erase_responses(tx: &DatabaseTransaction, post: Uuid) -> Result<(), DbErr> {
        // In one order, as all who lock several.
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

    /// Removes up to `limit` expired keys, and says how many.
    pub async fn delete_expired(db: &impl ConnectionTrait, limit: u64) -> Result<u64, DbErr> {
        let ids = [Column::UserId, Column::Key];
        let some = Entity::find()
            .select_only()
            .columns(ids)
            .filter(is_expired())
            .limit(limit)
            // One that somebody holds is about to be of use again.
            .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
            .into_query();
        let removed = Entity::delete_many()
            .filter(Expr::tuple(ids.map(Expr::col)).in_subquery(some))
            // One that was found may have been claimed anew meanwhile.
            .filter(is_expired())
            .exec(db)
            .await?;
        Ok(removed.rows_affected)
    }
}

impl Model {
    /// Takes the key; false if it is taken. A transaction that is about to take
    /// it, too, is waited for.
    ///
    /// # Errors
    /// When the user is gone, or the database does not answer.
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

    /// Keeps the answer, which tells of `post`, in the transaction that took the key.
    pub async fn store_response(
        &self,
        tx: &DatabaseTransaction,
        answer: Json,
        post: Uuid,
    ) -> Result<(), DbErr> {
        self.set_response(answer)
            .col_expr(Column::PostId, Expr::value(post))
            .exec(tx)
            .await?;
        Ok(())
    }

    /// Keeps a better answer, unless it comes so late that the first may have
    /// been given meanwhile, or its post is deleted.
    pub async fn replace_response(
        &self,
        tx: &DatabaseTransaction,
        answer: Json,
    ) -> Result<(), DbErr> {
        self.set_response(answer)
            .col_expr(Column::PendingUntil, Expr::cust("NULL"))
            .filter(Column::PendingUntil.gt(now()))
            .filter(Column::Answer.is_not_null())
            .exec(tx)
            .await?;
        Ok(())
    }

    /// The row that has the key.
    pub async fn find(&self, tx: &DatabaseTransaction) -> Result<Option<Model>, DbErr> {
        let id = (self.user_id, self.key.clone());
        Entity::find_by_id(id).one(tx).await
    }

    fn set_response(&self, answer: Json) -> UpdateMany<Entity> {
        Entity::update_many()
            .col_expr(Column::Answer, Expr::value(answer))
            .filter(Column::UserId.eq(self.user_id))
            .filter(Column::Key.eq(self.key.as_str()))
    }
}
