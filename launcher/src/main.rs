//! `main` of the program `gpu-syringe`: only calls `gpu_syringe::main`, which reads the command line and runs a command.

use std::process::ExitCode;

fn main() -> ExitCode {
    gpu_syringe::main()
}
