//! `node-probe`: reads the GPUs of the node it runs on, prints one JSON document, exits.

use std::process::ExitCode;

fn main() -> ExitCode {
    node_probe::main()
}
