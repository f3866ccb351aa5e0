//! Tests of `tensor_files.rs`: what is read without copies, and what memory it takes.

use serde_json::json;
use tempfile::TempDir;

use super::*;

fn golden() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/logits/llama-tied/model.safetensors"))
        .to_owned()
}

/// A file of this header and these bytes.
fn write_file(path: &Path, header: &str, data: &[u8]) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    fs::write(path, bytes).unwrap();
}

/// Bytes of the map of `file` that are in this process.
#[cfg(target_os = "linux")]
fn resident(file: &Path) -> u64 {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    let (_, map) = maps.split_once(file.to_str().unwrap()).unwrap();
    let line = map.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn aligned_tensors_are_views_of_the_map() {
    let files = TensorFiles::open(&golden()).unwrap();
    let (first, second) =
        (files.tensor("model.norm.weight").unwrap(), files.tensor("model.norm.weight").unwrap());
    assert_eq!(first.data_ptr(), second.data_ptr());
    let map = files.files[0].bytes.data_ptr() as usize;
    assert!((map..map + files.files[0].bytes.numel()).contains(&(first.data_ptr() as usize)));
    let expected = Vec::<f32>::try_from(&first).unwrap();
    drop(files);
    assert_eq!(Vec::<f32>::try_from(&first).unwrap(), expected, "the map lives as long as its views");
}

#[test]
fn unaligned_tensors_are_copied() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("odd.safetensors");
    let header = json!({
        "byte": { "dtype": "U8", "shape": [1], "data_offsets": [0, 1] },
        "floats": { "dtype": "F32", "shape": [2], "data_offsets": [1, 9] },
    });
    // One space decides between an aligned and an unaligned start.
    for padding in 0..4 {
        let mut data = vec![7];
        data.extend([1.5f32, -2.0].iter().flat_map(|value| value.to_le_bytes()));
        write_file(&file, &format!("{header}{}", " ".repeat(padding)), &data);
        let files = TensorFiles::open(&file).unwrap();
        assert_eq!(Vec::<f32>::try_from(files.tensor("floats").unwrap()).unwrap(), [1.5, -2.0]);
        assert_eq!(Vec::<u8>::try_from(files.tensor("byte").unwrap()).unwrap(), [7]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_let_go_takes_no_memory_and_is_read_again() {
    const BYTES: usize = 8 << 20;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("two.safetensors");
    let header = json!({
        "layer.weight": { "dtype": "U8", "shape": [BYTES], "data_offsets": [0, BYTES] },
        "layer2.weight": { "dtype": "U8", "shape": [BYTES], "data_offsets": [BYTES, 2 * BYTES] },
    });
    let data: Vec<u8> = (0..2 * BYTES).map(|index| (index % 251) as u8).collect();
    write_file(&file, &header.to_string(), &data);

    let files = TensorFiles::open(&file).unwrap();
    let read = |name: &str| Vec::<u8>::try_from(files.tensor(name).unwrap()).unwrap();
    assert!(read("layer.weight") == data[..BYTES] && read("layer2.weight") == data[BYTES..]);
    let before = resident(&file);
    files.let_go("layer.");
    let after = resident(&file);
    assert!(before >= 2 * BYTES as u64 && after < before - BYTES as u64 / 2, "{before} {after}");
    assert!(after >= BYTES as u64, "the other layer's are still there: {after}");
    assert!(read("layer.weight") == data[..BYTES]);
}
