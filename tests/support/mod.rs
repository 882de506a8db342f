//! Modules with helpers for tests of the built program: the program as a child process, an MCP client, waiting.
//!
//! Only the module `bed`, which the wire tests include, depends on the demo cluster.
#![allow(dead_code, reason = "each test program uses only some of the functions")]

pub(crate) mod answer;
pub(crate) mod client;
pub(crate) mod launcher;
pub(crate) mod wait;
