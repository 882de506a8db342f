//! The type `Client`: an MCP client without a library, which finds errors that a library would tolerate.
//!
//! The client supports both protocol versions: with `initialize` (2025-11-25), and with client data in every request
//! (2026-07-28). In every test, each line of the program's standard output must be a message of the protocol.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::answer::Answer;
use super::launcher::{Launcher, Running};
use super::wait;

/// The protocol of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    /// 2025-11-25: `initialize`, then requests.
    Initialize,
    /// 2026-07-28: each request contains the data of the client.
    PerRequest,
}

/// A session with the program.
pub(crate) struct Client {
    /// The program.
    pub(crate) program: Running,
    era: Era,
    next_id: u64,
    answers: BTreeMap<u64, Value>,
    progress: Vec<Value>,
}

impl Client {
    /// Starts `gpu-syringe mcp` and opens a session with `initialize`.
    pub(crate) async fn start(launcher: Launcher) -> Self {
        Self::start_in(Era::Initialize, launcher).await
    }

    /// Starts `gpu-syringe mcp` and opens a session.
    pub(crate) async fn start_in(era: Era, launcher: Launcher) -> Self {
        Self::connect(era, launcher.args(["mcp"])).await
    }

    /// Starts the server, whose command is complete, and opens a session.
    pub(crate) async fn connect(era: Era, launcher: Launcher) -> Self {
        let program = launcher.start();
        let mut client = Self { program, era, next_id: 1, answers: BTreeMap::new(), progress: Vec::new() };
        if era == Era::Initialize {
            let hello = json!({
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "wire-test", "version": "1"},
            });
            let answer = client.request("initialize", hello).await;
            assert_eq!(answer["result"]["protocolVersion"], "2025-11-25", "{answer}");
            client.notify("notifications/initialized", json!({}));
        }
        client
    }

    /// Sends a request. Returns the id of the request, with which the answer can be read.
    pub(crate) fn send(&mut self, method: &str, mut params: Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        if self.era == Era::PerRequest {
            let who = json!({
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": {"name": "wire-test", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {},
            });
            let meta = params.as_object_mut().expect("params are an object").entry("_meta").or_insert(json!({}));
            meta.as_object_mut().expect("_meta is an object").extend(who.as_object().cloned().into_iter().flatten());
        }
        self.program.write(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string());
        id
    }

    /// Sends a notification.
    pub(crate) fn notify(&mut self, method: &str, params: Value) {
        self.program.write(&json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string());
    }

    /// Sends a tool call that requests progress notifications.
    pub(crate) fn send_call(&mut self, tool: &str, arguments: Value) -> u64 {
        let token = format!("call-{}", self.next_id);
        self.send("tools/call", json!({"name": tool, "arguments": arguments, "_meta": {"progressToken": token}}))
    }

    /// Cancels a request.
    pub(crate) fn cancel(&mut self, id: u64) {
        self.notify("notifications/cancelled", json!({"requestId": id, "reason": "the user pressed escape"}));
    }

    /// Waits for the whole answer to a request.
    pub(crate) async fn answer(&mut self, id: u64) -> Value {
        loop {
            if let Some(answer) = self.answers.remove(&id) {
                return answer;
            }
            self.read().await;
        }
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.send(method, params);
        self.answer(id).await
    }

    /// Waits for the result of a tool call that was sent.
    pub(crate) async fn result(&mut self, id: u64) -> Answer {
        let answer = self.answer(id).await;
        Answer::of(answer.get("result").unwrap_or_else(|| panic!("the answer has no result: {answer}")))
    }

    /// Calls a tool.
    pub(crate) async fn call(&mut self, tool: &str, arguments: Value) -> Answer {
        let id = self.send_call(tool, arguments);
        self.result(id).await
    }

    /// Waits until a call has reached a phase. The number of the phase is in the progress notification.
    pub(crate) async fn until_progress(&mut self, id: u64, phase: u64) {
        while !self.progress_of(id).iter().any(|note| note["progress"].as_f64() >= Some(phase as f64)) {
            assert!(!self.answers.contains_key(&id), "answered before phase {phase}: {}", self.answers[&id]);
            self.read().await;
        }
    }

    /// Returns the progress notifications of a call so far.
    pub(crate) fn progress_of(&self, id: u64) -> Vec<&Value> {
        let token = format!("call-{id}");
        self.progress.iter().filter(|note| note["progressToken"] == token.as_str()).collect()
    }

    /// Returns the definitions of all tools.
    pub(crate) async fn tools(&mut self) -> Vec<Value> {
        let answer = self.request("tools/list", json!({})).await;
        answer["result"]["tools"].as_array().unwrap_or_else(|| panic!("no tools: {answer}")).clone()
    }

    /// Closes the program's standard input, as a host does. The program must exit successfully, and all lines of the log
    /// must be JSON. Returns the log.
    pub(crate) async fn close(mut self) -> Vec<Value> {
        self.program.close_stdin();
        let status = self.program.exit().await;
        assert!(status.success(), "{status}: {}", self.program.said());
        self.log()
    }

    /// Returns the program's log so far. All lines must be JSON.
    pub(crate) fn log(&self) -> Vec<Value> {
        let said = self.program.said();
        let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        said.lines().map(line).collect()
    }

    /// Reads one message. Panics if the line is not a message.
    async fn read(&mut self) {
        let line = tokio::time::timeout(2 * wait::LONGEST, self.program.lines.recv()).await;
        let line = line.unwrap_or_else(|_| panic!("no further message; the log: {}", self.program.said()));
        let line = line.unwrap_or_else(|| panic!("the program exited; its log: {}", self.program.said()));
        let message: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(message["jsonrpc"], "2.0", "{line}");
        match (message["id"].as_u64(), message["method"].as_str()) {
            (Some(id), None) => {
                assert!(id < self.next_id && !self.answers.contains_key(&id), "this answer was not requested: {line}");
                self.answers.insert(id, message);
            }
            (None, Some("notifications/progress")) => self.progress.push(message["params"].clone()),
            _ => panic!("neither an answer nor a requested notification: {line}"),
        }
    }
}
