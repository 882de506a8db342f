//! The program `node-probe-dev`: node-probe with development options, which specify files to read or load.
//!
//! The program that runs in a cluster does not have these options.

use std::process::ExitCode;

fn main() -> ExitCode {
    node_probe::dev_main()
}
