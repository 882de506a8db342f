//! Modules with helpers for tests of the built program: the program as a child process, an MCP client, waiting.
//!
//! These modules do not depend on the demo cluster. Only `bed` does, which the wire tests include.
#![allow(dead_code, reason = "each test program uses only some of the functions")]

pub(crate) mod answer;
pub(crate) mod client;
pub(crate) mod launcher;
pub(crate) mod wait;
