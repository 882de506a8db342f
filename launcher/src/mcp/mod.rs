//! The MCP server over standard input and output.

mod elicitation;
mod prompts;
mod resources;
mod server;
mod tool_definitions;

pub use server::{Server, serve};
pub use tool_definitions::definitions;
