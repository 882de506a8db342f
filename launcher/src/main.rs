//! `gpu-syringe`: diagnoses the GPU nodes of a Kubernetes cluster, and leaves nothing behind.

use std::process::ExitCode;

fn main() -> ExitCode {
    gpu_syringe::main()
}
