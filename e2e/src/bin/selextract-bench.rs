//! `selextract-bench`: what the guide asks for, measured on the local cluster.

/// The worker's: what of it is measured here (extraction, the empty tasks of the queue) is to cost what it costs there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    selextract_e2e::bench::main()
}
