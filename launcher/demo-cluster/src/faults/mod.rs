//! Faults of the cluster, for tests.
//!
//! ```text
//!   armed ─▶ start, exec, request ─▶ plan (what a test edits) ─▶ injector (what the cluster asks)
//! ```

mod armed;
mod exec;
mod injector;
mod plan;
mod request;
mod start;

pub use self::armed::Armed;
pub use self::exec::ExecFault;
pub use self::plan::{ApiFaults, Faults, NodeFaults};
pub use self::request::{AnswerFault, ProtobufRefusal, RequestFault};
pub use self::start::StartFault;

pub(crate) use self::exec::ExecInjection;
pub(crate) use self::injector::Injector;
pub(crate) use self::start::StartInjection;
