//! The MCP server over standard input and output.

mod definitions;
mod server;

pub use definitions::definitions;
pub use server::{Server, serve};
