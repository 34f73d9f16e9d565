//! The `gelu` command.

fn main() {}
