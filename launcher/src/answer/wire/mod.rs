//! Modules for the JSON of an answer: its size, marks for untrusted text, JSON Schema, and names of enum variants.

pub(crate) mod byte_budget;
pub(crate) mod fit_answer;
pub(crate) mod schema;
pub(crate) mod shape;
pub(crate) mod untrusted_text;
pub(crate) mod variant_name;
