//! NVRTC: CUDA C++ to code for one architecture, on a machine with or without a card.

use std::error::Error;
use std::ffi::{CString, c_char};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cudarc::nvrtc::result::{NvrtcError, compile_program, destroy_program, get_program_log};
use cudarc::nvrtc::sys::{self, nvrtcProgram};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::CudaError;

/// What sources may include besides `cuda_fp16.h` and `cuda_bf16.h`, which the CUDA runtime's wheel brings.
pub const HEADERS: &[(&str, &str)] = &[
    ("few_rows.cuh", include_str!("../../cuda/few_rows.cuh")),
    ("floats.cuh", include_str!("../../cuda/floats.cuh")),
    ("hopper.cuh", include_str!("../../cuda/hopper.cuh")),
    ("int4.cuh", include_str!("../../cuda/int4.cuh")),
    ("nf4.cuh", include_str!("../../cuda/nf4.cuh")),
    ("ptx.cuh", include_str!("../../cuda/ptx.cuh")),
    ("quantize.cuh", include_str!("../../cuda/quantize.cuh")),
    ("rmsnorm.cuh", include_str!("../../cuda/rmsnorm.cuh")),
    ("rotate.cuh", include_str!("../../cuda/rotate.cuh")),
    ("scaled.cuh", include_str!("../../cuda/scaled.cuh")),
    ("streamed.cuh", include_str!("../../cuda/streamed.cuh")),
    ("w4a8.cuh", include_str!("../../cuda/w4a8.cuh")),
    ("w4a8_gemm.cuh", include_str!("../../cuda/w4a8_gemm.cuh")),
];

/// Names of NVRTC, the one of the wheels beside libtorch first.
const LIBRARIES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so", "libnvrtc.so.12"];

/// Of all sources. Divisions and square roots are rounded as IEEE 754 says (NVRTC's default), denormals are kept, and a
/// product and a sum are two roundings, as they are in the reference, unless a source says `fmaf`.
const OPTIONS: [&str; 2] = ["--std=c++17", "--fmad=false"];

/// A file of `kernels/cuda/`.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The file's name without `.cu`.
    pub name: &'static str,
    /// The file.
    pub text: &'static str,
    /// Its entries, `extern "C" __global__`.
    pub functions: &'static [&'static str],
}

impl Source {
    /// The file `name`.cu, which holds `text` and in it `functions`.
    pub const fn new(name: &'static str, text: &'static str, functions: &'static [&'static str]) -> Self {
        Self { name, text, functions }
    }

    /// Code for `architecture` (`sm_80`, `sm_90a`) in the driver's format, an ELF file.
    ///
    /// # Errors
    ///
    /// Without NVRTC, and where the source does not compile.
    pub fn compile(&self, architecture: &str) -> Result<Vec<u8>, CudaError> {
        load()?;
        Program::new(self)?.compile(self, architecture)
    }

    /// Tells apart whatever changes the code: source, headers, options, architecture and NVRTC's version.
    ///
    /// # Errors
    ///
    /// Without NVRTC.
    pub fn key(&self, architecture: &str) -> Result<blake3::Hash, CudaError> {
        let (major, minor) = version()?;
        let version = format!("{major}.{minor}");
        let mut hasher = blake3::Hasher::new();
        let headers = HEADERS.iter().flat_map(|(name, text)| [*name, *text]);
        let parts = [self.name, self.text, architecture, version.as_str()];
        for part in parts.into_iter().chain(OPTIONS).chain(headers) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Ok(hasher.finalize())
    }
}

/// NVRTC's version: (13, 0).
///
/// # Errors
///
/// Without NVRTC.
pub fn version() -> Result<(i32, i32), CudaError> {
    load()?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: NVRTC is loaded, and writes two numbers.
    let result = unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    result.result().map_err(|error| CudaError::Compiler { source_name: "version", error })?;
    Ok((major, minor))
}

/// Opens NVRTC, once, by names that are found where libtorch's libraries are. cudarc itself would panic where there is none; it
/// opens one by names of its own, of which the first has no version: a CUDA toolkit on the linker's path comes before the wheel.
fn load() -> Result<(), CudaError> {
    static LOADED: OnceLock<Result<Library, String>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| {
        let mut reason = String::new();
        for name in LIBRARIES {
            // SAFETY: NVRTC's initializers only prepare itself; the library is never unloaded.
            match unsafe { Library::open(Some(name), RTLD_NOW | RTLD_LOCAL) } {
                Ok(library) => return Ok(library),
                // Its own text says only that it failed.
                Err(error) if reason.is_empty() => {
                    reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
                }
                Err(_) => {}
            }
        }
        Err(reason)
    });
    // SAFETY: asks the linker for names only.
    let found = |_| unsafe { sys::is_culib_present() };
    match loaded {
        Ok(library) if found(library) => Ok(()),
        Ok(_) => Err(CudaError::NoCompiler(String::from("it is not found a second time"))),
        Err(reason) => Err(CudaError::NoCompiler(reason.clone())),
    }
}

/// The folder of `cuda_fp16.h`: wheels and toolkits have it beside the folder of libraries that NVRTC is in.
fn headers() -> Result<PathBuf, CudaError> {
    let failed = |reason: String| CudaError::NoCompiler(reason);
    let maps = fs_err::read_to_string("/proc/self/maps").map_err(|error| failed(error.to_string()))?;
    let library = maps.lines().find_map(|line| {
        let path = Path::new(&line[line.find('/')?..]);
        path.file_name()?.to_str()?.starts_with("libnvrtc.so").then(|| path.to_owned())
    });
    let library = library.ok_or_else(|| failed(String::from("its file is not known")))?;
    let include = library.ancestors().nth(2).map(|folder| folder.join("include")).unwrap_or_default();
    if include.join("cuda_fp16.h").is_file() {
        return Ok(include);
    }
    Err(failed(format!("{} has no cuda_fp16.h", include.display())))
}

/// A program of NVRTC's, destroyed at the end.
struct Program(nvrtcProgram);

impl Program {
    fn new(source: &Source) -> Result<Self, CudaError> {
        let text = |text: &str| CString::new(text).expect("sources have no zero bytes");
        let name = text(&format!("{}.cu", source.name));
        let code = text(source.text);
        let names: Vec<CString> = HEADERS.iter().map(|(name, _)| text(name)).collect();
        let headers: Vec<CString> = HEADERS.iter().map(|(_, header)| text(header)).collect();
        let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect::<Vec<_>>();
        let mut program = std::ptr::null_mut();
        // SAFETY: all texts live through the call, which copies them; both lists have the length that is told.
        let result = unsafe {
            sys::nvrtcCreateProgram(
                &raw mut program,
                code.as_ptr(),
                name.as_ptr(),
                HEADERS.len() as i32,
                pointers(&headers).as_ptr(),
                pointers(&names).as_ptr(),
            )
        };
        result.result().map_err(|error| CudaError::Compiler { source_name: source.name, error })?;
        Ok(Self(program))
    }

    fn compile(&self, source: &Source, architecture: &str) -> Result<Vec<u8>, CudaError> {
        let target = format!("--gpu-architecture={architecture}");
        let headers = format!("--include-path={}", headers()?.display());
        let options: Vec<&str> = OPTIONS.into_iter().chain([target.as_str(), headers.as_str()]).collect();
        // SAFETY: the program was created and is not destroyed yet.
        if unsafe { compile_program(self.0, &options) }.is_err() {
            let (source_name, architecture) = (source.name, architecture.to_owned());
            return Err(CudaError::Source { source_name, architecture, log: self.log() });
        }
        self.code().map_err(|error| CudaError::Compiler { source_name: source.name, error })
    }

    fn code(&self) -> Result<Vec<u8>, NvrtcError> {
        let mut size = 0;
        // SAFETY: the program was compiled; a size is written, and then that many bytes.
        unsafe {
            sys::nvrtcGetCUBINSize(self.0, &raw mut size).result()?;
            let mut code = vec![0_u8; size];
            sys::nvrtcGetCUBIN(self.0, code.as_mut_ptr().cast::<c_char>()).result()?;
            Ok(code)
        }
    }

    fn log(&self) -> String {
        // SAFETY: the program was created and is not destroyed yet.
        let log = unsafe { get_program_log(self.0) }.unwrap_or_default();
        let bytes: Vec<u8> = log.into_iter().map(|byte| byte as u8).take_while(|&byte| byte != 0).collect();
        String::from_utf8_lossy(&bytes).trim_end().to_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: it was created, and nothing uses it after this. A failure leaks it.
        let _ = unsafe { destroy_program(self.0) };
    }
}
