//! Compiles the C++ shim and tells the linker where the worker will find libtorch when it runs.

use std::env;
use std::path::{Path, PathBuf};

/// Folders inside an unpacked set of wheels that hold shared libraries which libtorch needs.
const LIBRARY_FOLDERS: [&str; 2] = ["torch/lib", "nvidia/cu13/lib"];

fn main() {
    for source in ["shim/memory.cpp", "shim/torch.cpp"] {
        println!("cargo:rerun-if-changed={source}");
    }
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let Some(libtorch) = env::var_os("LIBTORCH").map(PathBuf::from) else {
        println!("cargo:warning=LIBTORCH is not set: run scripts/libtorch, and build inside the repository");
        return;
    };
    compile_shim(&libtorch);
    link_search_paths(&libtorch);
}

fn compile_shim(libtorch: &Path) {
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false)
        .include(libtorch.join("include"))
        .include(libtorch.join("include/torch/csrc/api/include"))
        .files(["shim/memory.cpp", "shim/torch.cpp"])
        .compile("qpipe_shim");
}

/// Writes DT_RPATH, which (unlike DT_RUNPATH) also serves what libtorch itself links and what it opens by name,
/// and which an LD_LIBRARY_PATH of another program cannot displace.
///
/// With the repository's own libtorch the place relative to the executable comes first, so that a clone can be
/// moved; a libtorch named by the user comes before everything else.
fn link_search_paths(libtorch: &Path) {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("..");
    let own = same_folder(libtorch, &root.join(".libtorch/torch"));
    let relative = LIBRARY_FOLDERS.iter().map(|folder| format!("$ORIGIN/../../.libtorch/{folder}"));
    // The wheels lie side by side, so that the parent of `torch` holds both folders.
    let parent = libtorch.parent().unwrap_or(libtorch);
    let absolute = [libtorch.join("lib"), parent.join(LIBRARY_FOLDERS[1])];
    let absolute = absolute.iter().map(|path| path.display().to_string());
    let paths: Vec<String> =
        if own { relative.chain(absolute).collect() } else { absolute.chain(relative).collect() };
    println!("cargo:rustc-link-arg=-Wl,--disable-new-dtags,-rpath,{}", paths.join(":"));
}

fn same_folder(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}
