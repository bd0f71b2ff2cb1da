//! Compiles the C++ shim and tells who links this crate where libtorch's libraries are.

use std::path::PathBuf;

/// The shim's files; each is one unit of translation.
const SHIM: &[&str] = &[
    "shim/common.cpp",
    "shim/adamw.cpp",
    "shim/collective.cpp",
    "shim/device.cpp",
    "shim/fused.cpp",
    "shim/gradients.cpp",
    "shim/memory.cpp",
    "shim/meter.cpp",
    "shim/observe.cpp",
    "shim/stream.cpp",
];
/// The OpenMP library that comes with libtorch.
const OPENMP: &str = "libgomp.so.1";

fn main() {
    println!("cargo::rerun-if-changed=shim");
    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::rerun-if-changed=build.rs");
    let Ok(library) = std::env::var("DEP_TCH_LIBTORCH_LIB") else {
        println!("cargo::error=torch-sys did not say where libtorch is; set LIBTORCH");
        return;
    };
    let library = PathBuf::from(library);
    let library = library.canonicalize().unwrap_or(library);
    let include = library.join("../include");
    // The link arguments of a library don't propagate: crates with binaries or tests read this and set their own rpath.
    println!("cargo::metadata=libtorch_lib={}", library.display());
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", library.display());
    let mut shim = cc::Build::new();
    // Loops share the threads of libtorch's own; where its OpenMP is not found they run on one.
    if library.join(OPENMP).exists() {
        shim.flag_if_supported("-fopenmp");
    }
    shim.cpp(true)
        .pic(true)
        .warnings(false)
        .std("c++17")
        .opt_level(1)
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .files(SHIM)
        .compile("psyche_gpu_shim");
    // The CUDA kernels as C++, for tests; programs never refer to it, so linkers leave it out.
    cc::Build::new()
        .cpp(true)
        .pic(true)
        .warnings(false)
        .std("c++17")
        .opt_level(1)
        .flag("-ffp-contract=off")
        .file("kernels/host.cpp")
        .compile("psyche_gpu_kernels_host");
    // Inner loops: no header of libtorch, and worth the compiler's full effort.
    let mut rows = cc::Build::new();
    rows.cpp(true).pic(true).warnings(false).std("c++17").opt_level(3).file("shim/rows.cpp").compile("psyche_gpu_rows");
    if library.join(OPENMP).exists() {
        println!("cargo::rustc-link-search=native={}", library.display());
        println!("cargo::rustc-link-lib=dylib:+verbatim={OPENMP}");
    }
}
