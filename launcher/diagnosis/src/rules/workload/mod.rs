//! Rules about processes and jobs.

pub(crate) mod collective;
pub(crate) mod processes;
