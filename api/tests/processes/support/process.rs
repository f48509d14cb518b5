//! A process of one of our binaries, its output read as it comes.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testing::TIMEOUT;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A running process. It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    started: Clocks,
    output: watch::Receiver<Vec<String>>,
    readers: JoinSet<()>,
}

/// What is left of a process.
pub(crate) struct Exit {
    /// None if it was killed.
    pub(crate) code: Option<i32>,
    /// All that it wrote, to standard output and standard error.
    pub(crate) output: Vec<String>,
    /// How long it took to end since it was told to.
    pub(crate) took: Duration,
    clock_was_set: bool,
}

/// The machine's two clocks, of which only one can be set.
#[derive(Clone, Copy)]
struct Clocks {
    time: SystemTime,
    elapsed: Instant,
}

impl Clocks {
    fn read() -> Self {
        Clocks {
            time: SystemTime::now(),
            elapsed: Instant::now(),
        }
    }

    /// Whether the time was set by a second or more since, as it is where the machine was suspended.
    fn was_set(self) -> bool {
        let now = Clocks::read();
        let elapsed = now.elapsed - self.elapsed;
        let shown = now.time.duration_since(self.time).unwrap_or_default();
        shown.abs_diff(elapsed) >= Duration::from_secs(1)
    }
}

/// Where cargo has put a binary. It tells us only of our own package's.
pub(crate) fn binary(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_api")).with_file_name(name);
    assert!(
        path.exists(),
        "there is no {}: run the tests with --workspace",
        path.display()
    );
    path
}

impl Process {
    /// Starts a binary in `folder`, with no environment but `settings`; of two
    /// values for one name the later counts.
    pub(crate) fn start(name: &str, folder: &Path, settings: &[(&str, String)]) -> Process {
        Process::start_with(name, &[], folder, settings)
    }

    pub(crate) fn start_with(
        name: &str,
        arguments: &[&str],
        folder: &Path,
        settings: &[(&str, String)],
    ) -> Process {
        Process::start_program(&binary(name), arguments, folder, settings)
    }

    pub(crate) fn start_program(
        program: &Path,
        arguments: &[&str],
        folder: &Path,
        settings: &[(&str, String)],
    ) -> Process {
        let mut command = Command::new(program);
        command.args(arguments);
        Process::spawn(command, folder, settings)
    }

    /// Starts a binary that `ulimit` lets open no more files than this says.
    pub(crate) fn start_with_open_files(
        limit: &str,
        name: &str,
        folder: &Path,
        settings: &[(&str, String)],
    ) -> Process {
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(format!("ulimit {limit} && exec \"$0\""));
        command.arg(binary(name));
        Process::spawn(command, folder, settings)
    }

    fn spawn(mut command: Command, folder: &Path, settings: &[(&str, String)]) -> Process {
        let started = Clocks::read();
        let mut child = command
            .current_dir(folder)
            .env_clear()
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (write, output) = watch::channel(Vec::new());
        let mut readers = JoinSet::new();
        readers.spawn(read(child.stdout.take().unwrap(), write.clone()));
        readers.spawn(read(child.stderr.take().unwrap(), write));
        Process {
            child,
            started,
            output,
            readers,
        }
    }

    /// Waits for a log line with this message, in JSON.
    pub(crate) async fn wait_for_message(&self, message: &str) -> Value {
        let line = self.line(&format!("\"message\":\"{message}\"")).await;
        serde_json::from_str(&line).unwrap()
    }

    /// Waits for a line that contains this.
    pub(crate) async fn line(&self, part: &str) -> String {
        let mut output = self.output.clone();
        let said = output.wait_for(|lines| lines.iter().any(|line| line.contains(part)));
        if let Ok(Ok(lines)) = timeout(TIMEOUT, said).await {
            return lines
                .iter()
                .find(|line| line.contains(part))
                .unwrap()
                .clone();
        }
        let output = self.output.borrow().join("\n");
        panic!("the process does not say {part:?}, but:\n{output}");
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("the process is gone")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(signal, self.id());
    }

    /// Ends it without a word.
    pub(crate) async fn kill(self) -> Exit {
        self.signal(Signal::KILL);
        let exit = self.wait_for_exit().await;
        assert_eq!(exit.code, None, "{}", exit.text());
        exit
    }

    /// Asks it to end, which must go well.
    pub(crate) async fn stop(self) -> Exit {
        let begun = Instant::now();
        self.signal(Signal::TERM);
        let exit = self.wait_for_exit_since(begun).await;
        assert_eq!(exit.code, Some(0), "{}", exit.text());
        exit
    }

    /// Waits until it has ended, and all that it wrote is read.
    pub(crate) async fn wait_for_exit(self) -> Exit {
        self.wait_for_exit_since(Instant::now()).await
    }

    async fn wait_for_exit_since(mut self, begun: Instant) -> Exit {
        let status = timeout(TIMEOUT, self.child.wait()).await;
        let Ok(status) = status else {
            panic!("it does not end:\n{}", self.output.borrow().join("\n"));
        };
        let took = begun.elapsed();
        let read = timeout(TIMEOUT, self.readers.join_all()).await;
        read.expect("someone holds its output open");
        Exit {
            code: status.unwrap().code(),
            output: self.output.borrow().clone(),
            took,
            clock_was_set: self.started.was_set(),
        }
    }
}

impl Exit {
    pub(crate) fn text(&self) -> String {
        self.output.join("\n")
    }

    /// The log; each line must be a JSON object.
    pub(crate) fn log(&self) -> Vec<Value> {
        let parse = |line: &String| {
            let parsed: Option<Value> = serde_json::from_str(line).ok();
            parsed
                .filter(Value::is_object)
                .unwrap_or_else(|| panic!("no JSON object: {line}"))
        };
        self.output.iter().map(parse).collect()
    }

    /// Nothing that an operator would have to look at, unless the machine's clock was set: then it
    /// is right to say so.
    pub(crate) fn assert_no_warnings(&self) {
        let is_right = |line: &Value| {
            let message = line["message"].as_str().unwrap_or_default();
            self.clock_was_set && message.starts_with("the clock was set")
        };
        let troubled =
            |line: &Value| (line["level"] == "WARN" || line["level"] == "ERROR") && !is_right(line);
        let troubles: Vec<Value> = self.log().into_iter().filter(troubled).collect();
        assert!(troubles.is_empty(), "{troubles:#?}");
    }
}

async fn read(from: impl AsyncRead + Unpin, to: watch::Sender<Vec<String>>) {
    let mut lines = BufReader::new(from).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        to.send_modify(|all| all.push(line));
    }
}

/// Sends a signal to a process, whosever child it is.
pub(crate) fn send(signal: Signal, id: u32) {
    let id = Pid::from_raw(id.cast_signed()).unwrap();
    kill_process(id, signal).unwrap();
}

/// Waits until a process is dead, whosever child it was; it may be left
/// unreaped by whoever inherited it.
pub(crate) async fn wait_until_dead(id: u32) {
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    };
    let gone = async {
        while !matches!(state(), None | Some('Z' | 'X')) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let gone = timeout(TIMEOUT, gone).await;
    gone.unwrap_or_else(|_| panic!("process {id} lives"));
}
