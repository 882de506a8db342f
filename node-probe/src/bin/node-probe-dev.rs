//! `node-probe` with the options of development: they name files that the probe reads or loads, so nothing that can be called
//! from a cluster has them.

use std::process::ExitCode;

fn main() -> ExitCode {
    node_probe::dev_main()
}
