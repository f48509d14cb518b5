//! The wire to a database, which can be cut.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::cluster::{self, Cluster};

/// Passes on what is said over each connection, until it is cut.
pub(crate) struct CuttableProxy {
    folder: TempDir,
    cut: watch::Sender<()>,
}

/// How well a wire passes on what is said.
#[derive(Clone, Debug)]
pub(crate) enum Quality {
    Good,
    /// Of every third commit the answer is lost, and the connection breaks. Of every
    /// other, a worker that commits by twos would be told of one kind and never of
    /// the other.
    /// Counts the commits.
    LosesAnswers(Arc<AtomicUsize>),
}

/// What Postgres calls its socket.
const SOCKET: &str = ".s.PGSQL.5432";

/// As sqlx says it.
const COMMIT: &[u8] = b"COMMIT\0";

impl CuttableProxy {
    pub(crate) async fn to(cluster: &Cluster, quality: Quality) -> CuttableProxy {
        let folder = tempfile::Builder::new()
            .prefix("blog-wire.")
            .tempdir_in("/tmp");
        let folder = folder.unwrap();
        let listener = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        let (cut, is_cut) = watch::channel(());
        let server = cluster.folder().join(SOCKET);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (quality, is_cut) = (quality.clone(), is_cut.clone());
                tokio::spawn(pass_on(client, server.clone(), quality, is_cut));
            }
        });
        CuttableProxy { folder, cut }
    }

    /// The database's address at this end.
    pub(crate) fn url(&self) -> String {
        cluster::url(self.folder.path())
    }

    /// From now on nothing more is heard over the connections that are open. New
    /// ones can be made.
    pub(crate) fn cut(&self) {
        self.cut.send_replace(());
    }
}

async fn pass_on(
    mut client: UnixStream,
    server: PathBuf,
    quality: Quality,
    mut is_cut: watch::Receiver<()>,
) {
    let mut server = UnixStream::connect(server).await.unwrap();
    is_cut.mark_unchanged();
    let talk = async {
        match quality {
            Quality::Good => copy_bidirectional(&mut client, &mut server)
                .await
                .map(|_| ()),
            Quality::LosesAnswers(commits) => {
                lose_answers(&mut client, &mut server, &commits).await
            }
        }
    };
    tokio::select! {
        _ = talk => {}
        Ok(()) = is_cut.changed() => {
            // Still open, for whoever is at its ends.
            std::future::pending::<()>().await;
        }
    }
}

async fn lose_answers(
    client: &mut UnixStream,
    server: &mut UnixStream,
    commits: &AtomicUsize,
) -> io::Result<()> {
    let (mut asking, mut told) = client.split();
    let (mut answering, mut asked) = server.split();
    let (lost, mut is_lost) = watch::channel(false);
    let questions = async {
        let mut some = [0; 65_536];
        loop {
            let length = asking.read(&mut some).await?;
            if length == 0 {
                return Ok(());
            }
            let commits_now = some[..length]
                .windows(COMMIT.len())
                .any(|part| part == COMMIT);
            if commits_now && commits.fetch_add(1, Ordering::Relaxed) % 3 == 1 {
                lost.send_replace(true);
            }
            asked.write_all(&some[..length]).await?;
        }
    };
    let answers = async {
        tokio::select! {
            _ = copy(&mut answering, &mut told) => {}
            _ = is_lost.wait_for(|lost| *lost) => {}
        }
        // Which it gives once it has committed.
        answering.read(&mut [0; 1024]).await
    };
    tokio::select! {
        asked = questions => asked,
        answer = answers => answer.map(|_| ()),
    }
}
