//! `main` of the program `gpu-syringe`: selects the allocator and calls `gpu_syringe::main`, which parses the command
//! line.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    gpu_syringe::main()
}
