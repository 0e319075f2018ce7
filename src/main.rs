//! The `binlake` command: see [`binlake::cli`].

fn main() {}
