//! Tells the linker where this package's tests find libtorch when they run. The worker does so for itself.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let Some(libtorch) = env::var_os("LIBTORCH").map(PathBuf::from) else { return };
    // The wheels of the CUDA runtime lie beside torch's.
    let wheels = libtorch.parent().unwrap_or(&libtorch);
    let folders = [libtorch.join("lib"), wheels.join("nvidia/cu13/lib")];
    let paths: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    println!("cargo:rustc-link-arg=-Wl,--disable-new-dtags,-rpath,{}", paths.join(":"));
}
