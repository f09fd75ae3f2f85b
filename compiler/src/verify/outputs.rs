//! Reading a case's outputs back: the rows to compare, and whether everything is written that must be, and nothing else.

use moac_runtime::attention::View;
use moac_runtime::element::f32_from_bytes;
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use super::case::element;
use super::compare::{self, Kind};
use super::device::{Device, DeviceError, POISON};
use super::stage::Staged;
use super::verdict::{Row, Run};

/// The output of a row: the bytes of o, and lse where it was requested.
pub(super) type Found = (Vec<u8>, Option<f32>);

/// A digest of the results of each of `requests` requests.
pub(super) fn digests(rows: &[Row], found: &[Found], requests: usize) -> Vec<[u8; 32]> {
    let mut digests = vec![Sha256::new(); requests];
    for (row, (o, lse)) in rows.iter().zip(found) {
        digests[row.request].update(o);
        digests[row.request].update(lse.unwrap_or_default().to_le_bytes());
    }
    digests.into_iter().map(|digest| digest.finalize().into()).collect()
}

/// The rows to check, out of the whole of o and lse; everything that must be written is, and nothing else.
pub(super) fn read_all(
    device: &mut impl Device,
    run: &mut Run<'_>,
    staged: &Staged,
    rows: &[Row],
) -> Result<Vec<Found>, DeviceError> {
    let (candidate, case) = (run.candidate, run.case);
    let (layer, dtype) = (&candidate.layer, candidate.layer.dtype);
    let starts = case.starts();
    let mut written = vec![false; case.rows() as usize];
    for (request, &start) in case.requests.iter().zip(&starts) {
        written[start as usize..][..request.chunk as usize].fill(true);
    }
    let lse = read_lse(device, run, staged, &written)?;
    let (buffer, view) = &staged.placement.o;
    let o = device.read(staged.o, buffer.elements * 2)?;
    let row_bytes = layer.row_bytes() as usize;
    let find = |row: &Row| {
        let at = starts[row.request] + u64::from(row.token);
        let from = element(view, at, row.head) as usize * 2;
        let lse = lse.get(element(&staged.placement.lse.1, at, row.head) as usize).copied();
        (o[from..from + row_bytes].to_vec(), lse)
    };
    let found = rows.iter().map(find).collect();
    let finite = |bytes: &[u8]| compare::is_finite(dtype, bytes);
    run.fail_all(regions("o", o, view, row_bytes, 2, &written, finite));
    Ok(found)
}

/// All of lse, as it lies in memory; nothing where it was not asked for.
fn read_lse(
    device: &mut impl Device,
    run: &mut Run<'_>,
    staged: &Staged,
    written: &[bool],
) -> Result<Vec<f32>, DeviceError> {
    if !run.case.lse {
        return Ok(Vec::new());
    }
    let (buffer, view) = &staged.placement.lse;
    let lse = device.read(staged.lse, buffer.elements * 4)?;
    let values = f32_from_bytes(lse);
    let finite = |bytes: &[u8]| single(bytes).is_some_and(f32::is_finite);
    run.fail_all(regions("lse", lse, view, 4, 4, written, finite));
    Ok(values)
}

/// The rows of some tiles. That nothing else was written the counts tell.
pub(super) fn read_rows(
    device: &mut impl Device,
    run: &mut Run<'_>,
    staged: &Staged,
    rows: &[Row],
) -> Result<Vec<Found>, DeviceError> {
    let (layer, starts) = (&run.candidate.layer, run.case.starts());
    let mut found = Vec::new();
    for row in rows {
        let at = starts[row.request] + u64::from(row.token);
        let from = staged.o + element(&staged.placement.o.1, at, row.head) * 2;
        let o = device.read(from, layer.row_bytes())?.to_vec();
        let lse = if run.case.lse {
            let from = staged.lse + element(&staged.placement.lse.1, at, row.head) * 4;
            single(device.read(from, 4)?)
        } else {
            None
        };
        if !compare::is_finite(layer.dtype, &o) || lse.is_some_and(|lse| !lse.is_finite()) {
            let what = format!("o or lse: {row:?} is not written or not finite");
            run.fail(Kind::Unwritten, what);
        }
        found.push((o, lse));
    }
    Ok(found)
}

/// The f32 in four bytes.
fn single(bytes: &[u8]) -> Option<f32> {
    bytes.try_into().ok().map(f32::from_le_bytes)
}

/// Checks a whole output buffer: `finite` rows where something must be written, poison everywhere else. Says the first
/// thing wrong of each outer row.
fn regions(
    label: &str,
    bytes: &mut [u8],
    view: &View,
    row_bytes: usize,
    element_bytes: usize,
    written: &[bool],
    finite: impl Fn(&[u8]) -> bool + Sync,
) -> Vec<(Kind, String)> {
    let by_token = view.token_stride >= view.head_stride;
    let (outer, inner, minors) = if by_token {
        (view.token_stride, view.head_stride, u64::from(view.heads))
    } else {
        (view.head_stride, view.token_stride, view.rows)
    };
    let (outer, inner) = (outer as usize * element_bytes, inner as usize * element_bytes);
    bytes
        .par_chunks_mut(outer)
        .enumerate()
        .filter_map(|(major, chunk)| {
            let mut bad = None;
            for minor in 0..minors as usize {
                let (row, head) = if by_token { (major, minor) } else { (minor, major) };
                if !written[row] {
                    continue;
                }
                let own = &mut chunk[minor * inner..minor * inner + row_bytes];
                if !finite(own) {
                    let what = format!("{label}: row {row} of head {head} is not written or not finite");
                    bad = bad.or(Some((Kind::Unwritten, what)));
                }
                own.fill(POISON);
            }
            let stray = chunk
                .iter()
                .position(|&byte| byte != POISON)
                .map(|at| (Kind::Stray, format!("{label}: byte {} was written to", major * outer + at)));
            bad.or(stray)
        })
        .collect()
}
