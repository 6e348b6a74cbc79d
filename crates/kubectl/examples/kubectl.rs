//! kubectl alone, for trying it against other servers.
fn main() -> std::process::ExitCode {
    kubectl::main(std::env::args_os().skip(1))
}
