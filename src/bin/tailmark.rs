//! The `tailmark` program: parse, call, exit code.

/// glibc keeps the large buffers that sled frees: a long replay held twice the memory with it
/// (docs/performance.md).
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    tailmark::cli::main()
}
