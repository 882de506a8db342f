//! The program `node-probe-dev`: calls `dev_main`, which accepts the development options that `cli` declares.
//!
//! These options specify files that the probe reads or loads. A program that can be called in a cluster does not have
//! these options.

use std::process::ExitCode;

fn main() -> ExitCode {
    node_probe::dev_main()
}
