//! The `tailmark` program: parse, call, exit code.

fn main() -> std::process::ExitCode {
    tailmark::cli::main()
}
