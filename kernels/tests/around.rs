//! What goes around layers on a card against the same on the CPU.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod card;

use card::has_cuda;
use qpipe_kernels::{Norm, cuda, rotate, silu_multiply};
use tch::{Device, Kind, Tensor};

const KINDS: [Kind; 3] = [Kind::Float, Kind::BFloat16, Kind::Half];
const CARD: Device = Device::Cuda(0);

fn random(shape: &[i64], kind: Kind) -> Tensor {
    (Tensor::randn(shape, (Kind::Float, Device::Cpu)) * 3.0).to_kind(kind)
}

/// Whether numbers are the same, but for what a sum in another order or another exponential moves.
fn is_near(found: &Tensor, expected: &Tensor) -> bool {
    let step = match expected.kind() {
        Kind::Float => 2e-6,
        Kind::Half => 2_f64.powi(-9),
        _ => 2_f64.powi(-6),
    };
    (found.size(), found.kind()) == (expected.size(), expected.kind())
        && found.device() == CARD
        && found.to_device(Device::Cpu).allclose(expected, step, 1e-6, false)
}

#[test]
fn norms_rotations_and_gates_on_cuda_are_those_of_the_cpu() {
    if !has_cuda() {
        return;
    }
    let _guard = tch::no_grad_guard();
    cuda::check_every_launch();
    // Or libtorch would be compared with itself.
    assert!(cuda::works(CARD, &cuda::sources()));
    let card = |tensor: &Tensor| tensor.to_device(CARD);
    for kind in KINDS {
        for (batch, tokens, heads, width) in [(1, 1, 1, 8), (2, 5, 3, 128), (3, 70, 2, 66), (1, 700, 8, 64)] {
            let x = random(&[batch, tokens, heads, width], kind);
            let weight = random(&[width], kind);
            let normal = |x: &Tensor, weight: &Tensor| Norm { weight, epsilon: 1e-6 }.forward(x);
            let (found, expected) = (normal(&card(&x), &card(&weight)), normal(&x, &weight));
            assert!(is_near(&found, &expected), "norm, {kind:?}, {:?}", x.size());
            // As the heads of a projection are: with gaps.
            let gaps = x.transpose(0, 1);
            assert!(is_near(&normal(&card(&x).transpose(0, 1), &card(&weight)), &normal(&gaps, &weight)));

            for rows in [1, batch] {
                let angles = Tensor::rand([rows, 1, tokens, width / 2], (Kind::Float, Device::Cpu)) * 9.0;
                let (cos, sin) = (angles.cos().to_kind(kind), angles.sin().to_kind(kind));
                let expected = rotate(&x.transpose(1, 2), &cos, &sin);
                let found = rotate(&card(&x).transpose(1, 2), &card(&cos), &card(&sin));
                assert!(is_near(&found, &expected), "rotation, {kind:?}, {:?}", x.size());
            }

            let up = random(&x.size(), kind);
            let expected = silu_multiply(x.copy(), &up).unwrap();
            let found = silu_multiply(card(&x), &card(&up)).unwrap();
            assert!(is_near(&found, &expected), "gate, {kind:?}, {:?}", x.size());
        }
    }
}
