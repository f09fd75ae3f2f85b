//! Memory spaces: global allocations, a launch's view of them, shared memory, and the shadow that finds races.

pub(crate) mod global;
pub(crate) mod shadow;
pub(crate) mod shared;
pub(crate) mod touched;
pub(crate) mod view;

/// Where shared addresses appear among the generic ones.
pub(crate) const SHARED_WINDOW: u64 = 0x7100_0000_0000;
/// Where a thread's local addresses appear among the generic ones.
pub(crate) const LOCAL_WINDOW: u64 = 0x7200_0000_0000;
/// Where parameter addresses appear among the generic ones.
pub(crate) const PARAM_WINDOW: u64 = 0x7300_0000_0000;
/// Bytes of each window.
pub(crate) const WINDOW: u64 = 1 << 32;

/// Where the rank of another CTA, plus one, stands in an address of the cluster's shared memory.
pub(crate) const RANK_SHIFT: u32 = 24;

/// Bytes of a page of global memory.
pub(crate) const PAGE: usize = 4096;

/// One bit per byte of a page.
pub(crate) type PageBits = [u64; PAGE / 64];

/// Splits `len` bytes at `address` into pieces that lie in one page each.
pub(crate) fn pages(address: u64, len: usize) -> impl Iterator<Item = (u64, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let a = address.wrapping_add(at as u64);
        let n = (len - at).min(PAGE - a as usize % PAGE);
        at += n;
        (n > 0).then_some((a, n))
    })
}

/// The words and masks of a bitmap that bits `from .. from + len` fall into.
pub(crate) fn bit_ranges(from: usize, len: usize) -> impl Iterator<Item = (usize, u64)> {
    let end = from + len;
    (from / 64..end.div_ceil(64)).map(move |w| {
        let lo = from.max(w * 64) - w * 64;
        let hi = end.min(w * 64 + 64) - w * 64;
        let ones = if hi - lo == 64 { u64::MAX } else { (1 << (hi - lo)) - 1 };
        (w, ones << lo)
    })
}

/// Copies bytes as `copy_from_slice` does, without a call for the sizes that lanes access.
#[inline]
pub(crate) fn copy(to: &mut [u8], from: &[u8]) {
    fn fixed<const N: usize>(to: &mut [u8], from: &[u8]) -> bool {
        match (to.first_chunk_mut::<N>(), from.first_chunk::<N>()) {
            (Some(to), Some(from)) => {
                *to = *from;
                true
            }
            _ => false,
        }
    }
    let done = match to.len() {
        4 => fixed::<4>(to, from),
        8 => fixed::<8>(to, from),
        16 => fixed::<16>(to, from),
        _ => false,
    };
    if !done {
        to.copy_from_slice(from);
    }
}

/// Sets bits `from .. from + len`.
#[inline]
pub(crate) fn set_bits(bits: &mut [u64], from: usize, len: usize) {
    if from % 64 + len <= 64 && len < 64 {
        bits[from / 64] |= ((1 << len) - 1) << (from % 64);
    } else {
        bit_ranges(from, len).for_each(|(w, m)| bits[w] |= m);
    }
}

/// Whether bits `from .. from + len` are all set.
#[inline]
pub(crate) fn all_set(bits: &[u64], from: usize, len: usize) -> bool {
    if from % 64 + len <= 64 && len < 64 {
        let m = ((1 << len) - 1) << (from % 64);
        bits[from / 64] & m == m
    } else {
        bit_ranges(from, len).all(|(w, m)| bits[w] & m == m)
    }
}
