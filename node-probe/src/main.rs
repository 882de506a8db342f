//! The program `node-probe`: reads the GPUs of the node on which it runs, prints one JSON document, and exits.

use std::process::ExitCode;

fn main() -> ExitCode {
    node_probe::main()
}
