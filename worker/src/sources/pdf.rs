//! The text of a PDF. Documents of others can make a reader of them panic, or take all memory and time;
//! so they are read by a process of the worker's own binary, `worker read-pdf`, which has limits and no
//! settings: the document on its standard input becomes an [`Extract`] on its standard output.

mod layout;

use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use encoding_rs::{UTF_8, UTF_16BE};
use entity::source::Status;
use pdf_extract::{Dictionary, Document, Object, output_doc_page};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;

use self::layout::{Layout, text_of};
use crate::config::PROGRAM_NAME;

/// How long the process may take.
const MAX_TIME: Duration = Duration::from_secs(20);

/// How much memory it may take, in bytes of addresses.
const MAX_MEMORY: u64 = 1 << 30;

/// Once there is so much text, the other pages are not read.
const MAX_TEXT_BYTES: usize = 400_000;

/// How much of its output is read.
const MAX_OUTPUT_BYTES: u64 = 4 << 20;

/// What is in a PDF.
#[derive(Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Extract {
    pub(super) title: Option<String>,
    pub(super) author: Option<String>,
    pub(super) text: String,
}

/// Reads a document in a process of its own, which ends with this future.
pub(super) async fn read(program: &Path, document: &[u8]) -> Result<Extract, Status> {
    let exchange = async {
        let mut process = Command::new(program)
            .arg0(PROGRAM_NAME)
            .arg(COMMAND)
            .env_clear()
            // The allocator would reserve all that MAX_MEMORY allows before it is set.
            .env("MIMALLOC_ARENA_RESERVE", "32MiB")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
        let write = async {
            if let Some(mut stdin) = stdin {
                // It fails if the process has ended.
                let _ = stdin.write_all(document).await;
            }
        };
        let mut output = Vec::new();
        let read = async {
            match stdout {
                Some(stdout) => stdout.take(MAX_OUTPUT_BYTES).read_to_end(&mut output).await,
                None => Ok(0),
            }
        };
        let ((), read) = tokio::join!(write, read);
        read?;
        io::Result::Ok((process.wait().await?, output))
    };
    match timeout(MAX_TIME, exchange).await {
        Ok(Ok((ending, output))) => serde_json::from_slice(&output).map_err(|_| {
            tracing::warn!(%ending, "a PDF can't be read");
            Status::Unsupported
        }),
        Ok(Err(error)) => {
            tracing::error!(%error, "can't start the process that reads PDFs");
            Err(Status::Unsupported)
        }
        Err(_) => {
            tracing::warn!("a PDF takes too long to read");
            Err(Status::Unsupported)
        }
    }
}

/// The name of the command that [`run`] is.
pub(crate) const COMMAND: &str = "read-pdf";

/// Reads a document, within limits: `worker read-pdf`, which only the worker itself starts.
///
/// # Errors
/// If the document can't be read.
pub(crate) fn run() -> anyhow::Result<()> {
    limit(Resource::As, MAX_MEMORY)?;
    limit(Resource::Cpu, MAX_TIME.as_secs())?;
    // A crash leaves no file with the document in it.
    limit(Resource::Core, 0)?;
    let mut document = Vec::new();
    io::stdin().lock().read_to_end(&mut document)?;
    let extract = extract(&document)?;
    io::stdout()
        .lock()
        .write_all(&serde_json::to_vec(&extract)?)?;
    Ok(())
}

/// Limits a resource of this process, further than it is.
fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let most = getrlimit(resource)
        .maximum
        .map_or(most, |now| now.min(most));
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    Ok(setrlimit(resource, limit)?)
}

fn extract(document: &[u8]) -> anyhow::Result<Extract> {
    let mut document = Document::load_mem(document)?;
    if document.is_encrypted() {
        // Many may be read by all, and only not be changed.
        document.decrypt("")?;
    }
    let mut pages = Vec::new();
    let mut bytes = 0;
    for number in document.get_pages().into_keys() {
        let mut layout = Layout::default();
        // What can't be drawn, or makes the reader panic, ends its page.
        let draw = || output_doc_page(&document, &mut layout, number);
        let _ = catch_unwind(AssertUnwindSafe(draw));
        bytes += layout.bytes();
        pages.push(layout);
        if bytes > MAX_TEXT_BYTES {
            break;
        }
    }
    Ok(Extract {
        title: name(&document, b"Title"),
        author: name(&document, b"Author"),
        text: text_of(pages),
    })
}

/// A text of the document's information (ISO 32000-1, 14.3.3), if it has one.
fn name(document: &Document, key: &[u8]) -> Option<String> {
    let information = document.trailer.get(b"Info").ok()?;
    let information: &Dictionary = match information {
        Object::Reference(id) => document.get_object(*id).ok()?.as_dict().ok()?,
        other => other.as_dict().ok()?,
    };
    let bytes = information.get(key).ok()?.as_str().ok()?;
    let name = match bytes {
        [0xFE, 0xFF, rest @ ..] => UTF_16BE.decode(rest).0.into_owned(),
        [0xEF, 0xBB, 0xBF, rest @ ..] => UTF_8.decode(rest).0.into_owned(),
        bytes => bytes.iter().copied().map(char::from).collect(),
    };
    Some(name).filter(|name| name.contains(char::is_alphanumeric))
}
