//! Layers and activations at random, and how far their outputs may be from the reference's.

use std::sync::{Mutex, MutexGuard, PoisonError};

use qpipe_kernels::{Layer, QuantizedWeight, Scheme, random};
use tch::{Device, Kind};

/// libtorch's generator, from this seed on, for one test alone: those of a program share it.
pub(crate) fn generator(seed: i64) -> MutexGuard<'static, ()> {
    static GENERATOR: Mutex<()> = Mutex::new(());
    let guard = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(seed);
    guard
}

/// What activations may be in.
pub(crate) const KINDS: [Kind; 3] = [Kind::Float, Kind::BFloat16, Kind::Half];

/// How far outputs of a kernel may be from the reference's, in parts of what the test measures them by.
pub(crate) fn tolerance(layer: &Layer) -> f64 {
    match (layer.scheme, layer.kind) {
        // Integer sums and the same f32 operations after them: nothing may differ.
        (Scheme::W8A8 | Scheme::W8A8Static | Scheme::W8A8Torchao | Scheme::W4A8 { .. }, _) => 0.0,
        (Scheme::LlmInt8, _) if layer.device == Device::Cpu => 0.0,
        // Four roundings by half a unit: both outputs are rounded, and either side may round weights, and sums before the bias. (Weights in
        // few bits are few numbers: their roundings add up.)
        (_, Kind::BFloat16) => 4.0 * 2_f64.powi(-8),
        (_, Kind::Half) => 4.0 * 2_f64.powi(-11),
        // Each term rounds its sum by half a unit, 6e-8, at most: 1,024 of them by 2e-6, some of 100,000 outputs by three times that.
        _ => 6e-6 * (layer.in_features as f64 / 1024.0).max(1.0).sqrt(),
    }
}

/// A layer of random codes.
pub(crate) fn weight(
    scheme: Scheme,
    out_features: i64,
    in_features: i64,
    kind: Kind,
    bias: bool,
) -> QuantizedWeight {
    random::weight(scheme, out_features, in_features, kind, bias).unwrap()
}
