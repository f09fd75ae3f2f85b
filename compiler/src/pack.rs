//! From compiled kernels to the bytes of an artifact: the manifest, and which bytes go under which name.

use std::collections::BTreeMap;
use std::io;

use moac_runtime::artifact::{
    self, Engine, FORMAT_VERSION, HEADERS, Kernel, Layer, LayerKernels, Manifest, Producer, Role,
};
use moac_runtime::plan::Plan;

use crate::lower::{Lowered, LoweredEngine};
use crate::nvrtc::{self, Compiled, Nvrtc, Source};

/// The artifact of a lowered plan. `sources` and `compiled` are those of [`Lowered::all_kernels`], in their order.
///
/// # Errors
/// If the manifest is larger than the container can hold.
pub fn pack(
    plan: &Plan,
    lowered: &Lowered,
    nvrtc: &Nvrtc,
    sources: &[Source],
    compiled: &[Compiled],
) -> io::Result<Vec<u8>> {
    let mut tensors = BTreeMap::new();
    let mut kernels = Vec::new();
    let attention = lowered.kernels.iter().map(|kernel| {
        let spec = &lowered.specs[kernel.spec];
        (kernel, Role::attention(spec.family, spec.phase), spec.launch)
    });
    let glue = lowered.engine.iter().flat_map(|engine| {
        engine.kernels.iter().map(|kernel| {
            let spec = &engine.specs[kernel.spec];
            (kernel, Role::Glue(spec.op), spec.launch)
        })
    });
    for (((kernel, role, launch), source), compiled) in attention.chain(glue).zip(sources).zip(compiled) {
        let record = Kernel {
            symbol: kernel.symbol.clone(),
            role,
            arch: kernel.arch,
            abi: role.abi(),
            launch,
            resources: compiled.resources,
        };
        tensors.insert(record.cubin(), compiled.cubin.clone());
        tensors.insert(record.ptx(), compiled.ptx.clone().into_bytes());
        tensors.insert(record.source(), source.text.clone().into_bytes());
        for (name, text) in &source.headers {
            tensors.entry(format!("{HEADERS}{name}")).or_insert_with(|| text.clone().into_bytes());
        }
        kernels.push(record);
    }
    artifact::encode(manifest(plan, lowered, nvrtc, kernels), &tensors)
}

fn manifest(plan: &Plan, lowered: &Lowered, nvrtc: &Nvrtc, kernels: Vec<Kernel>) -> Manifest {
    let target = &lowered.target;
    // The kernels of attention come first in the manifest, in the order in which they were lowered.
    let layer = |of: &Vec<LayerKernels>| Layer {
        kernels: target.archs.iter().copied().zip(of.iter().copied()).collect(),
    };
    Manifest {
        format: FORMAT_VERSION,
        producer: Producer {
            moac: env!("CARGO_PKG_VERSION").to_owned(),
            cuda: nvrtc.cuda(),
            nvrtc: nvrtc.build().to_owned(),
            options: nvrtc::OPTIONS.map(str::to_owned).to_vec(),
        },
        dtype: target.dtype,
        archs: target.archs.clone(),
        kv_heads: target.kv_heads.clone(),
        plan: plan.clone(),
        geometry: lowered.geometry.clone(),
        layers: lowered.layers.iter().map(layer).collect(),
        kernels,
        engine: lowered.engine.as_ref().map(|of| engine(of, lowered.kernels.len())),
        tensors: BTreeMap::new(),
    }
}

/// The engine's section, whose kernels begin at index `first`.
fn engine(engine: &LoweredEngine, first: usize) -> Engine {
    let mut kernels = BTreeMap::<_, BTreeMap<_, _>>::new();
    for (id, kernel) in (first..).zip(&engine.kernels) {
        kernels.entry(kernel.arch).or_default().insert(engine.specs[kernel.spec].op, id);
    }
    Engine { shape: engine.shape.clone(), kernels }
}
