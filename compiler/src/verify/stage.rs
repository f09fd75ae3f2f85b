//! Puts a case on a device: inputs, poisoned outputs, synthesised slabs, the per-request arrays; and makes its launches.

use std::collections::BTreeMap;
use std::ops::Range;

use moac_runtime::abi::MAX_BUCKETS;
use moac_runtime::attention::{self, Batch, Launch, LayerCall, Scratch, StepTable, Table, Tensors, View};
use moac_runtime::launch::{counters_bytes, partials_bytes};
use rayon::prelude::*;

use super::budget;
use super::candidate::Candidate;
use super::case::{Case, Layout, Placement, Request, Work, element};
use super::device::{Device, DeviceError, Fresh, POISON};
use super::image::{self, Image};
use super::inputs::{At, Inputs, Tensor};
use super::layer::Layer;

/// Bytes before, between and behind the layers of a slab, which no kernel may touch.
const GUARD: u64 = 256;
/// Inputs that a device may keep.
const KEPT_BYTES: u64 = 8 << 30;

/// A slab on the device.
#[derive(Debug)]
pub(super) struct Slab {
    pub(super) address: u64,
    /// Bytes before the layer's rings.
    pub(super) base: u64,
    pub(super) bytes: u64,
}

/// A case on a device, ready to be launched.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) launches: Vec<Launch>,
    pub(super) scratch: Scratch,
    /// Device addresses of o and lse.
    pub(super) o: u64,
    pub(super) lse: u64,
    pub(super) placement: Placement,
    /// One per request that has a chunk.
    pub(super) slabs: Vec<Option<Slab>>,
}

/// Inputs that lie on a device for any case that has the same requests.
#[derive(Debug, Default)]
pub(super) struct Kept {
    inputs: BTreeMap<Key, Vec<u64>>,
    bytes: u64,
}

/// The key that determines the content of the input buffers.
type Key = (Layout, u32, u32, Vec<Request>);

pub(super) fn stage(
    device: &mut impl Device,
    kept: &mut Kept,
    inputs: &Inputs,
    candidate: &Candidate,
    case: &Case,
) -> Result<Staged, DeviceError> {
    let layer = &candidate.layer;
    let placement = Placement::new(case.layout, layer, case.rows());
    if device.is_sparse() {
        device.clear();
        *kept = Kept::default();
    }
    let buffers = put_inputs(device, kept, inputs, candidate, case, &placement)?;
    let o = device.alloc("o", 0, placement.o.0.elements * 2, Fresh::Poison)?;
    let lse = device.alloc("lse", 0, placement.lse.0.elements * 4, Fresh::Poison)?;
    let mut layer_base = [0; MAX_BUCKETS];
    for (bucket, base) in (1..).zip(&mut layer_base) {
        *base = bucket * GUARD;
    }
    let mut slabs = Vec::new();
    for (number, request) in (0..).zip(&case.requests) {
        slabs.push(match request.chunk {
            0 => None,
            _ => Some(put_slab(device, inputs, candidate, case, (number, layer_base[request.bucket]))?),
        });
    }
    let tensors = Tensors {
        q: at(&buffers, &placement.q),
        k: at(&buffers, &placement.k),
        v: at(&buffers, &placement.v),
        o: View { address: o, ..placement.o.1 },
        lse: case.lse.then_some(View { address: lse, ..placement.lse.1 }),
    };
    let step = StepTable {
        table: put_table(device, layer, case, &slabs)?,
        batch: case.requests.len() as u32,
        rows: case.rows(),
        longest_chunk: case.longest_chunk(),
    };
    let ctas = ctas(device, candidate, case);
    let partials = partials_bytes(ctas, layer.group_size(), layer.head_dim);
    let counters = counters_bytes(step.batch, layer.kv_heads());
    let scratch = Scratch {
        partials: device.alloc("partials", 0, partials, Fresh::Unwritten)?,
        counters: device.alloc("counters", 0, counters, Fresh::Zero)?,
    };
    let call = LayerCall { shape: layer.shape(), layer: 0, layer_base };
    let mut launches = call
        .launches(&candidate.facts, &tensors, &step, scratch, device.sms())
        .expect("the tensors of a case are valid");
    for launch in &mut launches {
        match case.work {
            Work::Decode { .. } => launch.grid = [ctas, 1, 1],
            Work::Tiles(_) => launch.grid = candidate.grid_of_tiles(case, launch.grid),
            Work::Prefill | Work::Fill => {}
        }
    }
    Ok(Staged { launches, scratch, o, lse, placement, slabs })
}

/// CTAs that leave split results: those of a decode.
fn ctas(device: &impl Device, candidate: &Candidate, case: &Case) -> u32 {
    match case.work {
        Work::Decode { ctas } if ctas > 0 => ctas,
        _ => candidate.facts.rule.grid.split_ctas(device.sms()),
    }
}

/// The per-request arrays, each an allocation of its own: what is read beyond one of them shows.
fn put_table(
    device: &mut impl Device,
    layer: &Layer,
    case: &Case,
    slabs: &[Option<Slab>],
) -> Result<Table, DeviceError> {
    let mut starts = case.starts().into_iter();
    let request = |(request, slab): (&Request, &Option<Slab>)| attention::Request {
        slab: slab.as_ref().map_or(0, |slab| slab.address),
        bucket: request.bucket as u32,
        cached: request.cached,
        chunk: request.chunk,
        rows: request.chunk,
    };
    let batch = Batch::new(case.requests.iter().zip(slabs).map(request).collect());
    let batch = batch.expect("a case has 1 to 65,535 requests");
    let mut array =
        |label: &str, bytes: Vec<u8>| device.alloc(label, 0, bytes.len() as u64, Fresh::Data(&bytes));
    let per_request = |value: &dyn Fn(&Request) -> u32| -> Vec<u8> {
        case.requests.iter().flat_map(|request| value(request).to_le_bytes()).collect()
    };
    let addresses = slabs.iter().flat_map(|slab| slab.as_ref().map_or(0, |slab| slab.address).to_le_bytes());
    Ok(Table {
        slabs: array("slabs", addresses.collect())?,
        starts: array("starts", starts.by_ref().flat_map(u64::to_le_bytes).collect())?,
        buckets: array("buckets", per_request(&|request| request.bucket as u32))?,
        cached: array("cached", per_request(&|request| request.cached))?,
        chunk: array("chunk", per_request(&|request| request.chunk))?,
        first_tiles: array(
            "first_tiles",
            batch.first_tiles(&layer.geometry).flat_map(i32::to_le_bytes).collect(),
        )?,
        capacity: batch.len(),
    })
}

fn at(buffers: &[u64], (buffer, view): &(usize, View)) -> View {
    View { address: buffers[*buffer] + view.address * 2, ..*view }
}

fn put_slab(
    device: &mut impl Device,
    inputs: &Inputs,
    candidate: &Candidate,
    case: &Case,
    (number, base): (u32, u64),
) -> Result<Slab, DeviceError> {
    let layer = &candidate.layer;
    let Request { sequence, bucket, cached, .. } = case.requests[number as usize];
    let bytes = base + layer.ring_bytes(bucket) + GUARD;
    let image = Image { sequence, bucket, len: cached, blank: device.blank() };
    let address = device.alloc("slab", number, bytes, Fresh::Unwritten)?;
    let slab = Slab { address, base, bytes };
    if !device.is_sparse() {
        if cached > 0 {
            let mut fill = |to: &mut [u8]| image.fill(layer, inputs, to);
            device.make(address + base, layer.ring_bytes(bucket), &mut fill)?;
        }
        return Ok(slab);
    }
    let of_tiles: Option<Vec<u32>> = match &case.work {
        Work::Tiles(tiles) => {
            let own = tiles.iter().filter(|tile| tile.request == number);
            Some(own.map(|tile| layer.kv_head(tile.head)).collect())
        }
        _ => None,
    };
    for ring in image::rings(layer, bucket) {
        if of_tiles.as_ref().is_none_or(|kv_heads| kv_heads.contains(&ring.kv_head)) {
            let mut content = vec![0; u64::from(ring.slots) as usize * layer.row_bytes() as usize];
            image.fill_ring(layer, inputs, &ring, &mut content);
            // Tokens fill the slots from the first.
            for range in image::written(layer.ring_layout, ring.slots.min(cached), layer.row_bytes()) {
                let bytes = &content[range.start as usize..range.end as usize];
                if !bytes.is_empty() {
                    device.write(address + base + ring.offset + range.start, bytes)?;
                }
            }
        }
    }
    Ok(slab)
}

fn put_inputs(
    device: &mut impl Device,
    kept: &mut Kept,
    inputs: &Inputs,
    candidate: &Candidate,
    case: &Case,
    placement: &Placement,
) -> Result<Vec<u64>, DeviceError> {
    if device.is_sparse() {
        let whole_boxes = budget::reads_whole_boxes(candidate.facts.family);
        let fresh = if whole_boxes { Fresh::Poison } else { Fresh::Unwritten };
        let buffers: Vec<u64> = placement
            .inputs
            .iter()
            .map(|buffer| device.alloc(buffer.label, 0, buffer.elements * 2, fresh))
            .collect::<Result<_, _>>()?;
        let starts = case.starts();
        for rows in needed(candidate, case) {
            let (buffer, view) = placement.input(rows.tensor);
            let request = &case.requests[rows.request];
            for token in rows.tokens.clone() {
                let mut bytes = vec![0; inputs.head_dim() * 2];
                inputs.bytes(rows.at(request, token), &mut bytes);
                let to = element(view, starts[rows.request] + u64::from(token), rows.head);
                device.write(buffers[*buffer] + to * 2, &bytes)?;
            }
        }
        return Ok(buffers);
    }
    let layer = &candidate.layer;
    let key = (case.layout, layer.heads(), layer.kv_heads(), case.requests.clone());
    if let Some(buffers) = kept.inputs.get(&key) {
        return Ok(buffers.clone());
    }
    if kept.bytes > KEPT_BYTES {
        *kept = Kept::default();
    }
    let number = kept.inputs.len() as u32;
    let mut buffers = Vec::new();
    for (index, buffer) in placement.inputs.iter().enumerate() {
        let bytes = buffer.elements * 2;
        kept.bytes += bytes;
        let address = device.alloc(buffer.label, number, bytes, Fresh::Poison)?;
        device.make(address, bytes, &mut |to| fill_buffer(inputs, layer, case, placement, index, to))?;
        buffers.push(address);
    }
    kept.inputs.insert(key, buffers.clone());
    Ok(buffers)
}

/// Makes all rows of one input buffer; between them is poison.
fn fill_buffer(
    inputs: &Inputs,
    layer: &Layer,
    case: &Case,
    placement: &Placement,
    buffer: usize,
    bytes: &mut [u8],
) {
    let starts = case.starts();
    let views: Vec<(Tensor, &View)> = [Tensor::Q, Tensor::K, Tensor::V]
        .into_iter()
        .map(|tensor| (tensor, placement.input(tensor)))
        .filter(|(_, (at, _))| *at == buffer)
        .map(|(tensor, (_, view))| (tensor, view))
        .collect();
    let request_of = |row: u64| {
        let request = starts.partition_point(|&start| start <= row).checked_sub(1)?;
        let token = row - starts[request];
        (token < u64::from(case.requests[request].chunk)).then_some((&case.requests[request], token as u32))
    };
    let view = views[0].1;
    let by_token = view.token_stride >= view.head_stride;
    let (outer, inner) = if by_token {
        (view.token_stride, u64::from(layer.heads().max(layer.kv_heads())))
    } else {
        (view.head_stride, view.rows)
    };
    bytes.par_chunks_mut(outer as usize * 2).enumerate().for_each(|(major, chunk)| {
        chunk.fill(POISON);
        for minor in 0..inner {
            let (row, head) = if by_token { (major as u64, minor) } else { (minor, major as u64) };
            let Some((request, token)) = request_of(row) else { continue };
            for (tensor, view) in views.iter().filter(|(_, view)| head < u64::from(view.heads)) {
                let at = At {
                    tensor: *tensor,
                    sequence: request.sequence,
                    position: request.cached + token,
                    head: head as u32,
                };
                let to = (element(view, row, head as u32) - major as u64 * outer) as usize * 2;
                inputs.bytes(at, &mut chunk[to..to + inputs.head_dim() * 2]);
            }
        }
    });
}

/// Rows of one tensor, head and request that a kernel may read from the caller's tensors.
struct Rows {
    request: usize,
    tensor: Tensor,
    head: u32,
    tokens: Range<u32>,
}

impl Rows {
    fn at(&self, request: &Request, token: u32) -> At {
        At {
            tensor: self.tensor,
            sequence: request.sequence,
            position: request.cached + token,
            head: self.head,
        }
    }
}

/// Everything that the case's CTAs may read of q, k and v, and nothing else.
fn needed(candidate: &Candidate, case: &Case) -> Vec<Rows> {
    let layer = &candidate.layer;
    let mut needed = Vec::new();
    let Work::Tiles(tiles) = &case.work else {
        for (request, &Request { chunk, .. }) in case.requests.iter().enumerate() {
            let heads = if case.work == Work::Fill { 0 } else { layer.heads() };
            needed.extend((0..heads).map(|head| Rows { request, tensor: Tensor::Q, head, tokens: 0..chunk }));
            needed.extend((0..layer.kv_heads()).flat_map(|head| {
                [Tensor::K, Tensor::V].map(|tensor| Rows { request, tensor, head, tokens: 0..chunk })
            }));
        }
        return needed;
    };
    for tile in tiles {
        let request = tile.request as usize;
        let tokens = case.tile_rows(tile, candidate.tile_m());
        needed.push(Rows { request, tensor: Tensor::Q, head: tile.head, tokens });
        for tokens in budget::own_rows(candidate, case, tile) {
            needed.extend([Tensor::K, Tensor::V].map(|tensor| {
                let head = layer.kv_head(tile.head);
                Rows { request, tensor, head, tokens: tokens.clone() }
            }));
        }
    }
    needed
}
