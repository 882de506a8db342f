//! Modules that read error messages: `phrases` (table of known messages), `shapes` (general shapes of error texts), `owners` (whose the
//! things are that a message names), `versions` (two versions that do not fit together).

pub(crate) mod owners;
pub(crate) mod phrases;
pub(crate) mod shapes;
pub(crate) mod versions;
