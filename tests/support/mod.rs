//! What the tests of the whole program share, whichever cluster it is pointed at: the program as a child process, and an
//! MCP client at its standard input and output.
//!
//! Nothing here knows the demo cluster; that is `bed`, which only the wire tests take in.
#![allow(dead_code, reason = "each test program takes what it needs")]

pub(crate) mod answer;
pub(crate) mod client;
pub(crate) mod launcher;
pub(crate) mod wait;
