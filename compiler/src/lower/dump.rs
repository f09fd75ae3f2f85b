//! A lowered plan as text: what the snapshots hold and a person reads.

use std::fmt::{self, Display, Formatter};

use super::{KernelSpec, Lowered};

impl Display for Lowered {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let target = &self.target;
        let archs: Vec<&str> = target.archs.iter().map(|arch| arch.name()).collect();
        writeln!(f, "target: KV heads {:?}, {}, {}", target.kv_heads, target.dtype, archs.join(" "))?;
        writeln!(f, "buckets: {}", join(&self.geometry.lengths))?;
        writeln!(f, "slab bytes: {}", join(&self.geometry.slab_bytes))?;
        for (index, spec) in self.specs.iter().enumerate() {
            writeln!(f, "\nspec {index}, layers {}", join(&self.layers_of(index)))?;
            match self.specs[..index].iter().position(|earlier| same_tables(earlier, spec)) {
                Some(earlier) => writeln!(f, "  tables: those of spec {earlier}")?,
                None => tables(f, spec)?,
            }
            let KernelSpec { phase, dtype, family, head_dim, sink, scale_log2, tiles, launch, .. } = spec;
            writeln!(f, "  {} {dtype} {} head_dim {head_dim} sink {sink}", phase.name(), family.name())?;
            writeln!(f, "  scale * log2(e): {scale_log2}")?;
            writeln!(f, "  {tiles:?}")?;
            writeln!(f, "  {launch:?}")?;
        }
        writeln!(f, "\nkernels")?;
        for (index, kernel) in self.kernels.iter().enumerate() {
            writeln!(f, "  {index}: {} spec {} {}", kernel.arch, kernel.spec, kernel.symbol)?;
        }
        writeln!(f, "\nlayers: kernels per architecture; base in the slab at each bucket")?;
        for (index, (kernels, base)) in self.layers.iter().zip(&self.geometry.layer_base).enumerate() {
            let kernels: Vec<String> =
                kernels.iter().map(|of| format!("{}+{}", of.prefill, of.decode)).collect();
            writeln!(f, "  {index}: {}; {}", kernels.join(" "), join(base))?;
        }
        Ok(())
    }
}

fn tables(f: &mut Formatter<'_>, spec: &KernelSpec) -> fmt::Result {
    writeln!(f, "  {} heads, {} KV heads", spec.heads, spec.kv_heads)?;
    writeln!(f, "  group of head: {}", join(&spec.group_of_head))?;
    writeln!(f, "  head order: {}", join(&spec.head_order))?;
    for bucket in &spec.buckets {
        writeln!(
            f,
            "  {}: span {} | kv span {} | tile prefix {}",
            bucket.length,
            join(&bucket.span),
            join(&bucket.kv_span),
            join(&bucket.tile_prefix)
        )?;
    }
    Ok(())
}

fn same_tables(a: &KernelSpec, b: &KernelSpec) -> bool {
    (&a.group_of_head, &a.head_order, &a.buckets) == (&b.group_of_head, &b.head_order, &b.buckets)
}

fn join<T: Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
