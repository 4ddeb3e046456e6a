//! `selextract-local`: a real Kubernetes on this machine, and the demo on it.

fn main() -> std::process::ExitCode {
    selextract_e2e::commands::main()
}
