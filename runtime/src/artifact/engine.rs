//! Check 3, continued: the engine's section. Its numbers lie in their ranges, every operation has a kernel for each
//! architecture, and each is launched as follows from the numbers: its literals are the same ones.

use std::collections::BTreeMap;
use std::ops::Range;

use super::error::OpenError;
use super::manifest::{Engine, Kernel, Role};
use super::message::list;
use super::values::{ensure, value};
use crate::arch::Arch;
use crate::glue::{EngineShape, MAX_HIDDEN, MAX_VOCAB, Op, Sizes};
use crate::plan::ModelShape;

/// The largest inner row that is taken for meant.
const MAX_INTERMEDIATE: u32 = 1 << 20;

/// Checks the section. The plan, the range of KV heads and the architectures are valid.
pub(super) fn check(
    engine: &Engine,
    kernels: &[Kernel],
    archs: &[Arch],
    model: &ModelShape,
    kv_heads: &Range<u32>,
) -> Result<(), OpenError> {
    let Engine { shape, kernels: ids } = engine;
    shape_of(shape, model)?;
    ensure(ids.keys().eq(archs), "engine.kernels", list(ids.keys()), list(archs))?;
    let sizes = shape.sizes(model, kv_heads.end - kv_heads.start);
    for (&arch, ids) in ids {
        of_arch(&format!("engine.kernels.{arch}"), ids, &sizes, arch)?;
        for (&op, &id) in ids {
            let at = format!("engine.kernels.{arch}.{}", op.name());
            let fits = |kernel: &&Kernel| kernel.arch == arch && kernel.role == Role::Glue(op);
            let Some(kernel) = kernels.get(id).filter(fits) else {
                return Err(value(&at, id, format!("the index of a kernel `{}` for {arch}", op.name())));
            };
            let (found, expected) = (format!("{:?}", kernel.launch), format!("{:?}", sizes.rule(op)));
            ensure(found == expected, &format!("kernels[{id}].launch"), found, expected)?;
        }
    }
    Ok(())
}

/// All that every architecture has, and linear layers where they fit.
fn of_arch(at: &str, ids: &BTreeMap<Op, usize>, sizes: &Sizes, arch: Arch) -> Result<(), OpenError> {
    let names = |ops: &[Op]| ops.iter().map(|op| op.name()).collect::<Vec<_>>().join(", ");
    let found: Vec<Op> = ids.keys().copied().collect();
    let most: Vec<Op> = sizes.ops(arch).collect();
    let valid = Op::ALL.iter().all(|op| found.contains(op)) && found.iter().all(|op| most.contains(op));
    let more = most.get(Op::ALL.len()..).filter(|more| !more.is_empty());
    let more = more.map_or_else(String::new, |more| format!(", and any of {}", names(more)));
    ensure(valid, at, names(&found), names(&Op::ALL) + &more)
}

/// The shape is one that the kernels can be compiled for.
///
/// # Errors
/// [`OpenError::Value`], for the first value that is not.
pub fn shape_of(shape: &EngineShape, model: &ModelShape) -> Result<(), OpenError> {
    let EngineShape {
        hidden,
        intermediate,
        vocab,
        norm_eps,
        frequencies,
        qkv_bias: _, // either is valid
        qk_norm: _,
    } = shape;
    let width = |found: u32, most: u32, at: &str| {
        let valid = found.is_multiple_of(8) && (8..=most).contains(&found);
        ensure(valid, at, found, format!("a multiple of 8 from 8 to {most}"))
    };
    width(*hidden, MAX_HIDDEN, "engine.shape.hidden")?;
    width(*intermediate, MAX_INTERMEDIATE, "engine.shape.intermediate")?;
    let valid = (1..=MAX_VOCAB).contains(vocab);
    ensure(valid, "engine.shape.vocab", vocab, format!("1 to {MAX_VOCAB}"))?;
    let valid = *norm_eps > 0.0 && *norm_eps < 1.0;
    ensure(valid, "engine.shape.norm_eps", norm_eps, "between 0 and 1")?;
    let at = "engine.shape.frequencies";
    let pairs = model.head_dim as usize / 2;
    ensure(frequencies.len() == pairs, at, format!("{} numbers", frequencies.len()), pairs)?;
    for (pair, &frequency) in frequencies.iter().enumerate() {
        let valid = frequency > 0.0 && frequency <= std::f64::consts::PI;
        ensure(valid, &format!("{at}[{pair}]"), frequency, "a positive number of at most pi")?;
    }
    Ok(())
}
