//! Modules that read error messages: known messages, general shapes, missing objects, owners, failures elsewhere, ends
//! of programs and their children, CUDA errors, versions, placeholders, hints, subjects, messages about waiting pods.
//!
//! `phrases` contains known messages, `shapes` general shapes of messages, `missing` missing objects, `owners` the
//! owners of things that a message names, and `elsewhere` failures of others. `ending` finds the lines about the end of
//! a program, `child_signals` signals that ended child processes, and `cuda_errors` numbers of CUDA errors. `versions`
//! finds versions that do not match, `placeholders` names that were not replaced, `hints` hints about more output, and
//! `subjects` the finding that a message is about. `waiting` contains known texts about pods that wait for a node.

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
pub(crate) mod waiting;
