//! The wire to a database, which can be cut.

use std::path::PathBuf;

use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::cluster::Cluster;

/// Passes on what is said over each connection, until it is cut.
pub(crate) struct Wire {
    folder: TempDir,
    cut: watch::Sender<()>,
}

/// What Postgres calls its socket.
const SOCKET: &str = ".s.PGSQL.5432";

impl Wire {
    pub(crate) async fn to(cluster: &Cluster) -> Wire {
        let folder = tempfile::Builder::new()
            .prefix("blog-wire.")
            .tempdir_in("/tmp");
        let folder = folder.unwrap();
        let listener = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        let (cut, is_cut) = watch::channel(());
        let server = cluster.folder().join(SOCKET);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass_on(client, server.clone(), is_cut.clone()));
            }
        });
        Wire { folder, cut }
    }

    /// The database's address at this end.
    pub(crate) fn url(&self) -> String {
        crate::cluster::url(self.folder.path())
    }

    /// From now on nothing more is heard over the connections that are open. New
    /// ones can be made.
    pub(crate) fn cut(&self) {
        self.cut.send_replace(());
    }
}

async fn pass_on(mut client: UnixStream, server: PathBuf, mut is_cut: watch::Receiver<()>) {
    let mut server = UnixStream::connect(server).await.unwrap();
    is_cut.mark_unchanged();
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        Ok(()) = is_cut.changed() => {
            // Still open, for whoever is at its ends.
            std::future::pending::<()>().await;
        }
    }
}
