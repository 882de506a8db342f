//! `node-probe` with the development options, which name files that the probe reads or loads.
//! No program that can be called in a cluster has these options.

use std::process::ExitCode;

fn main() -> ExitCode {
    node_probe::dev_main()
}
