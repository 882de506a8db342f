//! `node-probe` with the development options. They name files that the probe reads or loads, so no program that can be called
//! in a cluster has them.

use std::process::ExitCode;

fn main() -> ExitCode {
    node_probe::dev_main()
}
