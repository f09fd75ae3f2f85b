//! Numbers and conversions that the tests share.

/// Small pseudo-random numbers, the same for a seed everywhere.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number in -1..1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// The bf16 nearest to `v`, ties to even.
pub(crate) fn to_bf16(v: f32) -> u16 {
    let bits = v.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

pub(crate) fn from_bf16(bits: u16) -> f64 {
    f64::from(f32::from_bits(u32::from(bits) << 16))
}

pub(crate) fn bytes_of(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

pub(crate) fn words_of(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect()
}

/// Replaces the `nth` occurrence (from 1) of a text.
#[derive(Clone, Copy)]
pub(crate) struct Edit(pub(crate) &'static str, pub(crate) usize, pub(crate) &'static str);

/// Edits a text.
pub(crate) fn apply(source: &str, Edit(needle, nth, with): Edit) -> String {
    let at = source
        .match_indices(needle)
        .nth(nth - 1)
        .unwrap_or_else(|| panic!("no occurrence {nth} of `{needle}`"))
        .0;
    format!("{}{with}{}", &source[..at], &source[at + needle.len()..])
}
