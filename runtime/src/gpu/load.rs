//! An artifact on a device: the checks that need one, and its kernels in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::module::LoadedKernel;
use super::{Device, DriverVersion, GpuError};
use crate::arch::Arch;
use crate::artifact::{Artifact, Kernel, LoadError};
use crate::attention::{KernelFacts, LayerCall};
use crate::geometry::{Geometry, LayerGeometry};
use crate::glue::{EngineShape, Op, Sizes};
use crate::launch::{self, Family, Phase};
use crate::plan::DType;

/// An artifact loaded on a device, for one architecture. Cheap to clone, and shared between threads.
#[derive(Clone, Debug)]
pub struct LoadedArtifact {
    pub(super) inner: Arc<Inner>,
}

/// The state shared by the slabs, workspaces and layers of one loaded artifact.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) device: Device,
    pub(super) geometry: Geometry,
    pub(super) layers: Vec<LoadedLayer>,
    pub(super) engine: Option<LoadedEngine>,
    pub(super) arch: Arch,
    pub(super) dtype: DType,
}

#[derive(Debug)]
pub(super) struct LoadedLayer {
    pub(super) call: LayerCall,
    pub(super) prefill: Attention,
    pub(super) decode: Attention,
}

/// A kernel of attention.
#[derive(Clone, Debug)]
pub(super) struct Attention {
    pub(super) kernel: Arc<LoadedKernel>,
    pub(super) facts: KernelFacts,
}

impl Attention {
    /// The loaded `kernel`; checked on opening, it is one of attention.
    fn new(kernel: Arc<LoadedKernel>, of: &Kernel) -> Result<Self, GpuError> {
        let facts = of.facts().ok_or(GpuError::Foreign { what: "a kernel of a layer" })?;
        Ok(Self { kernel, facts })
    }
}

/// The engine's own kernels.
#[derive(Debug)]
pub(super) struct LoadedEngine {
    pub(super) shape: EngineShape,
    pub(super) sizes: Sizes,
    pub(super) kernels: BTreeMap<Op, Arc<LoadedKernel>>,
}

impl Artifact {
    /// Loads the kernels on a device: those of the most specific architecture that runs there.
    ///
    /// # Errors
    /// [`LoadError`], each of its checks in order, or what the driver says.
    pub fn load(&self, device: &Device) -> Result<LoadedArtifact, GpuError> {
        let arch = best_arch(&self.manifest().archs, device.info().capability);
        let arch = arch.ok_or_else(|| no_arch(device, self.manifest().archs.clone()))?;
        self.load_arch(device, arch)
    }

    /// As [`load`](Self::load), for one architecture of the artifact.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_arch(&self, device: &Device, arch: Arch) -> Result<LoadedArtifact, GpuError> {
        let began = Instant::now();
        let manifest = self.manifest();
        let runs = best_arch(&[arch], device.info().capability).is_some();
        if !runs || !manifest.archs.contains(&arch) {
            return Err(no_arch(device, manifest.archs.clone()));
        }
        check_driver(device.info().driver, manifest.producer.cuda)?;
        // One load per kernel, however many layers use it.
        let mut loaded: Vec<Option<Arc<LoadedKernel>>> = vec![None; manifest.kernels.len()];
        let mut load = |id: usize| -> Result<Arc<LoadedKernel>, GpuError> {
            if let Some(kernel) = &loaded[id] {
                return Ok(kernel.clone());
            }
            let kernel = &manifest.kernels[id];
            let made = Arc::new(LoadedKernel::load(device, kernel, self.cubin(kernel))?);
            loaded[id] = Some(made.clone());
            Ok(made)
        };
        let mut layers = Vec::new();
        let mut attention = |id: usize| Attention::new(load(id)?, &manifest.kernels[id]);
        for (at, layer) in manifest.layers.iter().enumerate() {
            let ids = layer.kernels.get(&arch).ok_or_else(|| no_arch(device, manifest.archs.clone()))?;
            layers.push(LoadedLayer {
                call: LayerCall::new(&manifest.geometry, at, manifest.plan.model.head_dim),
                prefill: attention(ids.of(Phase::Prefill))?,
                decode: attention(ids.of(Phase::Decode))?,
            });
        }
        let engine = match &manifest.engine {
            Some(engine) => {
                let ids = engine.kernels.get(&arch);
                let ids = ids.ok_or_else(|| no_arch(device, manifest.archs.clone()))?;
                let kernels = ids.iter().map(|(&op, &id)| Ok((op, load(id)?)));
                let kv_heads = manifest.kv_heads.end - manifest.kv_heads.start;
                Some(LoadedEngine {
                    shape: engine.shape.clone(),
                    sizes: engine.shape.sizes(&manifest.plan.model, kv_heads),
                    kernels: kernels.collect::<Result<_, GpuError>>()?,
                })
            }
            None => None,
        };
        let took = began.elapsed();
        tracing::debug!(device = device.info().name, %arch, layers = layers.len(), ?took, "loaded an artifact");
        let inner = Inner {
            device: device.clone(),
            geometry: manifest.geometry.clone(),
            layers,
            engine,
            arch,
            dtype: manifest.dtype,
        };
        Ok(LoadedArtifact { inner: Arc::new(inner) })
    }
}

impl LoadedArtifact {
    /// The device that it is on.
    pub fn device(&self) -> &Device {
        &self.inner.device
    }

    /// The architecture that was loaded.
    pub fn arch(&self) -> Arch {
        self.inner.arch
    }

    /// The element type of q, k, v, o and of the slabs.
    pub fn dtype(&self) -> DType {
        self.inner.dtype
    }

    /// Spans, rings and slab sizes.
    pub fn geometry(&self) -> &Geometry {
        &self.inner.geometry
    }

    /// Layers.
    pub fn layers(&self) -> usize {
        self.inner.layers.len()
    }
}

impl Inner {
    /// CTAs of a layer's decode on this device.
    fn decode_ctas(&self, layer: &LoadedLayer) -> u32 {
        layer.decode.facts.rule.grid.split_ctas(self.device.info().sms)
    }

    /// The layers whose decode takes the tiles before each request: all or none, for they are of one family.
    pub(super) fn split_layers(&self) -> &[LayerGeometry] {
        let takes = |layer: &LoadedLayer| layer.decode.facts.family == Family::Sm90;
        if self.layers.iter().any(takes) { &self.geometry.layers } else { &[] }
    }

    /// Bytes of split results that any layer's decode takes.
    pub(super) fn partials_bytes(&self) -> u64 {
        let of = |layer: &LoadedLayer| {
            let shape = layer.call.shape;
            launch::partials_bytes(self.decode_ctas(layer), shape.group_size(), shape.head_dim)
        };
        self.layers.iter().map(of).max().unwrap_or(0)
    }

    /// Bytes of arrival counters that any layer's decode takes.
    pub(super) fn counters_bytes(&self, capacity: u32) -> u64 {
        let of = |layer: &LoadedLayer| launch::counters_bytes(capacity, layer.call.shape.kv_heads);
        self.layers.iter().map(of).max().unwrap_or(0)
    }
}

/// The most specific architecture that runs on a device: of two that do, the newer.
fn best_arch(archs: &[Arch], [major, minor]: [u32; 2]) -> Option<Arch> {
    archs.iter().copied().filter(|arch| arch.runs_on(major, minor)).max()
}

fn no_arch(device: &Device, found: Vec<Arch>) -> GpuError {
    let info = device.info();
    let [major, minor] = info.capability;
    LoadError::Arch { device: info.name.clone(), major, minor, found }.into()
}

/// Check 8: cubins load from the compiler's major version on.
fn check_driver(found: DriverVersion, compiler: [u32; 2]) -> Result<(), LoadError> {
    if found[0] < compiler[0] {
        return Err(LoadError::Driver { found, expected: compiler });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{best_arch, check_driver};
    use crate::arch::Arch;

    #[test]
    fn the_most_specific_architecture_is_taken() {
        let all = Arch::ALL;
        assert_eq!(best_arch(&all, [9, 0]), Some(Arch::Sm90a));
        assert_eq!(best_arch(&[Arch::Sm80, Arch::Sm90], [9, 0]), Some(Arch::Sm90));
        assert_eq!(best_arch(&all, [8, 7]), Some(Arch::Sm86));
        assert_eq!(best_arch(&all, [10, 3]), Some(Arch::Sm100));
        assert_eq!(best_arch(&all, [12, 0]), None);
        assert_eq!(best_arch(&[Arch::Sm80], [9, 0]), None);
    }

    #[test]
    fn an_older_major_version_of_the_driver_is_refused() {
        check_driver([13, 0], [13, 3]).unwrap();
        check_driver([14, 1], [13, 0]).unwrap();
        let error = check_driver([12, 9], [13, 0]).unwrap_err().to_string();
        assert!(error.contains("CUDA 12.9") && error.contains("CUDA 13.0"), "{error}");
    }
}
