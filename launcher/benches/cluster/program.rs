//! `Program`: gpu-syringe as a process, which runs one command (`Ran`: its time and memory use). `Session`: gpu-syringe
//! as an MCP server. `run_timed`: runs any process.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::options::Options;

/// The program with the settings of this run.
pub(crate) struct Program {
    path: PathBuf,
    kubeconfig: PathBuf,
    args: Vec<String>,
    home: tempfile::TempDir,
}

/// The time, output and memory use of a finished command.
pub(crate) struct Ran {
    pub(crate) time: Duration,
    /// Peak resident memory, in MiB.
    pub(crate) peak_mib: Option<u64>,
    pub(crate) answer: Value,
}

impl Program {
    pub(crate) fn new(options: &Options, kubeconfig: PathBuf) -> Self {
        let mut args = vec!["--probe-namespace".to_owned(), options.namespace.clone()];
        args.extend(options.image.iter().flat_map(|image| ["--image".to_owned(), image.clone()]));
        Self { path: options.program.clone(), kubeconfig, args, home: tempfile::tempdir().unwrap() }
    }

    /// Returns this program with another kubeconfig.
    pub(crate) fn with_kubeconfig(&self, kubeconfig: PathBuf) -> Self {
        let (path, args) = (self.path.clone(), self.args.clone());
        Self { path, kubeconfig, args, home: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(&self.args).env("HOME", self.home.path());
        command.env("XDG_STATE_HOME", self.home.path()).env_remove("KUBECONFIG").stderr(Stdio::inherit());
        // If the user sets no image, the image of the embedded cluster is used.
        if !self.args.iter().any(|arg| arg == "--image") {
            command.env("GPU_SYRINGE_IMAGE_DIGEST", demo_cluster::probe_image_digest());
        }
        command
    }

    /// Runs one command.
    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        let out = tempfile::NamedTempFile::new().unwrap();
        let mut command = self.command();
        command.args(["--output", "json", "--fail-on", "never"]).args(args).stdout(out.reopen().unwrap());
        let (time, peak_mib) = run_timed(command).await;
        let answer = serde_json::from_slice(&std::fs::read(out.path()).unwrap()).unwrap();
        Ran { time, peak_mib, answer }
    }

    /// Starts an MCP server.
    pub(crate) fn session(&self) -> Session {
        let mut child = self.command().arg("mcp").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut session = Session { child, input, output: BufReader::new(output).lines(), last: 0 };
        let client = json!({"name": "bench", "version": "0"});
        let params = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client});
        session.request("initialize", &params);
        session.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        session
    }
}

/// Runs a process until it exits. Returns its run time and its peak memory use in MiB.
pub(crate) async fn run_timed(mut command: Command) -> (Duration, Option<u64>) {
    let began = Instant::now();
    let mut child = command.spawn().unwrap();
    let mut peak_mib = None;
    let status = loop {
        peak_mib = peak(child.id()).or(peak_mib);
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None => tokio::time::sleep(Duration::from_micros(500)).await,
        }
    };
    let time = began.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    (time, peak_mib)
}

/// Returns the peak resident memory that a process has used until now (`VmHWM`, only on Linux).
fn peak(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib.div_ceil(1024))
}

/// A running MCP server.
pub(crate) struct Session {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    last: u64,
}

impl Session {
    /// Calls a tool, and returns the time until the response arrives.
    pub(crate) fn call(&mut self, tool: &str, arguments: Value) -> Duration {
        let began = Instant::now();
        let answer = self.request("tools/call", &json!({"name": tool, "arguments": arguments}));
        let time = began.elapsed();
        assert_ne!(answer["result"]["isError"], true, "{answer}");
        assert!(answer["error"].is_null(), "{answer}");
        time
    }

    fn request(&mut self, method: &str, params: &Value) -> Value {
        self.last += 1;
        let id = self.last;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        loop {
            // Other tasks, such as a proxy, continue during the wait.
            let line = block_in_place(|| self.output.next().expect("the server ended").unwrap());
            let message: Value = serde_json::from_str(&line).unwrap();
            if message["id"] == id {
                return message;
            }
        }
    }

    fn send(&mut self, message: &Value) {
        self.input.write_all(format!("{message}\n").as_bytes()).unwrap();
        self.input.flush().unwrap();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
