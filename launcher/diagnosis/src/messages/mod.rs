//! Modules that read error messages: `phrases` (known messages), `shapes` (general shapes), `elsewhere` (failures of others), `owners`
//! (whose the things are that a message names), `hints` (hints about more output), `versions` (two versions that do not fit together),
//! `ending` (what is about the end of a program).

pub(crate) mod elsewhere;
pub(crate) mod ending;
pub(crate) mod hints;
pub(crate) mod owners;
pub(crate) mod phrases;
pub(crate) mod shapes;
pub(crate) mod versions;
