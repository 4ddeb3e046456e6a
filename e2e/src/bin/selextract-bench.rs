//! `selextract-bench`: what the guide asks for, measured on the local cluster.

fn main() -> std::process::ExitCode {
    selextract_e2e::bench::main()
}
