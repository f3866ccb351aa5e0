//! Compiles the C++ shim, and tells the linker where this package's tests find libtorch when they run. The worker does so
//! for itself.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=shim");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let Some(libtorch) = env::var_os("LIBTORCH").map(PathBuf::from) else { return };
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false)
        .include(libtorch.join("include"))
        .files(["shim/stream.cpp", "shim/graph.cpp"])
        .compile("qpipe_kernels_shim");
    // The wheels of the CUDA runtime and of NVRTC lie beside torch's.
    let wheels = libtorch.parent().unwrap_or(&libtorch);
    let folders = [libtorch.join("lib"), wheels.join("nvidia/cu13/lib")];
    let paths: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    println!("cargo:rustc-link-arg=-Wl,--disable-new-dtags,-rpath,{}", paths.join(":"));
}
