//! Modules of `gpu-syringe setup`, which creates, checks and removes the objects that a cluster needs for probes.
//!
//! ```text
//!   permissions                    every permission with its reason, for RBAC, docs and doctor
//!   templates/, manifests          the files of deploy/ with the values of one set-up
//!   objects, access                requests: read, server-side apply, delete; checks of permissions
//!   installed                      the objects that exist in the cluster
//!   plan                           dry run of every object
//!   apply, uninstall               apply in order; remove in order
//!   command                        arguments, questions, report
//! ```

pub(crate) mod access;
pub(crate) mod apply;
mod command;
mod installed;
pub(crate) mod manifests;
pub(crate) mod objects;
pub(crate) mod permissions;
mod plan;
mod uninstall;

pub(crate) use command::{SetupArgs, SetupOutput, program, run};
pub use manifests::{deploy_files, permissions_table};
