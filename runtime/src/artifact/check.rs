//! The checks of an untrusted file, in their order: version, bounds, schema, hashes, recomputation, ABI.
//!
//! Nothing of a file is used before the checks that make it safe to use have passed: sizes are bounded before anything
//! is computed from them, so a hostile manifest costs time and memory in proportion to its own size at most. Structs
//! are taken apart exhaustively: a new field does not compile until somebody has decided who checks it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::container::{self, Envelope};
use super::engine;
use super::error::OpenError;
use super::manifest::{FORMAT_VERSION, HEADERS, Kernel, Layer, LayerKernels, Manifest, Resources, Role};
use super::message::list;
use super::recompute;
use super::values::{self, value};
use crate::abi::Abi;
use crate::arch::Arch;
use crate::digest::Digest;
use crate::glue::Op;
use crate::launch::{Family, Grid, LaunchRule, Phase};

/// A file that passed.
pub(super) struct Checked {
    pub(super) manifest: Manifest,
    pub(super) digest: Digest,
    pub(super) tensors: BTreeMap<String, Range<usize>>,
}

/// Checks 1 to 6.
pub(super) fn check(bytes: &[u8]) -> Result<Checked, OpenError> {
    let envelope = Envelope::read(bytes)?;
    version(&envelope)?;
    let tensors = container::tensors(bytes)?;
    let manifest: Manifest = serde_json::from_str(envelope.manifest.get())
        .map_err(|error| OpenError::Schema { reason: error.to_string() })?;
    // Who checks what. `geometry` and the kernels' ABI come after the hashes.
    let Manifest {
        format: _,   // the first check
        producer: _, // for people; its CUDA version is compared with the driver's on loading
        dtype: _,    // any value of the type is valid
        archs,
        kv_heads,
        plan,
        geometry,
        layers,
        kernels,
        engine,
        tensors: hashes,
    } = &manifest;
    tensor_names(kernels, hashes, &tensors)?;
    values::plan(plan)?;
    values::range(plan, kv_heads, &geometry.lengths)?;
    values::archs(archs)?;
    kernels.iter().enumerate().try_for_each(|(index, found)| kernel(index, found, archs))?;
    layer_kernels(layers, kernels, archs, plan.model.num_layers)?;
    if let Some(engine) = engine {
        engine::check(engine, kernels, archs, &plan.model, kv_heads)?;
    }
    verify_hashes(bytes, &envelope, hashes, &tensors)?;
    recompute::compare(&manifest)?;
    kernels.iter().try_for_each(same_abi)?;
    let digest = envelope.sha256;
    Ok(Checked { manifest, digest, tensors })
}

fn version(envelope: &Envelope) -> Result<(), OpenError> {
    #[derive(serde::Deserialize)]
    struct Version {
        format: u32,
    }
    let Version { format } = serde_json::from_str(envelope.manifest.get())
        .map_err(|error| OpenError::Container { reason: format!("no format version: {error}") })?;
    if format == FORMAT_VERSION {
        Ok(())
    } else {
        Err(OpenError::Version { found: format, expected: FORMAT_VERSION })
    }
}

/// The manifest names exactly the tensors of the file: three of each kernel, and the headers.
fn tensor_names(
    kernels: &[Kernel],
    hashes: &BTreeMap<String, Digest>,
    tensors: &BTreeMap<String, Range<usize>>,
) -> Result<(), OpenError> {
    let missing = |tensor: &str| OpenError::MissingTensor { tensor: tensor.to_owned() };
    let mut of_kernels = BTreeSet::new();
    for kernel in kernels {
        for tensor in [kernel.cubin(), kernel.ptx(), kernel.source()] {
            if !hashes.contains_key(&tensor) {
                return Err(missing(&tensor));
            }
            if !of_kernels.insert(tensor) {
                let twice = format!("`{}` twice for {}", kernel.symbol, kernel.arch);
                return Err(value("kernels", twice, "one kernel of a name for each architecture"));
            }
        }
    }
    if let Some(tensor) = hashes.keys().find(|name| !tensors.contains_key(*name)) {
        return Err(missing(tensor));
    }
    let known =
        |name: &String| hashes.contains_key(name) && (of_kernels.contains(name) || name.starts_with(HEADERS));
    match tensors.keys().find(|name| !known(name)) {
        Some(tensor) => Err(OpenError::UnknownTensor { tensor: tensor.clone() }),
        None => Ok(()),
    }
}

fn kernel(index: usize, kernel: &Kernel, archs: &[Arch]) -> Result<(), OpenError> {
    let Kernel {
        symbol,
        role,
        arch,
        abi: _, // after the hashes
        launch,
        resources,
    } = kernel;
    let at = |field: &str| format!("kernels[{index}].{field}");
    let letters = symbol.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if symbol.is_empty() || symbol.len() > 200 || !letters || symbol.as_bytes()[0].is_ascii_digit() {
        return Err(value(
            &at("symbol"),
            format!("`{symbol:.200}`"),
            "a C identifier of at most 200 characters",
        ));
    }
    if !archs.contains(arch) {
        return Err(value(&at("arch"), arch, "one of the artifact's architectures"));
    }
    if let Role::Attention { family, ring_layout, .. } = *role
        && ring_layout != family.ring_layout()
    {
        let expected = format!("{:?}, that of the family {}", family.ring_layout(), family.name());
        return Err(value(&at("role.attention.ring_layout"), format!("{ring_layout:?}"), expected));
    }
    let LaunchRule { threads, shared_bytes, grid } = *launch;
    if !(32..=1024).contains(&threads) || threads % 32 != 0 {
        return Err(value(&at("launch.threads"), threads, "whole warps, at most 1024 threads"));
    }
    if let Role::Attention { family: Family::Sm90, .. } = role
        && *arch != Arch::Sm90a
    {
        return Err(value(&at("role.attention.family"), "sm90", format!("sm80, the family for {arch}")));
    }
    let expected = match *role {
        Role::Attention { family: Family::Sm80, phase: Phase::Prefill, .. } => "tiles",
        Role::Attention { family: Family::Sm90, phase: Phase::Prefill, .. } => "items",
        Role::Attention { phase: Phase::Decode, .. } => "split",
        Role::Glue(op) if Op::LINEAR.contains(&op) => "wave",
        Role::Glue(_) => "rows",
    };
    if grid.name() != expected {
        return Err(value(&at("launch.grid"), grid.name(), expected));
    }
    match grid {
        Grid::Tiles { rows } => within(&at("launch.grid.tiles.rows"), rows, &(1..=1024))?,
        Grid::Items { rows } => within(&at("launch.grid.items.rows"), rows, &(1..=1024))?,
        Grid::Split { per_sm } => within(&at("launch.grid.split.per_sm"), per_sm, &(1..=32))?,
        Grid::Rows { parts: _ } | Grid::Wave { tiles: _ } => {} // the engine's check compares the whole rule
    }
    let Resources {
        registers: _, // compared with the loaded kernel's, as are the stack and the static shared memory
        stack_bytes: _,
        spill_store_bytes: _, // for people
        spill_load_bytes: _,
        static_shared_bytes,
        barriers: _,
    } = *resources;
    let limit = arch.shared_memory_per_block();
    let shared = u64::from(shared_bytes) + u64::from(static_shared_bytes);
    if shared > u64::from(limit) {
        let expected = format!("at most {limit} bytes of shared memory on {arch}");
        return Err(value(&at("launch.shared_bytes"), shared, expected));
    }
    Ok(())
}

fn within(at: &str, found: u32, valid: &std::ops::RangeInclusive<u32>) -> Result<(), OpenError> {
    if valid.contains(&found) {
        return Ok(());
    }
    Err(value(at, found, format!("{} to {}", valid.start(), valid.end())))
}

/// Every layer has a kernel of each phase for each architecture.
fn layer_kernels(
    layers: &[Layer],
    kernels: &[Kernel],
    archs: &[Arch],
    num_layers: u32,
) -> Result<(), OpenError> {
    if layers.len() != num_layers as usize {
        return Err(value("layers", format!("{} layers", layers.len()), format!("{num_layers}")));
    }
    for (index, Layer { kernels: ids }) in layers.iter().enumerate() {
        let at = format!("layers[{index}].kernels");
        if !ids.keys().eq(archs) {
            return Err(value(&at, list(ids.keys()), list(archs)));
        }
        for (&arch, ids) in ids {
            let LayerKernels { prefill: _, decode: _ } = ids; // both, through `of`
            let attention = |id: usize| match kernels.get(id)?.role {
                Role::Attention { phase, ring_layout, .. } => Some((phase, ring_layout)),
                Role::Glue(_) => None,
            };
            let layout = |phase| attention(ids.of(phase)).map(|(_, layout)| layout);
            for phase in [Phase::Prefill, Phase::Decode] {
                let id = ids.of(phase);
                let fits = attention(id).is_some_and(|(of, _)| of == phase && kernels[id].arch == arch);
                if !fits {
                    let expected = format!("the index of a {} kernel for {arch}", phase.name());
                    return Err(value(&format!("{at}.{arch}.{}", phase.name()), id, expected));
                }
            }
            let first = layers[0].kernels.get(&arch).and_then(|ids| attention(ids.of(Phase::Prefill)));
            let of_all = first.map(|(_, layout)| layout);
            if [Phase::Prefill, Phase::Decode].iter().any(|&phase| layout(phase) != of_all) {
                let found = "kernels of two ring layouts";
                return Err(value(&format!("{at}.{arch}"), found, "one layout for all rings of a slab"));
            }
        }
    }
    Ok(())
}

fn verify_hashes(
    bytes: &[u8],
    envelope: &Envelope,
    hashes: &BTreeMap<String, Digest>,
    tensors: &BTreeMap<String, Range<usize>>,
) -> Result<(), OpenError> {
    let same = |what: String, expected: Digest, bytes: &[u8]| {
        let found = Digest::of(bytes);
        if found == expected { Ok(()) } else { Err(OpenError::Hash { what, found, expected }) }
    };
    same("the manifest".to_owned(), envelope.sha256, envelope.manifest.get().as_bytes())?;
    // The names were found to be the same on both sides.
    hashes.iter().zip(tensors.values()).try_for_each(|((name, &expected), range)| {
        same(format!("tensor `{name}`"), expected, &bytes[range.clone()])
    })
}

fn same_abi(kernel: &Kernel) -> Result<(), OpenError> {
    let Abi { version, params_bytes } = kernel.abi;
    let current = kernel.role.abi();
    let same = |what, found, expected| {
        if found == expected { Ok(()) } else { Err(OpenError::Abi { what, found, expected }) }
    };
    same("version", u64::from(version), u64::from(current.version))?;
    same("parameter block bytes", params_bytes as u64, current.params_bytes as u64)
}
