//! `messages`: reads error messages. `phrases` has the known messages, `shapes` the general shapes of error texts.

pub(crate) mod phrases;
pub(crate) mod shapes;
