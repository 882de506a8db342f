//! The program `node-probe-dev`: calls `dev_main`, which accepts the development options that `cli` declares.
//! These options name files that the probe reads or loads. No program that can be called in a cluster has them.

use std::process::ExitCode;

fn main() -> ExitCode {
    node_probe::dev_main()
}
