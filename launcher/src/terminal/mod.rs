//! Modules for text on a terminal: tables, pages, colours, names of commands, and the features of the terminal.

pub mod command_names;
pub(crate) mod detect;
pub mod layout;
pub mod page;
pub(crate) mod style;
pub mod table;
