//! `qpipe-worker kernels`: which kernel serves which scheme here, and how fast it is.

use std::io::{self, Write};
use std::process::ExitCode;

use qpipe_kernels::environment::{self, EnvironmentError};
use qpipe_kernels::speed::Speed;
use qpipe_kernels::{Input, Isa, KernelError, Layer, Multiplier, PreparedLinear, Scheme, kernel_for, random};
use qpipe_nodes::kernels::KernelLine;
use tch::{Cuda, Device, Kind, Tensor};

use crate::{serve, torch};

/// N and K: a layer of a small decoder.
const SHAPE: (i64, i64) = (3072, 1024);
/// A token that is written, and a prompt that is read.
const ROWS: [u32; 2] = [1, 512];
const KIND: Kind = Kind::BFloat16;

/// One of each kind that checkpoints come in.
const SCHEMES: [Scheme; 11] = [
    Scheme::W8A8,
    Scheme::W8A8Static,
    Scheme::W8A8Torchao,
    Scheme::W8A16,
    Scheme::LlmInt8,
    Scheme::W4A16 { group: 128 },
    Scheme::W4A16Asym { group: 128 },
    Scheme::Nf4 { block: 64, nested: true },
    Scheme::W4A8 { group: 128 },
    Scheme::W4A8Float { group: 128 },
    Scheme::WeightOnly { bits: 3, group: 128, asym: true },
];

/// Measures on the CPU with all cores, and on the first GPU if there is one. Prints a [`KernelLine`] a scheme.
pub fn main() -> ExitCode {
    serve::log_to_stderr();
    match print(&mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("kernels cannot be measured: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What can go wrong on the way.
#[derive(Debug, thiserror::Error)]
enum KernelsError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
}

fn print(out: &mut impl Write) -> Result<(), KernelsError> {
    environment::check()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tch::set_num_threads(i32::try_from(cores).unwrap_or(1));
    let devices = std::iter::once(Device::Cpu).chain(torch::has_cuda().then_some(Device::Cuda(0)));
    for device in devices {
        let mut say = |line: KernelLine| -> Result<(), KernelsError> {
            serde_json::to_writer(&mut *out, &line)?;
            Ok(writeln!(out)?)
        };
        say(dense(device))?;
        for scheme in SCHEMES {
            say(quantized(scheme, device)?)?;
        }
    }
    for reason in qpipe_kernels::cuda::take_failures() {
        tracing::error!("{reason}; what needs it is computed by other kernels");
    }
    Ok(())
}

fn dense(device: Device) -> KernelLine {
    let weight = Tensor::randn([SHAPE.0, SHAPE.1], (Kind::Float, device)).to_kind(KIND);
    let seconds = measured(device, |x| {
        drop(
            qpipe_kernels::linear(&Input::new(x), &weight, None, Multiplier::Libtorch)
                .expect("two matrices that fit"),
        );
    });
    line(device, "bfloat16".to_owned(), "libtorch", seconds)
}

fn quantized(scheme: Scheme, device: Device) -> Result<KernelLine, KernelsError> {
    let (out_features, in_features) = SHAPE;
    let weight = random::weight(scheme, out_features, in_features, KIND, false)?;
    let layer = Layer { scheme, out_features, in_features, device, kind: KIND };
    let kernel = kernel_for(&layer);
    let prepared: Box<dyn PreparedLinear> = kernel.prepare(&weight, &layer)?;
    let seconds = measured(device, |x| drop(prepared.forward(x)));
    Ok(line(device, scheme.to_string(), kernel.name, seconds))
}

fn line(device: Device, scheme: String, kernel: &str, seconds: Vec<(u32, f64)>) -> KernelLine {
    let instructions = (device == Device::Cpu).then(|| Isa::here().name().to_owned());
    let shape = (SHAPE.0 as u32, SHAPE.1 as u32);
    KernelLine { device: name(device), instructions, shape, scheme, kernel: kernel.to_owned(), seconds }
}

fn measured(device: Device, forward: impl Fn(&Tensor)) -> Vec<(u32, f64)> {
    let _guard = tch::no_grad_guard();
    let of_rows = |rows: u32| {
        let x = Tensor::randn([i64::from(rows), SHAPE.1], (Kind::Float, device)).to_kind(KIND);
        let speed = Speed::of(|| {
            forward(&x);
            if let Device::Cuda(index) = device {
                Cuda::synchronize(index as i64);
            }
        });
        (rows, speed.seconds)
    };
    ROWS.map(of_rows).to_vec()
}

fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    }
}
