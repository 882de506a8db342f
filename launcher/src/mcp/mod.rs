//! Modules of the MCP server, which uses standard input and output.

mod elicitation;
mod json_lines;
mod prompts;
mod resources;
mod server;
mod tool_definitions;

pub use server::{Server, serve, tool_result};
pub use tool_definitions::definitions;
