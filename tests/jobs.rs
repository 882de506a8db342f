//! Modules of the tests of `explain_gpu_pod` for the pods of a job on 64 nodes with 8 GPUs each.
#![allow(clippy::unwrap_used)]

#[path = "jobs/cases.rs"]
mod cases;
#[path = "allocation/tools.rs"]
mod tools;
