//! The type `Session`: an MCP session for chaos runs, with a time limit for every wait and without panics.
//! `Reply`: the outcome of a call.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::launcher::{Launcher, Running};

/// The outcome of a call.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// The result of the tool.
    Result(Value),
    /// A JSON-RPC error.
    Error(Value),
    /// The program exited without an answer.
    Ended,
    /// There was no answer in time.
    Late,
    /// A line that is not a message of the protocol.
    NotProtocol(String),
}

/// A running `gpu-syringe mcp`.
pub(crate) struct Session {
    pub(crate) running: Running,
    pub(crate) via: &'static str,
    next_id: u64,
    answers: BTreeMap<u64, Value>,
}

impl Session {
    /// Starts the program and opens a session. `None`: the program does not respond.
    pub(crate) async fn start(launcher: Launcher, via: &'static str, time: Duration) -> Option<Self> {
        let running = launcher.args(["mcp"]).start();
        let mut session = Self { running, via, next_id: 1, answers: BTreeMap::new() };
        let hello = json!({
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "chaos", "version": "1"},
        });
        let id = session.send("initialize", hello);
        let Reply::Result(_) = session.reply(id, Instant::now() + time).await else { return None };
        session.notify("notifications/initialized", json!({}));
        Some(session)
    }

    fn send(&mut self, method: &str, params: Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.running.try_write(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string());
        id
    }

    fn notify(&mut self, method: &str, params: Value) {
        self.running.try_write(&json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string());
    }

    /// Sends a tool call.
    pub(crate) fn call(&mut self, tool: &str, arguments: &Value) -> u64 {
        self.send("tools/call", json!({"name": tool, "arguments": arguments}))
    }

    /// Cancels a call.
    pub(crate) fn cancel(&mut self, id: u64) {
        self.notify("notifications/cancelled", json!({"requestId": id, "reason": "chaos"}));
    }

    /// Waits for the outcome of a call, at most until `end`.
    pub(crate) async fn reply(&mut self, id: u64, end: Instant) -> Reply {
        loop {
            if let Some(answer) = self.answers.remove(&id) {
                return match answer.get("result") {
                    Some(result) => Reply::Result(result.clone()),
                    None => Reply::Error(answer["error"].clone()),
                };
            }
            let left = end.saturating_duration_since(Instant::now());
            let line = match tokio::time::timeout(left, self.running.lines.recv()).await {
                Ok(Some(line)) => line,
                Ok(None) => return Reply::Ended,
                Err(_) => return Reply::Late,
            };
            let Ok(message) = serde_json::from_str::<Value>(&line) else { return Reply::NotProtocol(line) };
            if let (Some(id), None) = (message["id"].as_u64(), message.get("method")) {
                self.answers.insert(id, message);
            }
        }
    }
}
