//! The program `gelu-paper`, which `gelu paper` runs.

use std::process::ExitCode;

fn main() -> ExitCode {
    gelu_paper::main()
}
