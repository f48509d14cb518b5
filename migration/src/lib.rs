//! The schema's history. A migration that has landed is never edited, and none
//! imports an entity: entities change, history doesn't.

pub use sea_orm_migration::prelude::*;

mod m20261122_000001_accounts;
mod m20261122_000002_posts_and_jobs;
mod m20261122_000003_reliability;
mod m20261122_000004_administration;
mod m20261123_000005_regenerations_and_retries;

/// Our migrations, in order. The queue's own tables are made by the queue.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261122_000001_accounts::Migration),
            Box::new(m20261122_000002_posts_and_jobs::Migration),
            Box::new(m20261122_000003_reliability::Migration),
            Box::new(m20261122_000004_administration::Migration),
            Box::new(m20261123_000005_regenerations_and_retries::Migration),
        ]
    }
}
