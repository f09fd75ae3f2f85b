//! [`KernelSpec`] and [`GlueSpec`] to source: the only user of Tera.
//!
//! A template holds literals and loops over lists, never a statement or a condition; its variables are the fields
//! of one struct, and a test holds the two together.

use moac_runtime::attention::Block;
use moac_runtime::glue::Op;
use moac_runtime::plan::DType;
use serde::Serialize;
use tera::{Context, Delimiters, Tera};
use thiserror::Error;

use crate::headers;
use crate::lower::{BucketSpec, GlueSpec, KernelSpec, Literal, family};
use crate::names;

const TEMPLATE: &str = "kernel.cu";
const GLUE: &str = "glue.cu";

/// The embedded template failed, which its own test rules out.
#[derive(Debug, Error)]
#[error("cannot render {symbol}: {source}")]
pub struct Error {
    symbol: String,
    #[source]
    source: tera::Error,
}

/// The variables of the template, one field each.
#[derive(Debug, Serialize)]
struct Variables<'a> {
    version: &'static str,
    digest: String,
    include: String,
    family: &'static str,
    phase: &'static str,
    symbol: &'a str,
    element: &'static str,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    sink: u32,
    scale_log2: String,
    tile_m: u32,
    tile_n: u32,
    warps: u32,
    stages: u32,
    min_tiles: u32,
    groups: usize,
    bucket_count: usize,
    group_of_head: &'a [u32],
    head_order: &'a [u32],
    buckets: &'a [BucketSpec],
    params: &'static str,
    params_bytes: usize,
    threads: u32,
    shared_bytes: u32,
    ctas_per_sm: u32,
}

impl<'a> Variables<'a> {
    fn new(spec: &'a KernelSpec, symbol: &'a str) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            digest: names::digest(spec),
            include: headers::of_kernel(spec.family, spec.phase),
            family: spec.family.name(),
            phase: spec.phase.name(),
            symbol,
            element: element(spec.dtype),
            heads: spec.heads,
            kv_heads: spec.kv_heads,
            head_dim: spec.head_dim,
            sink: spec.sink,
            scale_log2: hex_float(spec.scale_log2),
            tile_m: spec.tiles.tile_m,
            tile_n: spec.tiles.tile_n,
            warps: spec.tiles.warps,
            stages: spec.tiles.stages,
            min_tiles: spec.tiles.min_tiles,
            groups: spec.buckets.first().map_or(0, |bucket| bucket.span.len()),
            bucket_count: spec.buckets.len(),
            group_of_head: &spec.group_of_head,
            head_order: &spec.head_order,
            buckets: &spec.buckets,
            params: family::params(spec.family, spec.phase),
            params_bytes: Block::abi(spec.family, spec.phase).params_bytes,
            threads: spec.launch.threads,
            shared_bytes: spec.launch.shared_bytes,
            ctas_per_sm: family::launch_bound(spec.family),
        }
    }
}

/// The variables of the template of the engine's kernels, one field each.
#[derive(Debug, Serialize)]
struct GlueVariables<'a> {
    version: &'static str,
    digest: String,
    header: &'static str,
    symbol: &'a str,
    element: &'static str,
    threads: u32,
    parts: u32,
    integers: &'a [Literal<u32>],
    floats: Vec<Literal<String>>,
    tables: Vec<Literal<Vec<String>>>,
    params: &'static str,
    params_bytes: usize,
}

impl<'a> GlueVariables<'a> {
    fn new(spec: &'a GlueSpec, symbol: &'a str) -> Self {
        let floats = spec.floats.iter().map(|it| Literal { name: it.name, value: hex_float(it.value) });
        let table = |it: &Literal<Vec<f32>>| {
            let value = it.value.iter().copied().map(hex_float).collect();
            Literal { name: it.name, value }
        };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            digest: names::digest(spec),
            header: glue_header(spec.op),
            symbol,
            element: element(spec.dtype),
            threads: spec.launch.threads,
            parts: spec.launch.grid.of_rows(1)[1],
            integers: &spec.integers,
            floats: floats.collect(),
            tables: spec.tables.iter().map(table).collect(),
            params: glue_params(spec.op),
            params_bytes: spec.op.abi().params_bytes,
        }
    }
}

const fn element(dtype: DType) -> &'static str {
    match dtype {
        DType::Bf16 => "bf16",
        DType::F16 => "f16",
    }
}

/// The header of an operation, and the function in it.
fn glue_header(op: Op) -> &'static str {
    if Op::LINEAR.contains(&op) { "linear" } else { op.name() }
}

/// The type of an operation's parameter block.
const fn glue_params(op: Op) -> &'static str {
    match op {
        Op::Embed => "EmbedParams",
        Op::Norm => "NormParams",
        Op::Rotate => "RotateParams",
        Op::Activate => "ActivateParams",
        Op::Sample => "SampleParams",
        Op::Qkv | Op::Output | Op::GateUp | Op::Down | Op::Head => "LinearParams",
    }
}

/// Prints kernels. Make one and use it for all of them: it holds the parsed templates.
pub struct Renderer {
    tera: Tera,
}

impl Renderer {
    /// Parses the embedded templates.
    pub fn new() -> Result<Self, Error> {
        let parse = || {
            let mut tera = Tera::new();
            // The default delimiters would eat C++'s own `{{` without a word.
            tera.set_delimiters(Delimiters {
                block_start: "@%".into(),
                block_end: "%@".into(),
                variable_start: "@{".into(),
                variable_end: "}@".into(),
                comment_start: "@#".into(),
                comment_end: "#@".into(),
            })?;
            tera.add_raw_template(TEMPLATE, moac_templates::KERNEL)?;
            tera.add_raw_template(GLUE, moac_templates::GLUE)?;
            Ok(tera)
        };
        Ok(Self { tera: parse().map_err(|source| Error { symbol: TEMPLATE.to_owned(), source })? })
    }

    /// The source file of a kernel: the same bytes for the same spec.
    pub fn render(&self, spec: &KernelSpec) -> Result<String, Error> {
        let symbol = names::symbol(spec);
        let result = Context::from_serialize(&Variables::new(spec, &symbol))
            .and_then(|context| self.tera.render(TEMPLATE, &context));
        result.map_err(|source| Error { symbol, source })
    }

    /// The source file of a kernel of the engine: the same bytes for the same spec.
    pub fn render_glue(&self, spec: &GlueSpec) -> Result<String, Error> {
        let symbol = names::glue_symbol(spec);
        let result = Context::from_serialize(&GlueVariables::new(spec, &symbol))
            .and_then(|context| self.tera.render(GLUE, &context));
        result.map_err(|source| Error { symbol, source })
    }
}

/// A finite f32 as a C++17 hexadecimal literal, exact to the bit.
fn hex_float(value: f32) -> String {
    let bits = value.to_bits();
    let sign = if bits >> 31 == 1 { "-" } else { "" };
    let (exponent, fraction) = ((bits >> 23 & 0xff) as i32, bits & 0x7f_ffff);
    let (lead, exponent) = if exponent == 0 { (0, -126) } else { (1, exponent - 127) };
    // The 23 bits of fraction as 6 digits of 4.
    let digits = format!("{:06x}", fraction << 1);
    let digits = digits.trim_end_matches('0');
    let point = if digits.is_empty() { "" } else { "." };
    format!("{sign}0x{lead}{point}{digits}p{exponent:+}f")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use moac_runtime::launch::Phase;

    use super::*;
    use crate::lower::tests::{any_glue_spec, any_spec};

    #[test]
    fn the_template_names_every_field_and_nothing_else() {
        let renderer = Renderer::new().unwrap();
        let named = renderer.tera.get_template_variables(TEMPLATE).unwrap();
        let spec = any_spec(Phase::Decode);
        let fields = serde_json::to_value(Variables::new(&spec, "symbol")).unwrap();
        let fields: BTreeSet<&str> = fields.as_object().unwrap().keys().map(String::as_str).collect();
        #[allow(clippy::iter_over_hash_type)] // sorted by the set
        let named: BTreeSet<&str> = named.into_iter().collect();
        assert_eq!(named, fields);
    }

    #[test]
    fn the_template_of_the_engine_names_every_field_and_nothing_else() {
        let renderer = Renderer::new().unwrap();
        let named = renderer.tera.get_template_variables(GLUE).unwrap();
        let spec = any_glue_spec(Op::Norm);
        let fields = serde_json::to_value(GlueVariables::new(&spec, "symbol")).unwrap();
        let fields: BTreeSet<&str> = fields.as_object().unwrap().keys().map(String::as_str).collect();
        #[allow(clippy::iter_over_hash_type)] // sorted by the set
        let named: BTreeSet<&str> = named.into_iter().collect();
        assert_eq!(named, fields);
    }

    #[test]
    fn the_template_has_no_conditions() {
        let both = [moac_templates::KERNEL, moac_templates::GLUE];
        for statement in both.iter().flat_map(|text| text.split("@%").skip(1)) {
            let word = statement.trim_start_matches('-').split_whitespace().next().unwrap();
            assert!(matches!(word, "for" | "endfor"), "`{word}` in the template");
        }
    }

    #[test]
    fn a_hex_float_is_exact() {
        // From IEEE 754 by hand.
        assert_eq!(hex_float(1.0), "0x1p+0f");
        assert_eq!(hex_float(-0.125), "-0x1p-3f");
        assert_eq!(hex_float(1.5), "0x1.8p+0f");
        assert_eq!(hex_float(f32::from_bits(0x3f80_0001)), "0x1.000002p+0f");
        assert_eq!(hex_float(f32::MAX), "0x1.fffffep+127f");
        assert_eq!(hex_float(f32::from_bits(1)), "0x0.000002p-126f");
        assert_eq!(hex_float(0.0), "0x0p-126f");
    }
}
