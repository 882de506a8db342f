//! `main` of the program `gpu-syringe`: only calls `gpu_syringe::main`, which parses the command line and runs it.

use std::process::ExitCode;

fn main() -> ExitCode {
    gpu_syringe::main()
}
