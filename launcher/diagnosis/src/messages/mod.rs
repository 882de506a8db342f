//! Modules that read error messages: `phrases` (known messages), `shapes` (general shapes), `elsewhere` (failures of others).

pub(crate) mod elsewhere;
pub(crate) mod phrases;
pub(crate) mod shapes;
