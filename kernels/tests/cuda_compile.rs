//! Every CUDA source, compiled for compute capability 8.0 and 9.0 on a machine with or without a card.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::thread;

use qpipe_kernels::cuda::{CudaError, Source, compile, sources};

const ARCHITECTURES: [&str; 2] = ["sm_80", "sm_90a"];

fn compiled(source: &Source, architecture: &str) -> Vec<u8> {
    match source.compile(architecture) {
        Ok(code) => code,
        Err(error @ CudaError::NoCompiler(_)) => panic!("{error}\nRun scripts/libtorch: it fetches NVRTC."),
        Err(error) => panic!("{error}"),
    }
}

/// The functions in an ELF file of NVIDIA's: each has a section `.text.NAME`.
fn functions(code: &[u8]) -> BTreeSet<String> {
    let names = code.split(|&byte| byte == 0).filter_map(|name| std::str::from_utf8(name).ok());
    names.filter_map(|name| name.strip_prefix(".text.")).map(str::to_owned).collect()
}

/// Names of the files in `kernels/cuda/` that end so.
fn files(extension: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda");
    let paths = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let with_extension = |path: &PathBuf| path.extension().is_some_and(|found| found == extension);
    let paths = paths.filter(with_extension);
    paths.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn every_source_compiles_for_both_architectures_and_has_the_functions_that_it_lists() {
    let sources = sources();
    assert!(!sources.is_empty());
    thread::scope(|scope| {
        for architecture in ARCHITECTURES {
            let sources = &sources;
            scope.spawn(move || {
                for source in sources {
                    let code = compiled(source, architecture);
                    assert_eq!(&code[..4], b"\x7fELF", "{} for {architecture}", source.name);
                    let listed = source.functions.iter().map(|name| (*name).to_owned()).collect();
                    assert_eq!(functions(&code), listed, "{} for {architecture}", source.name);
                }
            });
        }
    });
}

#[test]
fn every_file_is_a_source_or_a_header() {
    let names = sources().iter().map(|source| source.name.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(names, files("cu"));
    let headers = compile::HEADERS.iter().map(|(name, _)| name.trim_end_matches(".cuh").to_owned());
    assert_eq!(headers.collect::<BTreeSet<_>>(), files("cuh"));
}

#[test]
fn a_source_with_an_error_is_refused_with_its_line() {
    let source =
        Source::new("wrong", "extern \"C\" __global__ void wrong() {\n    missing();\n}\n", &["wrong"]);
    let error = source.compile("sm_80").unwrap_err();
    assert!(matches!(error, CudaError::Source { source_name: "wrong", .. }), "{error}");
    assert!(error.to_string().contains("wrong.cu(2)"), "{error}");
    let error = source.compile("sm_10").unwrap_err().to_string();
    assert!(error.contains("`wrong` does not compile for sm_10"), "{error}");
}

#[test]
fn the_compiler_knows_the_architectures() {
    // A toolkit of the machine's own may come before the wheel: sm_90a is known from 12 on.
    let (major, _) = compile::version().unwrap();
    assert!(major >= 12, "{major}");
}
