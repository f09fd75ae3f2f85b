//! Every symbol and cache key is made here and nowhere else.
//!
//! A symbol is readable parts and a hash of the spec, without the layer's index: equal specs have equal symbols, and
//! different ones differ. It is a C identifier and a file name as it stands.

use moac_runtime::digest::Digest;

use serde::Serialize;

use crate::lower::glue::spec::GlueSpec;
use crate::lower::spec::KernelSpec;
use crate::nvrtc::{self, Source};

/// The layout of a cache entry and of its key. Raised when either changes: old entries are then never looked at.
pub const CACHE_FORMAT: &str = "cubin-v1";

/// Hex digits of the digest that a symbol ends in: 48 bits, for a few thousand kernels at most.
const SYMBOL_DIGITS: usize = 12;

/// The SHA-256 of a spec's JSON, in hex. Every field is in it, in declaration order.
pub fn digest(spec: &impl Serialize) -> String {
    let json = serde_json::to_vec(spec).expect("a spec is plain data: numbers, strings and lists of them");
    Digest::of(&json).to_string()
}

/// The function's name, as in `moac_prefill_bf16_d128_r4_3f9c21ab90de`.
pub fn symbol(spec: &KernelSpec) -> String {
    let KernelSpec { phase, dtype, head_dim, .. } = spec;
    let (phase, group_size) = (phase.name(), spec.group_size());
    format!("moac_{phase}_{dtype}_d{head_dim}_r{group_size}_{}", &digest(spec)[..SYMBOL_DIGITS])
}

/// The function's name of a kernel of the engine, as in `moac_norm_bf16_3f9c21ab90de`.
pub fn glue_symbol(spec: &GlueSpec) -> String {
    format!("moac_{}_{}_{}", spec.op.name(), spec.dtype, &digest(spec)[..SYMBOL_DIGITS])
}

/// The key of a compiled kernel: everything that its machine code follows from, and nothing else.
pub fn cache_key(source: &Source, nvrtc_build: &str) -> Digest {
    let Source { symbol, text, headers, arch, allowance } = source;
    let (options, allowance) = (nvrtc::OPTIONS.join("\n"), format!("{allowance:?}"));
    let mut fields: Vec<&str> =
        vec![CACHE_FORMAT, nvrtc_build, &options, arch.name(), symbol, text, &allowance];
    fields.extend(headers.iter().flat_map(|(name, text)| [name.as_str(), text]));
    Digest::of_fields(fields.into_iter().map(str::as_bytes))
}

/// The folder of a compiled kernel in the cache.
pub fn cache_entry(symbol: &str, key: Digest) -> String {
    format!("{symbol}.{}", key.short())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use moac_runtime::glue::Op;
    use moac_runtime::launch::{Family, Grid, LaunchRule, Phase};

    use super::*;
    use crate::lower::TileConfig;
    use crate::lower::tests::{any_glue_spec, any_spec};

    #[test]
    fn changing_a_field_changes_the_symbol() {
        let spec = any_spec(Phase::Decode);
        // Exhaustive on purpose: a new field does not compile until somebody perturbs it below.
        let KernelSpec {
            phase: _,
            dtype: _,
            family: _,
            heads: _,
            kv_heads: _,
            head_dim: _,
            sink: _,
            scale_log2: _,
            group_of_head: _,
            head_order: _,
            buckets: _,
            tiles: TileConfig { tile_m: _, tile_n: _, warps: _, stages: _, min_tiles: _ },
            launch: LaunchRule { threads: _, shared_bytes: _, grid: _ },
        } = &spec;
        let changes: [fn(&mut KernelSpec); 24] = [
            |it| it.phase = Phase::Prefill,
            |it| it.dtype = moac_runtime::plan::DType::F16,
            |it| it.family = Family::Sm80,
            |it| it.heads = 16,
            |it| it.kv_heads = 4,
            |it| it.head_dim = 64,
            |it| it.sink = 128,
            |it| it.scale_log2 = f32::from_bits(it.scale_log2.to_bits() + 1),
            |it| it.group_of_head[31] = 0,
            |it| it.head_order.swap(0, 1),
            |it| it.buckets[1].length += 64,
            |it| it.buckets[1].span[1] -= 64,
            |it| it.buckets[1].kv_span[7] -= 64,
            |it| it.buckets[1].tile_prefix[8] -= 1,
            |it| it.tiles.tile_m += 16,
            |it| it.tiles.tile_n += 16,
            |it| it.tiles.warps += 1,
            |it| it.tiles.stages += 1,
            |it| it.tiles.min_tiles += 1,
            |it| it.launch.threads += 32,
            |it| it.launch.shared_bytes += 16,
            |it| it.launch.grid = Grid::Split { per_sm: 3 },
            |it| it.launch.grid = Grid::Tiles { rows: 16 },
            |it| drop(it.buckets.pop()),
        ];
        let mut symbols = BTreeSet::from([symbol(&spec)]);
        for change in changes {
            let mut changed = spec.clone();
            change(&mut changed);
            assert!(symbols.insert(symbol(&changed)), "{changed:?}");
        }
    }

    #[test]
    fn changing_a_literal_of_the_engine_changes_the_symbol() {
        let spec = any_glue_spec(Op::Rotate);
        // Exhaustive on purpose, as above.
        let GlueSpec { op: _, dtype: _, integers: _, floats: _, tables: _, launch: _ } = &spec;
        let changes: [fn(&mut GlueSpec); 6] = [
            |it| it.op = Op::Norm,
            |it| it.dtype = moac_runtime::plan::DType::F16,
            |it| it.integers[0].value += 1,
            |it| it.floats[0].value = f32::from_bits(it.floats[0].value.to_bits() + 1),
            |it| it.tables[1].value[63] = 0.0,
            |it| it.launch.threads += 32,
        ];
        let mut symbols = BTreeSet::from([glue_symbol(&spec)]);
        for change in changes {
            let mut changed = spec.clone();
            change(&mut changed);
            assert!(symbols.insert(glue_symbol(&changed)), "{changed:?}");
        }
        assert!(symbols.iter().any(|symbol| symbol.starts_with("moac_rotate_bf16_")));
    }

    #[test]
    fn a_symbol_is_a_c_identifier() {
        for phase in [Phase::Prefill, Phase::Decode] {
            let symbol = symbol(&any_spec(phase));
            assert!(symbol.starts_with(&format!("moac_{}_bf16_d128_r4_", phase.name())), "{symbol}");
            assert!(
                symbol.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            );
        }
    }
}
