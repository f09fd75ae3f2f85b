//! The requests of one call, and the arrays in device memory that kernels look them up in.

use super::CallError;
use crate::geometry::LayerGeometry;

/// The most requests of one launch: they are a grid's third dimension.
pub const MAX_BATCH: u32 = 65_535;

/// One request of a batch, as the kernels see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Device address of its slab.
    pub slab: u64,
    /// Its bucket, by index.
    pub bucket: u32,
    /// Tokens in the slab.
    pub cached: u32,
    /// New tokens of this call. 0 skips the request, whose slab is not touched then.
    pub chunk: u32,
    /// Rows of the tensors that are the request's, at least `chunk`; those behind its new tokens are not touched.
    pub rows: u32,
}

/// The requests of one call: the rows of request 0, then those of request 1, and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    requests: Vec<Request>,
}

impl Batch {
    /// A batch of requests.
    ///
    /// # Errors
    /// [`CallError::BatchSize`] or [`CallError::FewRows`].
    pub fn new(requests: Vec<Request>) -> Result<Self, CallError> {
        if requests.is_empty() || requests.len() > MAX_BATCH as usize {
            return Err(CallError::BatchSize { found: requests.len(), most: MAX_BATCH });
        }
        if let Some(request) = requests.iter().position(|request| request.rows < request.chunk) {
            let Request { rows, chunk, .. } = requests[request];
            return Err(CallError::FewRows { request, rows, chunk });
        }
        Ok(Self { requests })
    }

    /// Requests.
    pub fn len(&self) -> u32 {
        self.requests.len() as u32
    }

    /// Never: a batch has a request.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Rows of the tensors that the requests take.
    pub fn rows(&self) -> u64 {
        self.requests.iter().map(|request| u64::from(request.rows)).sum()
    }

    /// The longest chunk.
    pub fn longest_chunk(&self) -> u32 {
        self.requests.iter().map(|request| request.chunk).max().unwrap_or(0)
    }

    /// The arrays that [`Table::addresses`] finds: per request, `u64` slabs, `i64` starts, `i32` buckets, cached and
    /// chunks, each `capacity` long; then for each of `split` layers the [`first_tiles`](Self::first_tiles) of the first
    /// `decodes` requests, whose last entry fills up the rest: a graph that was captured with more requests finds that they
    /// have nothing to do.
    ///
    /// # Panics
    /// If there are more requests than `capacity`.
    pub fn table(&self, capacity: u32, split: &[LayerGeometry], decodes: usize) -> Vec<u8> {
        assert!(self.len() <= capacity, "{} requests in a table of {capacity}", self.len());
        let mut bytes = vec![0; Table::bytes(capacity, split.len()) as usize];
        let Table { slabs, starts, buckets, cached, chunk, first_tiles, .. } = Table::addresses(0, capacity);
        let mut start = 0_i64;
        for (at, request) in self.requests.iter().enumerate() {
            let mut put = |array: u64, value: &[u8]| {
                let to = array as usize + at * value.len();
                bytes[to..to + value.len()].copy_from_slice(value);
            };
            put(slabs, &request.slab.to_le_bytes());
            put(starts, &start.to_le_bytes());
            put(buckets, &request.bucket.to_le_bytes());
            put(cached, &request.cached.to_le_bytes());
            put(chunk, &request.chunk.to_le_bytes());
            start += i64::from(request.rows);
        }
        for (layer, geometry) in split.iter().enumerate() {
            let to = first_tiles as usize + layer * Table::first_tiles_bytes(capacity) as usize;
            let own = &mut bytes[to..to + Table::first_tiles_bytes(capacity) as usize];
            let mut tiles = self.first_tiles(geometry).take(decodes + 1);
            let mut last = 0;
            for entry in own.chunks_exact_mut(4) {
                last = tiles.next().unwrap_or(last);
                entry.copy_from_slice(&last.to_le_bytes());
            }
        }
        bytes
    }

    /// The tiles of keys that a decode of a layer attends to before each request, and in all: one entry more than there
    /// are requests. Kernels that split keys find their range by it.
    pub fn first_tiles<'a>(&'a self, layer: &'a LayerGeometry) -> impl Iterator<Item = i32> + 'a {
        let tiles = |request: &Request| match request.chunk {
            0 => 0,
            _ => layer.tiles(request.bucket as usize, request.cached + 1),
        };
        let before = self.requests.iter().scan(0, move |before, request| {
            *before += tiles(request) as i32;
            Some(*before)
        });
        std::iter::once(0).chain(before)
    }
}

/// Where the arrays of a batch lie in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// `[batch]` u64: the slab of each request.
    pub slabs: u64,
    /// `[batch]` i64: its first row.
    pub starts: u64,
    /// `[batch]` i32: its bucket, by index.
    pub buckets: u64,
    /// `[batch]` i32: tokens in its slab.
    pub cached: u64,
    /// `[batch]` i32: its new tokens.
    pub chunk: u64,
    /// `[layer][capacity + 1]` i32, of the layers whose decode kernels take it: [`Batch::first_tiles`].
    pub first_tiles: u64,
    /// Requests that the arrays have room for.
    pub capacity: u32,
}

impl Table {
    /// Bytes of the arrays for `capacity` requests, and `split` layers that take the tiles before each request.
    pub const fn bytes(capacity: u32, split: usize) -> u64 {
        capacity as u64 * (8 + 8 + 4 + 4 + 4) + split as u64 * Self::first_tiles_bytes(capacity)
    }

    const fn first_tiles_bytes(capacity: u32) -> u64 {
        (capacity as u64 + 1) * 4
    }

    /// The arrays of [`Batch::table`] once its bytes are at `address`, a multiple of 8.
    pub const fn addresses(address: u64, capacity: u32) -> Self {
        let n = capacity as u64;
        Self {
            slabs: address,
            starts: address + 8 * n,
            buckets: address + 16 * n,
            cached: address + 20 * n,
            chunk: address + 24 * n,
            first_tiles: address + 28 * n,
            capacity,
        }
    }

    /// The arrays from request `first` on. Only kernels that do not split keys may be called with them: the tiles before
    /// each request are counted from the first one.
    #[must_use]
    pub const fn skip(&self, first: u32) -> Self {
        let n = first as u64;
        Self {
            slabs: self.slabs + 8 * n,
            starts: self.starts + 8 * n,
            buckets: self.buckets + 4 * n,
            cached: self.cached + 4 * n,
            chunk: self.chunk + 4 * n,
            ..*self
        }
    }

    /// The tiles before each request of layer `layer`.
    pub const fn first_tiles_of(&self, layer: usize) -> u64 {
        self.first_tiles + layer as u64 * Self::first_tiles_bytes(self.capacity)
    }
}
