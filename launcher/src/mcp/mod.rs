//! The MCP server over standard input and output.

mod definitions;
mod elicitation;
mod prompts;
mod resources;
mod server;

pub use definitions::definitions;
pub use server::{Server, serve, tool_result};
