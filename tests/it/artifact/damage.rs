//! Truncation, flipped bits, random bytes and random numbers: never a panic, and damage never goes unnoticed.

use moac_runtime::artifact::Artifact;
use proptest::prelude::*;
use serde_json::Value;

use super::{bytes, manifest_json, pack, sample};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn truncated_files_do_not_open(cut in any::<prop::sample::Index>()) {
        let bytes = bytes();
        let keep = cut.index(bytes.len());
        prop_assert!(Artifact::from_bytes(bytes[..keep].to_vec()).is_err());
    }

    /// A flipped bit is noticed, unless it only changes white space after the header.
    #[test]
    fn flipped_bits_are_noticed(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let mut bytes = bytes();
        let at = at.index(bytes.len());
        let before = bytes[at];
        bytes[at] ^= 1_u8 << bit;
        let (header, padding) = (8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize, before == b' ');
        match Artifact::from_bytes(bytes) {
            Err(_) => {}
            Ok(_) => prop_assert!(padding && at < header, "bit {bit} of byte {at} went unnoticed"),
        }
    }

    #[test]
    fn random_bytes_do_not_open(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(Artifact::from_bytes(bytes).is_err());
    }

    /// Numbers of a manifest that are changed and sealed again: an error or an artifact, never a panic or a hang.
    #[test]
    fn any_number_anywhere_is_safe(
        at in any::<prop::sample::Index>(),
        number in prop_oneof![
            any::<u64>().prop_map(Value::from),
            any::<u32>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            (0_u32..200).prop_map(|tiles| Value::from(tiles * 64)),
            any::<f64>().prop_map(Value::from),
        ],
    ) {
        let mut manifest = manifest_json();
        let mut numbers = Vec::new();
        numeric_pointers(&manifest, "", &mut numbers);
        let pointer = &numbers[at.index(numbers.len())];
        *manifest.pointer_mut(pointer).unwrap() = number;
        let _ = Artifact::from_bytes(pack(&manifest.to_string(), &sample().1));
    }
}

fn numeric_pointers(value: &Value, at: &str, into: &mut Vec<String>) {
    match value {
        Value::Number(_) => into.push(at.to_owned()),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| numeric_pointers(item, &format!("{at}/{i}"), into));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(key, field)| numeric_pointers(field, &format!("{at}/{key}"), into));
        }
        _ => {}
    }
}
