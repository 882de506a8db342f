//! `gpu-syringe`: asks a GPU node what is wrong with it, and leaves nothing behind.

use std::process::ExitCode;

fn main() -> ExitCode {
    gpu_syringe::main()
}
