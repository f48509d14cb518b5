//! Commands for operators. Each returns what was done, for people.

use std::path::Path;

use anyhow::{Context, bail};
use entity::audit::{Action, AuditEvent, RequestMetadata, UserRef};
use entity::user;
use sea_orm::{ActiveModelTrait, IntoActiveModel, Set};
use serde_json::json;
use shared::config::StorageSettings;
use shared::database::{self, Database};

use crate::config::Command;

/// Runs a command.
///
/// # Errors
/// If it can't be done.
pub async fn run(command: Command, storage: &StorageSettings) -> anyhow::Result<String> {
    match command {
        Command::MakeAdmin { username } => {
            let db = Database::open_existing(storage).await?;
            let done = make_admin(&db, username).await;
            db.close().await;
            done
        }
        Command::Backup { file } => backup(storage, &file).await,
    }
}

async fn backup(storage: &StorageSettings, file: &Path) -> anyhow::Result<String> {
    let size = database::backup(storage, file).await?;
    Ok(format!("{} has the backup, {size} bytes.", file.display()))
}

/// Makes a user an admin.
///
/// # Errors
/// When there is no such user, or it is disabled.
pub async fn make_admin(db: &Database, username: String) -> anyhow::Result<String> {
    let found = user::Entity::find_by_username(&username).one(db.read());
    let Some(user) = found.await? else {
        bail!("there is no user {username:?}; sign up first");
    };
    db.transaction(async move |tx| {
        let user = user::Entity::lock_for_update(tx, user.id).await?;
        let user = user.context("the user has just been deleted")?;
        let name = user.username.clone();
        if user.disabled_at.is_some() {
            bail!("{name} is disabled, and can't be made an admin");
        }
        if user.is_admin() {
            return Ok(format!("{name} is an admin already."));
        }
        let event = AuditEvent {
            action: Action::RoleChanged,
            actor: None,
            subject: Some(UserRef::from(&user)),
            source: RequestMetadata::default(),
            details: Some(json!({ "from": "user", "to": "admin", "by": "command line" })),
        };
        event.insert(tx).await?;
        let mut user = user.into_active_model();
        user.role = Set(user::Role::Admin);
        user.update(tx).await?;
        Ok(format!("{name} is an admin now."))
    })
    .await
}
