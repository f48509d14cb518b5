//! Commands for operators. Each returns what was done, for people.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, bail};
use entity::audit::{Action, AuditEvent, RequestMetadata, UserRef};
use entity::user;
use sea_orm::{ActiveModelTrait, IntoActiveModel, Set};
use serde_json::json;
use shared::config::StorageSettings;
use shared::database::{self, Database, RestoreOptions, Revoked};

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
        Command::Restore {
            file,
            revoke_api_keys,
        } => restore(storage, &file, RestoreOptions { revoke_api_keys }).await,
        Command::AfterRestore { revoke_api_keys } => {
            let db = Database::open_to_migrate(storage).await?;
            let options = RestoreOptions { revoke_api_keys };
            let revoked = database::after_restore(&db, options).await;
            db.close().await;
            Ok(revoked_text(revoked?, options))
        }
    }
}

async fn backup(storage: &StorageSettings, file: &Path) -> anyhow::Result<String> {
    let size = database::backup(storage, file).await?;
    Ok(format!("{} has the backup, {size} bytes.", file.display()))
}

async fn restore(
    storage: &StorageSettings,
    file: &Path,
    options: RestoreOptions,
) -> anyhow::Result<String> {
    let restored = database::restore(storage, file, options).await?;
    let database = restored.database.display();
    let mut done = format!("{database} is restored from {}.", file.display());
    if let Some(kept) = &restored.kept {
        let kept = kept.display();
        write!(
            done,
            "\nThe database that was there before is kept as {kept}."
        )?;
    }
    write!(done, "\n{}", revoked_text(restored.revoked, options))?;
    if !restored.undone.is_empty() {
        let undone = restored.undone.iter();
        let undone: Vec<String> = undone.map(|(action, n)| format!("{action} {n}")).collect();
        write!(
            done,
            "\nSince the backup people have done what is undone now, and may have to be done again: \
             {}. The audit trail of the kept database has the details.",
            undone.join(", ")
        )?;
    }
    if !restored.newer.is_empty() {
        let newer = restored.newer.join(", ");
        write!(
            done,
            "\nIt has migrations of a newer version, which this one can work with: {newer}."
        )?;
    }
    Ok(done)
}

fn revoked_text(revoked: Revoked, options: RestoreOptions) -> String {
    let sessions = revoked.sessions;
    let mut text = format!("Sessions ended: {sessions}. Everyone has to sign in again.");
    if options.revoke_api_keys {
        text += &format!("\nAPI keys revoked: {}.", revoked.api_keys);
    }
    text
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
