//! Modules of the MCP server on standard input and output: server, tool definitions, prompts, resources, consent, JSON
//! lines.

mod elicitation;
mod json_lines;
mod prompts;
mod resources;
mod server;
mod tool_definitions;

pub use server::{Server, serve, tool_result};
pub use tool_definitions::definitions;
