//! From compiled kernels to the bytes of an artifact: the manifest, and which bytes go under which name.

use std::collections::BTreeMap;
use std::io;

use moac_runtime::artifact::{
    self, FORMAT_VERSION, HEADERS, Kernel, Layer, LayerKernels, Manifest, Producer,
};
use moac_runtime::attention::Block;
use moac_runtime::plan::Plan;

use crate::lower::Lowered;
use crate::nvrtc::{self, Compiled, Nvrtc, Source};

/// The artifact of a lowered plan. `sources` and `compiled` are those of `lowered.kernels`, in their order.
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
    for ((kernel, source), compiled) in lowered.kernels.iter().zip(sources).zip(compiled) {
        let spec = &lowered.specs[kernel.spec];
        let record = Kernel {
            symbol: kernel.symbol.clone(),
            phase: spec.phase,
            arch: kernel.arch,
            family: spec.family,
            ring_layout: spec.family.ring_layout(),
            abi: Block::abi(spec.family, spec.phase),
            launch: spec.launch,
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
    let layer = |of: &Vec<crate::lower::LayerKernels>| Layer {
        kernels: target
            .archs
            .iter()
            .zip(of)
            .map(|(&arch, of)| (arch, LayerKernels { prefill: of.prefill, decode: of.decode }))
            .collect(),
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
        tensors: BTreeMap::new(),
    }
}
