//! The types `Launcher` and `Running`: the built program as a child process, which is killed when it is dropped.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::wait;

/// A command line of the program, before it is started.
pub(crate) struct Launcher {
    command: Command,
}

impl Launcher {
    /// Prepares the program with a minimal environment: search path, home directory and state directory.
    pub(crate) fn alone(home: &Path) -> Self {
        let mut launcher = Self::inheriting(home);
        launcher.command.env_clear().env("HOME", home).env("XDG_STATE_HOME", home.join("state"));
        for kept in ["PATH", "SystemRoot", "LLVM_PROFILE_FILE"] {
            if let Some(value) = std::env::var_os(kept) {
                launcher.command.env(kept, value);
            }
        }
        launcher
    }

    /// Prepares the program with the environment of this process, which a credential plugin may need, but without settings.
    pub(crate) fn inheriting(home: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gpu-syringe"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GPU_SYRINGE_") {
                command.env_remove(name);
            }
        }
        command.env("XDG_STATE_HOME", home.join("state"));
        Self { command }
    }

    /// Sets an environment variable of the program.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Adds arguments to the command line.
    pub(crate) fn args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.command.args(args);
        self
    }

    /// Starts the program with pipes for its three standard streams.
    pub(crate) fn start(mut self) -> Running {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("a pipe");
        let stderr = child.stderr.take().expect("a pipe");
        let (line, lines) = unbounded_channel();
        std::thread::spawn(move || {
            for text in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.send(text).is_err() {
                    return;
                }
            }
        });
        let said = Arc::new(Mutex::new(String::new()));
        let into = said.clone();
        let log = std::thread::spawn(move || {
            for text in BufReader::new(stderr).lines().map_while(Result::ok) {
                into.lock().unwrap_or_else(PoisonError::into_inner).push_str(&(text + "\n"));
            }
        });
        let stdin = child.stdin.take();
        Running { child, stdin, lines, said, log }
    }

    /// Runs the program with empty standard input until it exits.
    pub(crate) async fn run(self) -> Ended {
        let mut running = self.start();
        running.close_stdin();
        let status = running.exit().await;
        let mut stdout = String::new();
        while let Some(line) = running.lines.recv().await {
            stdout.push_str(&(line + "\n"));
        }
        Ended { code: status.code(), stdout, stderr: running.said() }
    }
}

/// The exit code and the output of a run.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Exit code; `None`: the program was killed by a signal.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Ended {
    /// Parses standard output, which must be one JSON document.
    pub(crate) fn json(&self) -> Value {
        // Exit code 1 means an answer with a critical finding.
        assert!(matches!(self.code, Some(0 | 1)), "{:?}: {}", self.code, self.stderr);
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// The running program.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Lines of the program's standard output.
    pub(crate) lines: UnboundedReceiver<String>,
    said: Arc<Mutex<String>>,
    /// Task that collects standard error until it is closed.
    log: JoinHandle<()>,
}

impl Running {
    /// Writes one line to the program's standard input.
    pub(crate) fn write(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("standard input is open");
        stdin.write_all(format!("{line}\n").as_bytes()).and_then(|()| stdin.flush()).expect("the program reads");
    }

    /// Writes one line, unless the program has exited.
    pub(crate) fn try_write(&mut self, line: &str) {
        if let Some(stdin) = self.stdin.as_mut() {
            let _ = stdin.write_all(format!("{line}\n").as_bytes()).and_then(|()| stdin.flush());
        }
    }

    /// Waits until the program exits, at most until `end`.
    pub(crate) async fn exit_by(&mut self, end: Instant) -> Option<ExitStatus> {
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().expect("a child") {
                // The last output may still be in the pipe.
                while !self.log.is_finished() && Instant::now() < end {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                return Some(status);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        None
    }

    /// Closes the program's standard input.
    pub(crate) fn close_stdin(&mut self) {
        drop(self.stdin.take());
    }

    /// Sends a signal to the program by name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        assert!(self.try_signal(name), "SIG{name} could not be sent");
    }

    /// Sends a signal, unless the program has exited.
    pub(crate) fn try_signal(&self, name: &str) -> bool {
        let mut kill = Command::new("kill");
        kill.args([format!("-{name}"), self.child.id().to_string()]).stderr(Stdio::null());
        kill.status().expect("kill runs").success()
    }

    /// Waits until the program exits.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        let ended = wait::until("the program exits", async || self.child.try_wait().expect("a child")).await;
        // The last output may still be in the pipe.
        wait::until("standard error is closed", async || self.log.is_finished().then_some(())).await;
        ended
    }

    /// Returns the standard error output so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
