//! The binary `mcstat`; everything is in the library.

fn main() -> std::process::ExitCode {
    mcstat::cli::main()
}
