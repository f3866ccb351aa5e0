//! Some tokens of each row, one, and none: what a pass gives of them is that of the whole pass, and what it leaves behind, too.

use qpipe_worker::model::{Attention, Decoder, KvCache, Past, Prefix};
use tch::{Kind, Tensor};

/// Tokens of a prefix, of rows behind it, and of what follows them.
const BEFORE: i64 = 40;
const NEW: i64 = 30;
const LATER: i64 = 5;

/// Panics where hidden states of `decoder` are further than `tolerance` apart.
pub(crate) fn check(decoder: &Decoder, name: &str, tolerance: f64) {
    let _guard = tch::no_grad_guard();
    tch::manual_seed(8);
    let device = decoder.device();
    let ids = Tensor::randint(decoder.config().vocab_size, [2, BEFORE + NEW + LATER], (Kind::Int64, device));
    ids.narrow(1, 0, BEFORE).copy_(&ids.narrow(0, 0, 1).narrow(1, 0, BEFORE));
    let part = |from, count| ids.narrow(1, from, count);
    let positions =
        |from, count| Tensor::arange_start(from, from + count, (Kind::Int64, device)).expand([2, -1], false);
    let one = |tensor: &Tensor| tensor.narrow(0, 0, 1);
    let near = |found: &Tensor, expected: &Tensor, case: &str| {
        assert_eq!((found.size(), found.kind()), (expected.size(), expected.kind()), "{name}, {case}");
        let distance = (found - expected).to_kind(Kind::Float).abs().max().double_value(&[]);
        assert!(distance <= tolerance, "{name}, {case}: off by {distance}");
    };
    let none = Tensor::zeros([2, 0], (Kind::Int64, device));
    let (first, places) = (one(&part(0, BEFORE)), one(&positions(0, BEFORE)));
    // One by whole passes, one by passes of which nothing is wanted.
    let caches = || {
        let (mut whole, mut prefix) = (KvCache::new(decoder.config()), KvCache::new(decoder.config()));
        let _ = decoder.hidden(&first, &places, &Attention::Causal, Some(&mut whole));
        let nothing = decoder.hidden_at(&one(&none), &first, &places, &Attention::Causal, Some(&mut prefix));
        assert_eq!((nothing.size()[..2].to_vec(), prefix.len()), (vec![1, 0], BEFORE));
        [whole, prefix]
    };
    let [whole, mut prefix] = caches();

    let rest = part(BEFORE, NEW);
    let bools = (Kind::Bool, device);
    let own = Tensor::rand([2, 1, NEW, NEW], (Kind::Float, device)).lt(0.4);
    let own = own.logical_or(&Tensor::eye(NEW, bools));
    let behind = Tensor::cat(&[&Tensor::ones([2, 1, NEW, BEFORE], bools), &own], 3);
    let some = Tensor::from_slice(&[3i64, 29, 29, 17, 0, 5]).view([2, 3]).to_device(device);
    for wanted in [&some, &some.narrow(1, 1, 1), &none] {
        let count = wanted.size()[1];
        let compare = |case: &str, from, attention: &Attention, [past, other]: [Option<&mut dyn Past>; 2]| {
            let found = decoder.hidden_at(wanted, &rest, &positions(from, NEW), attention, past);
            let all = decoder.hidden(&rest, &positions(from, NEW), attention, other);
            if count == 0 {
                return assert_eq!(found.size(), [2, 0, all.size()[2]], "{name}, {case}");
            }
            let index = wanted.unsqueeze(2).expand([-1, -1, all.size()[2]], false);
            near(&found, &all.gather(1, &index, false), &format!("{count} of a row, {case}"));
        };
        for (attention, in_cache) in [
            (Attention::Causal, Attention::Causal),
            (Attention::Mask(own.shallow_clone()), Attention::Mask(behind.shallow_clone())),
        ] {
            compare("alone", 0, &attention, [None, None]);
            let (mut found, mut expected) = (Prefix::new(&prefix), Prefix::new(&whole));
            compare("behind a prefix", BEFORE, &attention, [Some(&mut found), Some(&mut expected)]);
            let [mut expected, mut found] = caches().map(|mut cache| {
                cache.select(&Tensor::from_slice(&[0i64, 0]).to_device(device)).expect("its row twice");
                cache
            });
            compare("behind a cache", BEFORE, &in_cache, [Some(&mut found), Some(&mut expected)]);
            let later = |cache: &mut KvCache| {
                let (ids, places) = (part(BEFORE + NEW, LATER), positions(BEFORE + NEW, LATER));
                decoder.hidden(&ids, &places, &Attention::Causal, Some(cache))
            };
            near(&later(&mut found), &later(&mut expected), "what follows");
        }
    }

    // What was packed of a prefix goes with it.
    let last = |cache: &KvCache, from| {
        let (ids, places) = (part(from, NEW), positions(from, NEW));
        decoder.hidden(&ids, &places, &Attention::Causal, Some(&mut Prefix::new(cache)))
    };
    let expected = last(&whole, BEFORE);
    let (ids, places) = (one(&part(BEFORE, LATER)), one(&positions(BEFORE, LATER)));
    let [mut unpacked, _] = caches();
    for cache in [&mut unpacked, &mut prefix] {
        let _ = decoder.hidden(&ids, &places, &Attention::Causal, Some(cache));
    }
    let longer = last(&prefix, BEFORE + LATER);
    near(&longer, &last(&unpacked, BEFORE + LATER), "behind a longer prefix");
    let other = Tensor::cat(&[&first, &first.flip([1])], 0);
    let mut two = KvCache::new(decoder.config());
    let _ = decoder.hidden(&other, &positions(0, BEFORE), &Attention::Causal, Some(&mut two));
    two.select(&Tensor::from_slice(&[0i64]).to_device(device)).expect("a row of two");
    near(&last(&two, BEFORE), &expected, "behind a prefix that was chosen");
}
