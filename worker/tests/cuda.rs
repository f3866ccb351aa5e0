//! The model on a card: logits against transformers' (tests/golden/logits), and what is written token by token, by then with a CUDA
//! graph, against one pass over the whole text.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod wanted;

use std::path::Path;

use qpipe_kernels::cuda::graphs_recorded;
use qpipe_worker::model::generate::generate;
use qpipe_worker::model::{Attention, Checkpoint, Decoder, LoadOptions, TensorFiles};
use qpipe_worker::torch;
use tch::{Device, Kind, TchError, Tensor};

const CARD: Device = Device::Cuda(0);
/// Largest |difference| of logits in float32, whose products a card sums in another order.
const TOLERANCE: f64 = 2e-4;

/// Whether there is a card. Where there is none, says so, or fails where one is required.
fn has_cuda() -> bool {
    if torch::has_cuda() {
        return true;
    }
    assert!(std::env::var_os("QPIPE_REQUIRE_CUDA").is_none(), "QPIPE_REQUIRE_CUDA is set: no CUDA device");
    #[expect(clippy::print_stdout, reason = "a skipped test says so")]
    {
        println!("skipped: no CUDA device");
    }
    false
}

/// The golden models by their names, on the card in float32, with what transformers says of them: ids [1, T], places `[P]`, logits
/// [P, vocabulary].
fn golden() -> Vec<(String, Decoder, [Tensor; 3])> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/logits"));
    let folders = fs_err::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let folders = folders.filter(|path| path.join("golden.safetensors").is_file());
    let model = |folder: std::path::PathBuf| {
        let tensors = TensorFiles::open(&folder.join("golden.safetensors")).unwrap();
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let decoder = Decoder::load(&checkpoint, &LoadOptions::inference(CARD, Some(Kind::Float))).unwrap();
        let known = ["ids", "places", "logits"].map(|name| tensors.tensor(name).unwrap());
        (folder.file_name().unwrap().to_string_lossy().into_owned(), decoder, known)
    };
    folders.map(model).collect()
}

/// Logits [T, vocabulary] of one text, in one pass.
fn full_pass(decoder: &Decoder, ids: &[i64]) -> Tensor {
    let ids = Tensor::from_slice(ids).unsqueeze(0).to_device(CARD);
    let positions = Tensor::arange(ids.size()[1], (Kind::Int64, CARD)).unsqueeze(0);
    decoder.logits(&decoder.hidden(&ids, &positions, &Attention::Causal, None)).squeeze_dim(0)
}

fn distance(left: &Tensor, right: &Tensor) -> f64 {
    assert_eq!(left.size(), right.size());
    (left.to_device(CARD) - right.to_device(CARD)).abs().max().double_value(&[])
}

#[test]
fn logits_on_a_card_equal_those_of_transformers() {
    if !has_cuda() {
        return;
    }
    let _guard = tch::no_grad_guard();
    for (name, decoder, [ids, places, logits]) in golden() {
        let ids = Vec::<i64>::try_from(ids.view([-1])).unwrap();
        let found = full_pass(&decoder, &ids).index_select(0, &places.to_device(CARD));
        let distance = distance(&found, &logits);
        assert!(distance <= TOLERANCE, "{name}: off by {distance}");
    }
}

#[test]
fn what_is_wanted_of_a_pass_on_a_card_is_that_of_the_whole_pass() {
    if has_cuda() {
        for (name, decoder, _) in golden() {
            wanted::check(&decoder, &name, TOLERANCE);
        }
    }
}

/// Rows of several lengths, of which one ends in the middle, until long after a graph was recorded; with little room at first, so that
/// the buffers grow.
#[test]
fn what_is_written_token_by_token_is_that_of_a_whole_pass() {
    if !has_cuda() {
        return;
    }
    let _guard = tch::no_grad_guard();
    for (name, decoder, [ids, ..]) in golden() {
        let ids = Vec::<i64>::try_from(ids.view([-1])).unwrap();
        for room in [40, 6] {
            let mut texts: Vec<Vec<i64>> = [9, 4, 12].map(|length| ids[..length].to_vec()).to_vec();
            let prompts = texts.clone();
            let prompts: Vec<&[i64]> = prompts.iter().map(Vec::as_slice).collect();
            let (mut written, mut largest, before) = (0, 0.0_f64, graphs_recorded());
            generate::<TchError>(&decoder, &prompts, room, &mut |rows, logits| {
                written += 1;
                let mut chosen = Vec::new();
                for (place, &row) in rows.iter().enumerate() {
                    let whole = full_pass(&decoder, &texts[row]);
                    let last = whole.select(0, whole.size()[0] - 1);
                    largest = largest.max(distance(&logits.select(0, place as i64), &last));
                    let token = last.argmax(-1, false).int64_value(&[]);
                    texts[row].push(token);
                    let is_done = written == 40 || (row == 1 && written == 15);
                    chosen.push((!is_done).then_some(token));
                }
                Ok(chosen)
            })
            .unwrap();
            assert_eq!(texts.iter().map(Vec::len).collect::<Vec<_>>(), [49, 19, 52]);
            assert!(largest <= TOLERANCE, "{name}, room for {room}: off by {largest}");
            // One before and one after the row ended, at least.
            assert!(graphs_recorded() >= before + 2, "{name}, room for {room}: {} graphs", graphs_recorded());
        }
    }
}
