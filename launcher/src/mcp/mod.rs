//! The MCP server over standard input and output.

mod elicitation;
mod definitions;
mod prompts;
mod resources;
mod server;

pub use definitions::definitions;
pub use server::{Server, serve};
