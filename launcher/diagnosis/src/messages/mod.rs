//! Modules that read error messages: `phrases` (known messages), `shapes` (general shapes), `elsewhere` (failures of others), `owners`
//! (whose the things are that a message names), `hints` (hints about more output), `versions` (two versions that do not fit together),
//! `placeholders` (names that were not replaced), `ending` (what is about the end of a program), `cuda_errors` (numbers of errors), `child_signals` (signals that ended child processes),
//! `subjects` (which finding a message is about), `missing` (the object that is not there).

pub(crate) mod child_signals;
pub(crate) mod cuda_errors;
pub(crate) mod elsewhere;
pub(crate) mod ending;
pub(crate) mod hints;
pub(crate) mod missing;
pub(crate) mod owners;
pub(crate) mod phrases;
pub(crate) mod placeholders;
pub(crate) mod shapes;
pub(crate) mod subjects;
pub(crate) mod versions;
