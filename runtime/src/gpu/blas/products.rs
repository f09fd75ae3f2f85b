//! Products with a weight matrix, of any shape: described once, then only launched.

use std::collections::BTreeMap;
use std::path::Path;

use cudarc::cublaslt::sys::cublasLtMatmulAlgo_t as Algorithm;
use serde::{Deserialize, Serialize};

use super::algorithms::Algorithms;
use super::description::{Addresses, Description, Handle};
use super::present;
use crate::gpu::error::Doing;
use crate::gpu::{Buffer, Device, Event, GpuError, Stream};
use crate::plan::DType;

/// Bytes of scratch, as NVIDIA advises for Hopper.
const SCRATCH: u64 = 32 << 20;
/// Algorithms that are timed against each other.
const CANDIDATES: usize = 16;
/// How often each is, for the shortest time.
const ROUNDS: usize = 3;

/// A product: `y[rows, out] = x[rows, inner] w[out, inner]^T`, sums in float32. All three are rows without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Product {
    /// Rows of x and y.
    pub rows: u32,
    /// Rows of w, columns of y.
    pub out: u32,
    /// Columns of x and w.
    pub inner: u32,
    /// The elements of x and w.
    pub dtype: DType,
    /// The elements of y.
    pub result: ResultType,
    /// Whether the product is added to what is in y.
    pub add: bool,
}

/// The elements of a product's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResultType {
    /// The element type of the operands.
    Elements,
    /// float32
    F32,
}

impl Product {
    /// Floating-point operations, a multiply-add being two.
    pub fn flops(&self) -> u64 {
        2 * u64::from(self.rows) * u64::from(self.out) * u64::from(self.inner)
    }

    /// Bytes of x, w and y.
    pub fn bytes(&self) -> [u64; 3] {
        let element = u64::from(self.dtype.bytes());
        let result = match self.result {
            ResultType::Elements => element,
            ResultType::F32 => 4,
        };
        let [rows, out, inner] = [self.rows, self.out, self.inner].map(u64::from);
        [rows * inner * element, out * inner * element, rows * out * result]
    }
}

/// Products of one stream: their scratch is shared, so what runs on two streams at once needs two of these.
///
/// [`run`](Self::run) only launches: it waits for nothing and can be captured, and a graph of it holds the addresses.
#[derive(Debug)]
pub struct Products {
    device: Device,
    described: BTreeMap<Product, (Description, Algorithm)>,
    algorithms: Algorithms,
    scratch: Buffer,
    handle: Handle,
}

impl Products {
    /// Starts the library; `None` where the loader finds none. Algorithms that were timed are kept in a file of `folder`.
    ///
    /// # Errors
    /// [`GpuError::Library`], [`GpuError::OutOfMemory`], or what the driver says.
    pub fn new(device: &Device, folder: Option<&Path>) -> Result<Option<Self>, GpuError> {
        if !present() {
            return Ok(None);
        }
        device.context().bind_to_thread().doing("use the device")?;
        let handle = Handle::new()?;
        Ok(Some(Self {
            device: device.clone(),
            described: BTreeMap::new(),
            algorithms: Algorithms::open(folder, &device.info().name, Handle::version()),
            scratch: device.alloc(SCRATCH, "the scratch of matrix products")?,
            handle,
        }))
    }

    /// Bytes of device memory.
    pub fn bytes(&self) -> u64 {
        self.scratch.bytes()
    }

    /// Gives a product to `stream`. The first of a shape describes it, which allocates on the host.
    ///
    /// # Errors
    /// [`GpuError::Range`] where a buffer is too small, [`GpuError::Library`], or what the driver says.
    pub fn run(
        &mut self,
        stream: &Stream,
        product: &Product,
        x: &Buffer,
        w: &Buffer,
        y: &mut Buffer,
    ) -> Result<(), GpuError> {
        stream.bind(&self.device)?;
        self.describe(product)?;
        let (description, algorithm) = &self.described[product];
        self.launch(stream, product, (description, algorithm), [x, w, y])
    }

    /// Makes sure that a product's first [`run`](Self::run) only launches.
    ///
    /// # Errors
    /// [`GpuError::Library`].
    pub fn describe(&mut self, product: &Product) -> Result<(), GpuError> {
        if self.described.contains_key(product) {
            return Ok(());
        }
        let description = Description::new(product)?;
        // The file is untrusted: what it says is asked of the library again.
        let known = self.algorithms.get(product).map(|data| Algorithm { data });
        let known = known.filter(|known| description.takes(&self.handle, known, SCRATCH as usize));
        let algorithm = match known {
            Some(known) => known,
            None => self.guesses(&description, 1)?[0],
        };
        self.described.insert(*product, (description, algorithm));
        Ok(())
    }

    /// Chooses a product's algorithm by timing, unless the file knows it: each candidate goes through all of `weights`, as
    /// a model's layers do, in a graph. It writes to `y`, and waits for the stream.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn tune(
        &mut self,
        stream: &Stream,
        product: &Product,
        x: &Buffer,
        weights: &[&Buffer],
        y: &mut Buffer,
    ) -> Result<(), GpuError> {
        stream.bind(&self.device)?;
        self.describe(product)?;
        if self.algorithms.get(product) == Some(self.described[product].1.data) {
            return Ok(());
        }
        let (description, _) = &self.described[product];
        let mut best: Option<(f32, Algorithm)> = None;
        for algorithm in self.guesses(description, CANDIDATES)? {
            let chosen = (description, &algorithm);
            // Its code is loaded at the first launch, and one that fails is out.
            let first = weights.first().map(|w| self.launch(stream, product, chosen, [x, w, y]));
            if !matches!(first, Some(Ok(()))) {
                continue;
            }
            let all = || weights.iter().try_for_each(|w| self.launch(stream, product, chosen, [x, w, y]));
            let graph = stream.capture(all)?;
            for _ in 0..ROUNDS {
                let (begin, end) = (Event::new(&self.device)?, Event::new(&self.device)?);
                begin.record(stream)?;
                graph.launch()?;
                end.record(stream)?;
                let took = begin.milliseconds_to(&end)?;
                if best.is_none_or(|(least, _)| took < least) {
                    best = Some((took, algorithm));
                }
            }
        }
        if let Some((took, algorithm)) = best {
            tracing::debug!(?product, ms = took, of = weights.len(), "chose an algorithm");
            self.algorithms.insert(*product, algorithm.data);
            if let Some((_, current)) = self.described.get_mut(product) {
                *current = algorithm;
            }
        }
        Ok(())
    }

    /// Writes what was chosen to the file.
    pub fn save(&mut self) {
        self.algorithms.save();
    }

    fn guesses(&self, description: &Description, most: usize) -> Result<Vec<Algorithm>, GpuError> {
        let found = description.guesses(&self.handle, SCRATCH as usize, most)?;
        if found.is_empty() {
            let reason = "it has none for this shape and element type".to_owned();
            return Err(GpuError::Library { library: "cuBLASLt", what: "choose an algorithm", reason });
        }
        Ok(found)
    }

    fn launch(
        &self,
        stream: &Stream,
        product: &Product,
        (description, algorithm): (&Description, &Algorithm),
        buffers: [&Buffer; 3],
    ) -> Result<(), GpuError> {
        let mut addresses = [0; 3];
        for ((address, buffer), bytes) in addresses.iter_mut().zip(buffers).zip(product.bytes()) {
            stream.bind(buffer.device())?;
            *address = buffer.range(0, bytes)?;
        }
        let [x, w, y] = addresses;
        let addresses = Addresses { x, w, y, scratch: self.scratch.address() };
        // SAFETY: the operands are as large as the product says, by the checks above, and freeing them or the scratch waits
        // for the device; the algorithm was found or checked for this description; the stream is of this device.
        unsafe { description.run(&self.handle, algorithm, addresses, SCRATCH as usize, stream.raw().cast()) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Product, ResultType};
    use crate::plan::DType;

    #[test]
    fn operands_take_the_bytes_of_their_elements() {
        let product =
            Product { rows: 3, out: 5, inner: 7, dtype: DType::F16, result: ResultType::F32, add: false };
        assert_eq!(product.bytes(), [2 * 21, 2 * 35, 4 * 15]);
        assert_eq!(Product { result: ResultType::Elements, ..product }.bytes()[2], 30);
        assert_eq!(product.flops(), 2 * 3 * 5 * 7);
        // Large ones do not overflow: the logits of a long chunk.
        let large = Product { rows: 1 << 20, out: 1 << 20, inner: 1 << 20, ..product };
        assert_eq!(large.flops(), 1 << 61);
    }
}
