//! The `binlake` command: see [`binlake::cli`].

fn main() -> std::process::ExitCode {
    binlake::cli::main()
}
