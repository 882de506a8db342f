//! The program `node-probe-dev`: node-probe with development options. These options specify files that the probe reads
//! or loads.
//!
//! The program that runs in a cluster does not have these options.

use std::process::ExitCode;

fn main() -> ExitCode {
    node_probe::dev_main()
}
