//! Lets test binaries find libtorch where this build linked it; LD_LIBRARY_PATH still wins.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if let Ok(folder) = std::env::var("DEP_PSYCHE_GPU_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
    }
}
