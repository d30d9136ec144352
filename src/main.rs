//! The `rung` program: argv to `cli`, and its exit code.

fn main() -> std::process::ExitCode {
    rung::cli::main()
}
