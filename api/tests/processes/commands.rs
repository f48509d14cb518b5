//! What is done from the command line.

use sea_orm::{ConnectionTrait, Statement};

use crate::support::{Exit, Process, Service};

async fn make_admin(service: &Service, arguments: &[&str]) -> Exit {
    let arguments = [&["make-admin"], arguments].concat();
    let command = Process::start_with("api", &arguments, service.path(), &service.settings);
    command.wait_for_exit().await
}

#[tokio::test]
async fn the_first_admin_is_made_while_the_service_runs() {
    let service = Service::new();
    let api = service.api().await;
    let ann = api.user("ann").await;
    assert_eq!(ann.get("/admin/users").await.status, 403);
    let made = make_admin(&service, &["Ann"]).await;
    assert_eq!(
        (made.code, made.text()),
        (Some(0), "ann is an admin now.".into())
    );
    assert_eq!(ann.get("/admin/users").await.status, 200);
    let trail = ann.get("/admin/audit").await.body;
    assert_eq!(trail["items"][0]["details"]["by"], "command line");
    api.stop().await.assert_no_warnings();
}

#[tokio::test]
async fn an_unknown_user_is_made_no_admin() {
    let service = Service::new();
    let api = service.api().await;
    let unknown = make_admin(&service, &["bob"]).await;
    assert_eq!(unknown.code, Some(1));
    assert_eq!(
        unknown.text(),
        "Error: there is no user \"bob\"; sign up first"
    );
    let nobody = make_admin(&service, &[]).await;
    assert_eq!(nobody.code, Some(2));
    assert!(nobody.text().contains("<USERNAME>"), "{}", nobody.text());
    api.stop().await.assert_no_warnings();
}

#[tokio::test]
async fn a_missing_database_is_reported_and_not_created() {
    let service = Service::new();
    let refused = make_admin(&service, &["ann"]).await;
    let said = refused.text();
    assert_eq!(refused.code, Some(1), "{said}");
    assert!(said.contains("set DATA_DIR or DATABASE_URL"), "{said}");
    let made = service.path().read_dir().unwrap().count();
    assert_eq!(made, 0);
    if !service.is_on_sqlite() {
        let db = service.database().await;
        let sql =
            "SELECT 1 FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')";
        let sql = Statement::from_string(db.backend(), sql);
        assert!(db.read().query_one_raw(sql).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn help_lists_the_commands() {
    let service = Service::new();
    let help = Process::start_with("api", &["--help"], service.path(), &service.settings);
    let help = help.wait_for_exit().await.text();
    for line in [
        "make-admin     Make a user an admin",
        "backup         Copy the SQLite database",
        "restore        Replace the SQLite database",
        "after-restore  Finish a restore",
    ] {
        assert!(help.contains(line), "{help}");
    }
}
