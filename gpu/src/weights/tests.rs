#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use proptest::prelude::*;
use safetensors::tensor::TensorView;

use super::*;
use crate::testing::{tiny_config, weights_of};

/// Writes the tiny model with `change` applied to its tensors.
fn folder_with(change: impl Fn(&mut BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors: BTreeMap<_, _> = tiny_config()
        .parameters()
        .into_iter()
        .map(|spec| (spec.name.clone(), (Dtype::F32, spec.shape.clone(), vec![0; spec.len() * 4])))
        .collect();
    change(&mut tensors);
    let views =
        tensors.iter().map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, &folder.path().join(single_file(MODEL_FILES))).unwrap();
    folder
}

fn refusal(folder: &Path) -> String {
    let opened = WeightFiles::open(folder, MODEL_FILES);
    let checked = opened.and_then(|files| {
        files.check(&tiny_config())?;
        let mut elements = vec![0.0; 32];
        files.read_f32("model.norm.weight", 0, &mut elements)
    });
    match checked.unwrap_err() {
        GpuError::Weights { problem, .. } => problem,
        GpuError::Io { source, .. } => source.to_string(),
        other => panic!("unexpected {other:?}"),
    }
}

#[test]
fn missing_unknown_and_misshapen_tensors_are_refused_by_name() {
    let folder = folder_with(|tensors| drop(tensors.remove("model.norm.weight")));
    assert!(refusal(folder.path()).contains("\"model.norm.weight\" is missing"));
    let folder = folder_with(|tensors| drop(tensors.insert("extra".into(), (Dtype::F32, vec![1], vec![0; 4]))));
    assert!(refusal(folder.path()).contains("\"extra\" is not part of the model"));
    let folder = folder_with(|tensors| tensors.get_mut("lm_head.weight").unwrap().1 = vec![32, 128]);
    assert!(refusal(folder.path()).contains("has shape [32, 128]"));
}

#[test]
fn numbers_that_are_not_finite_and_unknown_types_are_refused() {
    let folder = folder_with(|tensors| {
        tensors.get_mut("model.norm.weight").unwrap().2[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    assert!(refusal(folder.path()).contains("not finite"));
    let folder = folder_with(|tensors| {
        tensors.insert("model.norm.weight".into(), (Dtype::F64, vec![32], vec![0; 256]));
    });
    assert!(refusal(folder.path()).contains("F64"));
}

#[test]
fn sixteen_bit_weights_are_converted_exactly() {
    let halves = |bits: [u16; 4]| bits.iter().flat_map(|bits| bits.to_le_bytes()).cycle().take(64).collect::<Vec<u8>>();
    for (dtype, bits, expected) in [
        (Dtype::BF16, [0x3f80, 0xc000, 0x0001, 0x8000], [1.0, -2.0, f32::from_bits(1 << 16), -0.0]),
        (Dtype::F16, [0x3c00, 0xc000, 0x0001, 0x7bff], [1.0, -2.0, 2.0_f32.powi(-24), 65504.0]),
    ] {
        let folder = folder_with(|tensors| {
            tensors.insert("model.norm.weight".into(), (dtype, vec![32], halves(bits)));
        });
        let files = WeightFiles::open(folder.path(), MODEL_FILES).unwrap();
        let mut elements = [0.0; 4];
        files.read_f32("model.norm.weight", 4, &mut elements).unwrap();
        assert_eq!(elements, expected);
    }
    assert!(half_to_f32(0x7c00).is_infinite() && half_to_f32(0x7e00).is_nan());
}

#[test]
fn truncated_and_malformed_files_are_refused() {
    let folder = weights_of(&tiny_config());
    let path = folder.path().join(single_file(MODEL_FILES));
    let whole = std::fs::read(&path).unwrap();
    for (bytes, expected) in [
        (&whole[..whole.len() - 1], "bytes of data"),
        (&whole[..20], "a header of"),
        (&whole[..3], "fill whole buffer"),
        (&[&[0xff; 8][..], &whole[8..]].concat()[..], "a header of"),
        (&[&2_u64.to_le_bytes()[..], b"[]"].concat()[..], "invalid type"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let problem = refusal(folder.path());
        assert!(problem.contains(expected), "{problem}");
    }
}

#[test]
fn an_index_cannot_lead_out_of_its_folder() {
    let folder = weights_of(&tiny_config());
    for name in ["../model.safetensors", "/etc/passwd", "sub/model.safetensors", ".."] {
        let index = serde_json::json!({ "weight_map": { "model.norm.weight": name } });
        std::fs::write(folder.path().join(index_file(MODEL_FILES)), index.to_string()).unwrap();
        assert!(refusal(folder.path()).contains("not the name of a file"), "{name}");
    }
}

/// The tiny model's file, cut into its header's text and its data.
fn header_and_data() -> (String, Vec<u8>) {
    let folder = weights_of(&tiny_config());
    let whole = std::fs::read(folder.path().join(single_file(MODEL_FILES))).unwrap();
    let size = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    (String::from_utf8(whole[8..8 + size].to_vec()).unwrap(), whole[8 + size..].to_vec())
}

/// Opens, checks and reads a file with this header; no content may do worse than a typed error.
fn read_with_header(header: &[u8], data: &[u8]) -> Result<(), GpuError> {
    let folder = tempfile::tempdir().unwrap();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header, data].concat();
    std::fs::write(folder.path().join(single_file(MODEL_FILES)), bytes).unwrap();
    let files = WeightFiles::open(folder.path(), MODEL_FILES)?;
    files.check(&tiny_config())?;
    for spec in tiny_config().parameters() {
        files.read_f32(&spec.name, 0, &mut vec![0.0; spec.len()])?;
    }
    Ok(())
}

#[test]
fn absurd_shapes_and_offsets_are_refused_without_overflow() {
    let (header, data) = header_and_data();
    read_with_header(header.as_bytes(), &data).unwrap();
    for (shape, end) in [
        ("[4611686018427387903]", "18446744073709551612"),
        ("[18446744073709551615,18446744073709551615]", "4"),
        ("[0]", "0"),
        ("[]", "4"),
        ("[4294967296,4294967296,4]", "0"),
    ] {
        for dtype in ["F32", "BF16", "F16", "U8", "F8_E4M3"] {
            let absurd =
                format!("{{\"model.norm.weight\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[0,{end}]}}}}");
            assert!(read_with_header(absurd.as_bytes(), &data[..4]).is_err(), "{absurd}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn prop_no_change_of_a_header_does_worse_than_a_typed_error(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..4),
    ) {
        let (header, data) = header_and_data();
        let mut header = header.into_bytes();
        for (place, byte, kind) in changes {
            let place = place.index(header.len());
            match kind {
                0 => header[place] = byte,
                1 => drop(header.remove(place)),
                // Digits make other numbers of those that are there.
                _ => header.insert(place, b'0' + byte % 10),
            }
        }
        if let Err(error) = read_with_header(&header, &data) {
            prop_assert!(matches!(error, GpuError::Weights { .. }), "{error:?}");
        }
    }

    #[test]
    fn prop_no_bytes_do_worse_than_a_typed_error(size in any::<u64>(), bytes in prop::collection::vec(any::<u8>(), 0..200), fits in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let size = if fits { bytes.len() as u64 } else { size };
        let whole = [&size.to_le_bytes()[..], &bytes].concat();
        std::fs::write(folder.path().join(single_file(MODEL_FILES)), &whole).unwrap();
        prop_assert!(WeightFiles::open(folder.path(), MODEL_FILES).and_then(|files| files.check(&tiny_config())).is_err());
        std::fs::write(folder.path().join(index_file(MODEL_FILES)), &bytes).unwrap();
        prop_assert!(WeightFiles::open(folder.path(), MODEL_FILES).is_err());
    }
}
