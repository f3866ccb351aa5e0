//! What goes around layers on a card against the same on the CPU.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod card;

use card::has_cuda;
use qpipe_kernels::{Norm, cuda, decode, rotate, silu_multiply};
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

/// Sequences, heads of queries and of keys, room, places that are filled, width.
const CACHES: [[i64; 6]; 5] = [
    [1, 1, 1, 1, 0, 8],
    [2, 8, 2, 40, 33, 64],
    [3, 7, 1, 300, 299, 80],
    [1, 32, 8, 700, 544, 128],
    [5, 4, 4, 64, 10, 256],
];

#[test]
fn a_new_token_takes_its_place_and_attends_as_on_the_cpu() {
    if !has_cuda() {
        return;
    }
    let _guard = tch::no_grad_guard();
    cuda::check_every_launch();
    tch::manual_seed(12);
    let card = |tensor: &Tensor| tensor.to_device(CARD);
    for (kind, [batch, heads, kv_heads, room, filled, width]) in
        KINDS.into_iter().flat_map(|kind| CACHES.map(|shape| (kind, shape)))
    {
        assert!(decode::can_decode(kind, CARD, (heads, kv_heads, width)));
        let cache = [(); 2].map(|()| random(&[batch, kv_heads, room, width], kind));
        let new = [heads, kv_heads, kv_heads].map(|heads| random(&[batch, heads, width], kind));
        let angles = Tensor::rand([batch, width / 2], (Kind::Float, Device::Cpu)) * 9.0;
        let (cos, sin) = (angles.cos().to_kind(kind), angles.sin().to_kind(kind));
        let turned = |x: &Tensor| {
            let angles = |angles: &Tensor| angles.view([batch, 1, 1, width / 2]);
            rotate(&x.unsqueeze(2), &angles(&cos), &angles(&sin)).squeeze_dim(2)
        };
        let expected = [cache[0].copy(), cache[1].copy()];
        for (all, new) in expected.iter().zip([&turned(&new[1]), &new[2]]) {
            all.select(2, filled).copy_(new);
        }

        let [keys, values] = cache.each_ref().map(card);
        let place = Tensor::from_slice(&[filled]).to_device(CARD);
        let parts = decode::Parts::new(heads, &keys).unwrap();
        let first = Tensor::from_slice(&(0..batch).map(|row| row * filled / batch).collect::<Vec<_>>());
        let on_card = card(&first);
        let slots =
            |first| decode::Slots { keys: &keys, values: &values, place: &place, first, parts: &parts };
        let [q, k, v] = new.each_ref().map(card);
        let queries = decode::append_rotated([&q, &k, &v], [&card(&cos), &card(&sin)], &slots(None)).unwrap();
        let case = format!("{kind:?}, {:?}", [batch, heads, kv_heads, room, filled, width]);
        assert!(is_near(&queries, &turned(&new[0])), "{case}: queries");
        assert!(is_near(&keys, &expected[0]), "{case}: keys");
        assert_eq!(values.to_device(Device::Cpu), expected[1], "{case}: values");

        // No place of the room.
        let beyond = Tensor::from_slice(&[room]).to_device(CARD);
        let beyond = decode::Slots { place: &beyond, ..slots(None) };
        let _ = decode::append_rotated([&q, &v, &k], [&card(&cos), &card(&sin)], &beyond).unwrap();
        assert_eq!(values.to_device(Device::Cpu), expected[1], "{case}: values beyond the room");

        let unit = match kind {
            Kind::Float => 1e-5,
            Kind::Half => 2_f64.powi(-10),
            _ => 2_f64.powi(-8),
        };
        // With the very numbers that the card has.
        let [queries_here, keys_here, values_here] =
            [&queries, &keys, &values].map(|tensor| tensor.to_device(Device::Cpu).to_kind(Kind::Float));
        for (first, window) in [(None, None), (Some(&first), None), (Some(&first), Some(7)), (None, Some(40))]
        {
            let places = Tensor::arange(room, (Kind::Int64, Device::Cpu)).view([1, room]);
            let begin = first
                .map_or_else(|| Tensor::zeros([batch], (Kind::Int64, Device::Cpu)), Tensor::shallow_clone);
            let near = window.map_or(0, |window| filled + 1 - window);
            let seen = places
                .le(filled)
                .logical_and(&places.ge(near))
                .logical_and(&places.ge_tensor(&begin.view([-1, 1])));
            let each = |tensor: &Tensor| tensor.repeat_interleave_self_int(heads / kv_heads, 1, None);
            let scores =
                queries_here.unsqueeze(2).matmul(&each(&keys_here).transpose(2, 3)) / (width as f64).sqrt();
            let scores = scores.masked_fill(&seen.logical_not().view([batch, 1, 1, room]), f64::NEG_INFINITY);
            let expected = scores.softmax(-1, Kind::Float).matmul(&each(&values_here)).squeeze_dim(2);
            let first = first.map(|_| &on_card);
            let found = decode::attend_one(&queries, &slots(first), window).unwrap();
            assert_eq!((found.size(), found.kind()), (queries.size(), kind));
            let distance = (found.to_device(Device::Cpu).to_kind(Kind::Float) - &expected).abs();
            // Rounded once; sums in another order.
            let rounding = expected.abs() * unit + 2e-5;
            assert!(
                distance.le_tensor(&rounding).all().int64_value(&[]) == 1,
                "{case}, {first:?}, {window:?}"
            );
        }
    }
}
