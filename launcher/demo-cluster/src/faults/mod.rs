//! Modules of the faults that tests can set in the cluster (of pod starts, execs and requests), and re-exports of their
//! types (`Faults`: the plan of a test, `Injector`: applies it).
//!
//! ```text
//!   counted_fault ─▶ pod_start, exec, request ─▶ plan (edited by a test) ─▶ injector (read by the cluster)
//! ```

mod counted_fault;
mod exec;
mod injector;
mod plan;
mod pod_start;
mod request;

pub use self::counted_fault::CountedFault;
pub use self::exec::ExecFault;
pub use self::plan::{ApiFaults, Faults, NodeFaults};
pub use self::pod_start::StartFault;
pub use self::request::{AnswerFault, ProtobufRefusal, RequestFault};

pub(crate) use self::exec::ExecInjection;
pub(crate) use self::injector::Injector;
pub(crate) use self::pod_start::StartInjection;
