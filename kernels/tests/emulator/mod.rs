//! Builds `.cu` files with the C++ compiler and `kernels/cuda/emulator/`, and launches their kernels on the CPU.

use std::ffi::{CStr, OsString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use libloading::Library;
use tch::{Device, Kind, Tensor};

/// Arithmetic as on a GPU: nothing contracted, and vectors only at multiples of their size.
const OPTIONS: [&str; 9] = [
    "-std=c++17",
    "-O1",
    "-fPIC",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-fno-gnu-unique",
    // The emulator jumps between stacks, which is what that would forbid.
    "-U_FORTIFY_SOURCE",
    "-Wno-unknown-pragmas",
    "-Werror=return-type",
];
const CHECKS: [&str; 2] = ["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"];

/// A launch in the order of the emulator's struct.
#[repr(C)]
pub(crate) struct Launch {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared_bytes: usize,
    pub(crate) reversed: bool,
}

/// One at a time: the emulator's scheduler is one.
static LAUNCHES: Mutex<()> = Mutex::new(());

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda")
}

fn run(arguments: &[OsString]) {
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    let output = Command::new(&compiler).args(OPTIONS).args(arguments).output().unwrap_or_else(|error| {
        panic!("{}: {error}\nInstall g++ or clang++, or name it in CXX.", compiler.display())
    });
    assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&output.stderr));
}

fn include(folder: &Path) -> OsString {
    let mut option = OsString::from("-I");
    option.push(folder);
    option
}

/// The emulator itself, as an object file in `folder`.
pub(crate) fn build_emulator(folder: &Path) {
    for name in ["emulator", "dynamic_shared"] {
        let (from, to) = (sources().join(format!("emulator/{name}.cpp")), folder.join(format!("{name}.o")));
        run(&["-c".into(), from.into(), "-o".into(), to.into()]);
    }
}

/// The kernels of a `.cu` file.
pub(crate) struct Emulated {
    name: String,
    library: Library,
}

impl Emulated {
    /// Builds `kernels/cuda/<name>.cu`, with entries `functions`, in `folder`, where the emulator was built.
    pub(crate) fn build(name: &str, functions: &[&str], folder: &Path) -> Self {
        Self::build_text(name, &format!("#include \"{name}.cu\"\n"), functions, folder)
    }

    /// Builds a source that is no file.
    pub(crate) fn build_text(name: &str, text: &str, functions: &[&str], folder: &Path) -> Self {
        let source = folder.join(format!("{name}.cpp"));
        let exports: String = functions.iter().map(|function| format!("EMULATED({function})\n")).collect();
        fs_err::write(&source, format!("{text}{exports}")).unwrap();
        let library = folder.join(format!("{name}.so"));
        let emulator = sources().join("emulator");
        let mut arguments: Vec<OsString> = CHECKS.iter().map(|&option| option.into()).collect();
        arguments.extend(["-shared".into(), include(&emulator.join("include")), include(&emulator)]);
        arguments.extend([include(&sources()), "-include".into(), "launch.h".into(), source.into()]);
        arguments.extend(["emulator.o", "dynamic_shared.o"].map(|object| folder.join(object).into()));
        arguments.extend(["-o".into(), library.clone().into()]);
        run(&arguments);
        // SAFETY: the library has no initializers but those of its own variables.
        Self { name: name.to_owned(), library: unsafe { Library::new(library) }.unwrap() }
    }

    /// A guarded copy of `tensor`'s elements.
    pub(crate) fn buffer(&self, tensor: &Tensor) -> Buffer<'_> {
        let buffer = self.empty(&tensor.size(), tensor.kind());
        let source = tensor.contiguous();
        // SAFETY: both have so many bytes.
        unsafe {
            std::ptr::copy_nonoverlapping(
                source.data_ptr().cast::<u8>(),
                buffer.address.cast(),
                buffer.bytes,
            );
        };
        buffer
    }

    /// Memory for a tensor, full of ones.
    pub(crate) fn empty(&self, shape: &[i64], kind: Kind) -> Buffer<'_> {
        let bytes = shape.iter().product::<i64>() as usize * kind.elt_size_in_bytes();
        // SAFETY: that is the function's type in emulator.cpp.
        let allocate =
            unsafe { self.library.get::<unsafe extern "C" fn(usize) -> *mut c_void>(b"emulator_allocate\0") };
        // SAFETY: it asks for nothing.
        let address = unsafe { allocate.unwrap()(bytes) };
        assert!(!address.is_null());
        Buffer { owner: self, address, bytes, shape: shape.to_vec(), kind }
    }

    /// Its file's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Launches `function` in both orders of threads and blocks, and has what it wrote looked at after each.
    pub(crate) fn launch(
        &self,
        function: &str,
        blocks: [u32; 3],
        threads: u32,
        shared_bytes: usize,
        values: &[Value<'_>],
        mut look: impl FnMut(&str),
    ) {
        for reversed in [false, true] {
            let launch = Launch { grid: blocks, block: [threads, 1, 1], shared_bytes, reversed };
            if let Err(error) = self.launch_once(function, &launch, values) {
                panic!("{function}: {error}");
            }
            look(if reversed { "last thread first" } else { "first thread first" });
        }
    }

    /// One launch, or what the emulator says against it.
    pub(crate) fn launch_once(
        &self,
        function: &str,
        launch: &Launch,
        values: &[Value<'_>],
    ) -> Result<(), String> {
        type Entry = unsafe extern "C" fn(*const Launch, *const *const c_void) -> *const c_char;
        // A test that failed has left nothing half done.
        let _guard = LAUNCHES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let pointers: Vec<*const c_void> = values.iter().map(Value::pointer).collect();
        let symbol = format!("emulate_{function}\0");
        // SAFETY: that is the type that the macro EMULATED gives it.
        let entry = unsafe { self.library.get::<Entry>(symbol.as_bytes()) }.unwrap();
        // SAFETY: the emulator reports what a kernel does beyond its buffers.
        let error = unsafe { entry(launch, pointers.as_ptr()) };
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: it is a text of the emulator's, ended by 0.
        Err(unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned())
    }
}

/// Memory that a kernel sees, between pages that it must not touch.
pub(crate) struct Buffer<'a> {
    owner: &'a Emulated,
    address: *mut c_void,
    bytes: usize,
    shape: Vec<i64>,
    kind: Kind,
}

impl Buffer<'_> {
    /// Its elements.
    pub(crate) fn tensor(&self) -> Tensor {
        // SAFETY: the buffer has so many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(self.address.cast::<u8>(), self.bytes) };
        Tensor::from_data_size(bytes, &self.shape, self.kind).to_device(Device::Cpu)
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        type Free = unsafe extern "C" fn(*mut c_void, usize) -> bool;
        // SAFETY: that is the function's type, and the buffer is its own and freed once.
        let untouched =
            unsafe { self.owner.library.get::<Free>(b"emulator_free\0").unwrap()(self.address, self.bytes) };
        assert!(untouched || std::thread::panicking(), "a kernel wrote beside a buffer {:?}", self.shape);
    }
}

/// What a kernel is called with.
pub(crate) enum Value<'a> {
    Buffer(&'a Buffer<'a>),
    Missing,
    Int(i32),
    Long(i64),
    Float(f32),
}

impl<'a> From<Option<&'a Buffer<'a>>> for Value<'a> {
    fn from(buffer: Option<&'a Buffer<'a>>) -> Self {
        buffer.map_or(Self::Missing, Self::Buffer)
    }
}

impl Value<'_> {
    fn pointer(&self) -> *const c_void {
        static NULL: usize = 0;
        match self {
            Self::Buffer(buffer) => (&raw const buffer.address).cast(),
            Self::Missing => (&raw const NULL).cast(),
            Self::Int(value) => std::ptr::from_ref(value).cast(),
            Self::Long(value) => std::ptr::from_ref(value).cast(),
            Self::Float(value) => std::ptr::from_ref(value).cast(),
        }
    }
}
