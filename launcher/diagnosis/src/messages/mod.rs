//! Modules that read error messages: `phrases` (table of known messages) and `shapes` (general shapes of error texts).

pub(crate) mod phrases;
pub(crate) mod shapes;
