//! Logits against transformers', on tiny random checkpoints of each family: made, with their provenance, by
//! tests/parity/golden_logits.py. Also what must hold for each of them whatever transformers says: a KV
//! cache, a padded batch and a tree of continuations change nothing.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print")]

mod greedy;
mod wanted;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use greedy::greedy;
use qpipe_worker::model::{
    Attention, Checkpoint, Decoder, KvCache, LoadOptions, Past, Prefix, Products, TensorFiles, generate,
};
use tch::{Device, Kind, Tensor};

/// Largest |difference| of float32 logits from transformers'.
const FLOAT32_TOLERANCE: f64 = 1e-4;
/// libtorch's, and the fastest here.
const PRODUCTS: [Products; 2] = [Products::LIBTORCH, Products::FASTEST];
/// bfloat16 logits of a model may be this many times as far from transformers' float32 as transformers' own. Others than libtorch's products are
/// rounded at other places, and the largest of some hundred differences is a matter of chance.
const BFLOAT16_RATIOS: [f64; 2] = [1.5, 2.0];
/// Largest |difference| between two ways of computing the same float32 logits here.
const SAME_TOLERANCE: f64 = 2e-5;

struct Golden {
    name: String,
    folder: PathBuf,
    ids: Tensor,
    places: Tensor,
    logits: Tensor,
    metadata: HashMap<String, String>,
}

impl Golden {
    fn open(folder: PathBuf) -> Self {
        let file = folder.join("golden.safetensors");
        let bytes = std::fs::read(&file).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let tensors = TensorFiles::open(&file).unwrap();
        Self {
            name: folder.file_name().unwrap().to_string_lossy().into_owned(),
            folder,
            ids: tensors.tensor("ids").unwrap(),
            places: tensors.tensor("places").unwrap(),
            logits: tensors.tensor("logits").unwrap(),
            metadata: metadata.metadata().clone().unwrap(),
        }
    }

    fn all() -> Vec<Self> {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/logits"));
        let mut folders: Vec<PathBuf> = std::fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.join("golden.safetensors").is_file())
            .collect();
        folders.sort();
        assert!(folders.len() >= 8, "golden checkpoints are missing from {}", root.display());
        folders.into_iter().map(Self::open).collect()
    }

    /// Each with its decoder, once by libtorch's products and once by the fastest, and what to call it.
    fn decoders(kind: Kind) -> impl Iterator<Item = (Rc<Self>, Decoder, String)> {
        Self::all().into_iter().map(Rc::new).flat_map(move |golden| {
            PRODUCTS.map(|products| {
                let name = format!("{}, {:?}", golden.name, products.attention);
                (Rc::clone(&golden), golden.decoder(products, kind), name)
            })
        })
    }

    fn decoder(&self, products: Products, kind: Kind) -> Decoder {
        let checkpoint = Checkpoint::open(&self.folder).unwrap();
        let options = LoadOptions { products, ..LoadOptions::inference(Device::Cpu, Some(kind)) };
        Decoder::load(&checkpoint, &options).unwrap()
    }

    fn vocabulary(&self) -> i64 {
        Checkpoint::open(&self.folder).unwrap().config.vocab_size
    }

    fn length(&self) -> i64 {
        self.ids.size()[1]
    }
}

fn positions(from: i64, to: i64) -> Tensor {
    Tensor::arange_start(from, to, (Kind::Int64, Device::Cpu)).unsqueeze(0)
}

/// [T, vocabulary] of one row, in one pass.
fn full_pass(decoder: &Decoder, ids: &Tensor) -> Tensor {
    let positions = positions(0, ids.size()[1]);
    decoder.logits(&decoder.hidden(ids, &positions, &Attention::Causal, None)).squeeze_dim(0)
}

fn distance(left: &Tensor, right: &Tensor) -> f64 {
    assert_eq!(left.size(), right.size());
    (left.to_kind(Kind::Float) - right.to_kind(Kind::Float)).abs().max().double_value(&[])
}

#[test]
fn float32_logits_equal_those_of_transformers() {
    let _guard = tch::no_grad_guard();
    for (golden, decoder, name) in Golden::decoders(Kind::Float) {
        let logits = full_pass(&decoder, &golden.ids).index_select(0, &golden.places);
        let distance = distance(&logits, &golden.logits);
        println!("{}: {distance:.2e}", name);
        assert!(distance <= FLOAT32_TOLERANCE, "{}: off by {distance}", name);
    }
}

#[test]
fn bfloat16_logits_are_as_close_as_those_of_transformers() {
    let _guard = tch::no_grad_guard();
    for (products, ratio) in PRODUCTS.into_iter().zip(BFLOAT16_RATIOS) {
        let (mut all, mut all_theirs) = (0.0, 0.0);
        for golden in Golden::all() {
            let logits = full_pass(&golden.decoder(products, Kind::BFloat16), &golden.ids);
            let distance = distance(&logits.index_select(0, &golden.places), &golden.logits);
            let theirs: f64 = golden.metadata["bf16_distance"].parse().unwrap();
            println!("{}, {products:?}: {distance:.4}, transformers {theirs:.4}", golden.name);
            assert!(distance <= ratio * theirs, "{}: off by {distance}, they by {theirs}", golden.name);
            (all, all_theirs) = (all + distance, all_theirs + theirs);
        }
        assert!(all <= 1.1 * all_theirs, "{products:?}: off by {all}, they by {all_theirs}");
    }
}

/// With windows over many tokens, behind a prefix that rows share, and where some are continued together.
#[test]
fn long_texts_are_attended_to_alike_by_both() {
    let _guard = tch::no_grad_guard();
    tch::manual_seed(2);
    for golden in Golden::all() {
        let (before, new, later) = (150, 190, 40);
        let ids = Tensor::randint(golden.vocabulary(), [2, before + new + later], (Kind::Int64, Device::Cpu));
        ids.narrow(1, 0, before).copy_(&ids.narrow(0, 0, 1).narrow(1, 0, before));
        let part = |from, count| (ids.narrow(1, from, count), positions(from, from + count).repeat([2, 1]));
        let found = PRODUCTS.map(|products| {
            let decoder = golden.decoder(products, Kind::Float);
            let hidden = |(ids, places): (Tensor, Tensor), mask: &Attention, past: &mut dyn Past| {
                decoder.hidden(&ids, &places, mask, Some(past))
            };
            let mut prefix = KvCache::new(decoder.config());
            let (first, places) = part(0, before);
            let first = (first.narrow(0, 0, 1), places.narrow(0, 0, 1));
            let read = hidden(first, &Attention::Causal, &mut prefix);
            let behind = hidden(part(before, new), &Attention::Causal, &mut Prefix::new(&prefix));
            let own = Tensor::ones([1, 1, new, new], (Kind::Bool, Device::Cpu)).tril(0);
            // Every third token is seen by none behind it.
            let _ = own.slice(3, 0, new, 3).slice(2, 1, new, 1).zero_();
            let own = own.logical_or(&Tensor::eye(new, (Kind::Bool, Device::Cpu)));
            let masked = hidden(part(before, new), &Attention::Mask(own), &mut Prefix::new(&prefix));
            let mut rows = prefix;
            rows.select(&Tensor::from_slice(&[0i64, 0])).unwrap();
            let continued = hidden(part(before, new), &Attention::Causal, &mut rows);
            let further = hidden(part(before + new, later), &Attention::Causal, &mut rows);
            [read, behind, masked, continued, further]
        });
        let [theirs, ours] = &found;
        for (index, (theirs, ours)) in theirs.iter().zip(ours).enumerate() {
            let distance = distance(ours, theirs);
            assert!(distance <= SAME_TOLERANCE, "{}, {index}: off by {distance}", golden.name);
        }
        let distance = distance(&ours[1], &ours[3]);
        assert!(distance <= SAME_TOLERANCE, "{}: a prefix is not a cache: {distance}", golden.name);
    }
}

#[test]
fn what_is_wanted_of_a_pass_is_that_of_the_whole_pass() {
    for (_, decoder, name) in Golden::decoders(Kind::Float) {
        wanted::check(&decoder, &name, SAME_TOLERANCE);
    }
    // Few rows and many are multiplied by other kernels, and rounded at other places.
    for (_, decoder, name) in Golden::decoders(Kind::BFloat16) {
        wanted::check(&decoder, &name, 0.1);
    }
}

#[test]
fn a_cache_changes_nothing() {
    let _guard = tch::no_grad_guard();
    for (golden, decoder, name) in Golden::decoders(Kind::Float) {
        let expected = full_pass(&decoder, &golden.ids);
        // A prompt, a stretch of several tokens, then single ones; little room, so that the buffers grow.
        let mut cache = KvCache::with_capacity(decoder.config(), 3);
        let mut from = 0;
        let steps = [9, 4].into_iter().chain(std::iter::repeat(1));
        for step in steps {
            let to = (from + step).min(golden.length());
            let ids = golden.ids.narrow(1, from, to - from);
            let hidden = decoder.hidden(&ids, &positions(from, to), &Attention::Causal, Some(&mut cache));
            let distance =
                distance(&decoder.logits(&hidden).squeeze_dim(0), &expected.narrow(0, from, to - from));
            assert!(distance <= SAME_TOLERANCE, "{} at {from}..{to}: off by {distance}", name);
            from = to;
            if from == golden.length() {
                break;
            }
        }
        assert_eq!(cache.len(), golden.length());
    }
}

#[test]
fn a_row_of_a_cache_that_is_chosen_twice_continues_as_if_fresh() {
    let _guard = tch::no_grad_guard();
    for (golden, decoder, name) in Golden::decoders(Kind::Float) {
        let (prompt, length) = (10, 14);
        let mut cache = KvCache::new(decoder.config());
        let all = golden.ids.narrow(1, 0, length);
        let first = all.narrow(1, 0, prompt);
        let _ = decoder.hidden(&first, &positions(0, prompt), &Attention::Causal, Some(&mut cache));
        cache.select(&Tensor::from_slice(&[0i64, 0])).unwrap();

        let other = (&all.narrow(1, prompt, 4) + 1).remainder(decoder.config().vocab_size);
        let continuations = Tensor::cat(&[&all.narrow(1, prompt, 4), &other], 0);
        let places = positions(prompt, length).repeat([2, 1]);
        let hidden = decoder.hidden(&continuations, &places, &Attention::Causal, Some(&mut cache));
        for row in 0..2 {
            let whole = Tensor::cat(&[&all.narrow(1, 0, prompt), &continuations.narrow(0, row, 1)], 1);
            let expected = full_pass(&decoder, &whole).narrow(0, prompt, 4);
            let distance = distance(&decoder.logits(&hidden.get(row)), &expected);
            assert!(distance <= SAME_TOLERANCE, "{} row {row}: off by {distance}", name);
        }
    }
}

#[test]
fn padding_on_either_side_changes_nothing() {
    let _guard = tch::no_grad_guard();
    for (golden, decoder, name) in Golden::decoders(Kind::Float) {
        let (long, short) = (golden.length(), golden.length() - 5);
        let padding = Tensor::zeros([1, 5], (Kind::Int64, Device::Cpu));
        let row = golden.ids.narrow(1, 2, short);
        let expected = [full_pass(&decoder, &golden.ids), full_pass(&decoder, &row)];
        for left in [false, true] {
            let padded = if left { [&padding, &row] } else { [&row, &padding] };
            let batch = Tensor::cat(&[&golden.ids, &Tensor::cat(&padded, 1)], 0);
            let start = if left { 5 } else { 0 };
            let places = Tensor::cat(&[positions(0, long), (positions(0, long) - start).clamp_min(0)], 0);
            // Causal, the padding of the second row hidden; a padded place sees itself.
            let causal = Tensor::ones([2, 1, long, long], (Kind::Bool, Device::Cpu)).tril(0);
            let real = positions(0, long).ge(start).logical_and(&positions(0, long).lt(start + short));
            let visible = Tensor::cat(&[Tensor::ones_like(&real), real], 0).view([2, 1, 1, long]);
            let own = Tensor::eye(long, (Kind::Bool, Device::Cpu));
            let mask = causal.logical_and(&visible).logical_or(&own);
            let hidden = decoder.hidden(&batch, &places, &Attention::Mask(mask), None);
            for (row, (from, length)) in [(0, long), (start, short)].into_iter().enumerate() {
                let logits = decoder.logits(&hidden.get(row as i64).narrow(0, from, length));
                let distance = distance(&logits, &expected[row]);
                assert!(distance <= SAME_TOLERANCE, "{} row {row}, left {left}: {distance}", name);
            }
        }
    }
}

/// One row holds a prompt and three continuations of it, each with the positions it would have alone.
#[test]
fn continuations_packed_into_one_row_equal_separate_rows() {
    let _guard = tch::no_grad_guard();
    for (golden, decoder, name) in Golden::decoders(Kind::Float) {
        let (prompt, branch, branches) = (12, 4, 3);
        let length = prompt + branch * branches;
        let ids = golden.ids.narrow(1, 0, length);
        let mut places = vec![positions(0, prompt)];
        let mask = Tensor::ones([1, 1, length, length], (Kind::Bool, Device::Cpu)).tril(0);
        for index in 0..branches {
            places.push(positions(prompt, prompt + branch));
            let start = prompt + index * branch;
            let _ = mask.narrow(2, start, branch).narrow(3, prompt, start - prompt).fill_(0);
        }
        let hidden =
            decoder.hidden(&ids, &Tensor::cat(&places, 1), &Attention::Mask(mask), None).squeeze_dim(0);
        for index in 0..branches {
            let start = prompt + index * branch;
            let alone = Tensor::cat(&[&ids.narrow(1, 0, prompt), &ids.narrow(1, start, branch)], 1);
            let expected = full_pass(&decoder, &alone).narrow(0, prompt, branch);
            let distance = distance(&decoder.logits(&hidden.narrow(0, start, branch)), &expected);
            assert!(distance <= SAME_TOLERANCE, "{} branch {index}: {distance}", name);
        }
    }
}

#[test]
fn gradients_reach_every_parameter() {
    for golden in Golden::all() {
        let checkpoint = Checkpoint::open(&golden.folder).unwrap();
        let options =
            LoadOptions { trainable: true, ..LoadOptions::inference(Device::Cpu, Some(Kind::Float)) };
        let decoder = Decoder::load(&checkpoint, &options).unwrap();
        let logits = full_pass(&decoder, &golden.ids);
        let before = distance(&logits.index_select(0, &golden.places), &golden.logits);
        assert!(before <= FLOAT32_TOLERANCE, "{}: off by {before}", golden.name);
        let targets = golden.ids.squeeze_dim(0).narrow(0, 1, golden.length() - 1);
        let loss = logits.narrow(0, 0, golden.length() - 1).cross_entropy_for_logits(&targets);
        loss.backward();

        let mut step = Vec::new();
        for (name, parameter) in decoder.named_parameters() {
            let gradient = parameter.grad();
            assert!(gradient.defined(), "{}: no gradient for {name}", golden.name);
            // The key bias shifts all scores of a query alike, up to the rotation: small, never absent.
            assert!(
                gradient.abs().max().double_value(&[]) > 0.0,
                "{}: zero gradient for {name}",
                golden.name
            );
            step.push((parameter, gradient));
        }
        // A step along the gradient, through the same tensors, lowers the loss of the next pass.
        tch::no_grad(|| {
            for (mut parameter, gradient) in step {
                let _ = parameter.g_sub_(&(gradient * 0.01));
            }
            let logits = full_pass(&decoder, &golden.ids);
            let after = logits.narrow(0, 0, golden.length() - 1).cross_entropy_for_logits(&targets);
            assert!(after.double_value(&[]) < loss.double_value(&[]), "{}", golden.name);
        });
    }
}

#[test]
fn named_parameters_are_the_checkpoints_tensors() {
    for golden in Golden::all() {
        let checkpoint = Checkpoint::open(&golden.folder).unwrap();
        let decoder = Decoder::load(&checkpoint, &LoadOptions::inference(Device::Cpu, None)).unwrap();
        let mut names: Vec<String> = Vec::new();
        let mut bytes = 0;
        for (name, parameter) in decoder.named_parameters() {
            assert_eq!(parameter, checkpoint.tensor(&name).unwrap(), "{}: {name}", golden.name);
            bytes += (parameter.numel() * parameter.kind().elt_size_in_bytes()) as u64;
            names.push(name);
        }
        names.sort();
        assert_eq!(names, checkpoint.names().collect::<Vec<_>>(), "{}", golden.name);
        assert_eq!(decoder.weight_bytes(), bytes, "{}", golden.name);
        assert_eq!(decoder.scheme_name(), "dense");
    }
}

/// Padding, rows that leave the batch and sliding windows change nothing.
#[test]
fn prompts_that_are_continued_together_go_on_as_each_by_itself() {
    for (_, decoder, name) in Golden::decoders(Kind::Float) {
        let vocabulary = decoder.config().vocab_size;
        let prompts: Vec<Vec<i64>> = [5, 1, 9, 3]
            .map(|length| (0..length).map(|i| (7 * i + 3 * length) % vocabulary).collect())
            .to_vec();
        let counts = [12, 3, 7, 12];
        let alone = prompts.iter().zip(counts);
        let alone = alone.map(|(prompt, count)| greedy(&decoder, prompt, count, &[]));
        let mut together = vec![Vec::new(); prompts.len()];
        let ids: Vec<&[i64]> = prompts.iter().map(Vec::as_slice).collect();
        generate::generate::<tch::TchError>(&decoder, &ids, 12, &mut |rows, logits| {
            let likeliest = Vec::<i64>::try_from(logits.f_argmax(-1, false)?)?;
            let chosen = rows.iter().zip(likeliest).map(|(&row, token)| {
                together[row].push(token);
                (together[row].len() < counts[row]).then_some(token)
            });
            Ok(chosen.collect())
        })
        .unwrap();
        assert_eq!(together, alone.collect::<Vec<_>>(), "{name}");
    }
}

/// The trained checkpoint among the shared data.
#[test]
fn stories_continue_as_in_transformers() {
    let Some(data) = std::env::var_os("QPIPE_TEST_DATA") else {
        println!("skipped: QPIPE_TEST_DATA is not set");
        return;
    };
    let text = include_str!("../../tests/golden/logits/stories260K.json");
    let golden: serde_json::Value = serde_json::from_str(text).unwrap();
    let tokens = |field: &str| -> Vec<i64> { serde_json::from_value(golden[field].clone()).unwrap() };
    let checkpoint = Checkpoint::open(&Path::new(&data).join("hf/stories260K")).unwrap();
    let decoder = Decoder::load(&checkpoint, &LoadOptions::inference(Device::Cpu, None)).unwrap();
    let expected = tokens("greedy");
    assert_eq!(expected.len(), 64);
    assert_eq!(greedy(&decoder, &tokens("prompt"), expected.len(), &[]), expected);
    let stopped = greedy(&decoder, &tokens("prompt"), expected.len(), &[expected[5]]);
    assert_eq!(stopped, expected[..=5]);
}
