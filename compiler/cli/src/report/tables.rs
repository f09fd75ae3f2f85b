//! Inspections and differences as text for a terminal.

use std::fmt::{self, Display, Formatter};

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use moac_runtime::plan::Rule;

use super::diff::Diff;
use super::inspection::{BucketReport, Inspection, LayerReport};
use super::{bytes_text, percent, ranges_text, rule_text};

/// A table of `header` whose first `words` columns are words and whose others are numbers.
pub(super) fn table(header: &[&str], words: usize) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─'))).set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for index in words..header.len() {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

impl Display for Inspection {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let model = &self.model;
        writeln!(
            f,
            "{}: {} layers, {} heads, {} KV heads of {}",
            model.name, model.num_layers, model.num_heads, model.num_kv_heads, model.head_dim
        )?;
        let [start, end] = self.kv_heads;
        let (sink, min_span, archs) = (self.sink, self.min_span, self.archs.join(" "));
        let part = if (start, end) == (0, model.num_kv_heads) {
            String::new()
        } else {
            format!(", KV heads {start}..{end}")
        };
        writeln!(f, "sink {sink}, min_span {min_span}, {}, {archs}{part}", self.dtype)?;
        if let Some(digest) = &self.digest {
            writeln!(f, "artifact sha256:{digest}")?;
        }
        if let Some(provenance) = &self.provenance {
            writeln!(f, "provenance: {provenance}")?;
        }
        writeln!(f, "\n{}", buckets(self))?;
        writeln!(f, "above: the slab over the dense bytes of one token more than the bucket before holds")?;
        writeln!(f, "raised: heads whose rule gives less than min_span\n")?;
        writeln!(f, "{}\n", layers(self))?;
        write!(f, "{}", kernels(self))
    }
}

/// The columns of a table of buckets, where `above` is the column of the slab just above the bucket before.
pub(super) const fn bucket_header(above: &str) -> [&str; 9] {
    ["bucket", "KV/request", "KV/token", "dense", "slab/dense", above, "density", "prefill", "raised"]
}

/// The cells of a bucket, in the order of [`bucket_header`].
pub(super) fn bucket_cells(bucket: &BucketReport) -> [String; 9] {
    [
        bucket.length.to_string(),
        bytes_text(bucket.kv_bytes_per_request),
        bytes_text(bucket.kv_bytes_per_token.round() as u64),
        bytes_text(bucket.dense_kv_bytes_per_request),
        percent(bucket.slab_over_dense),
        bucket.slab_over_dense_just_above_previous.map_or_else(|| "-".to_owned(), percent),
        percent(bucket.density),
        percent(bucket.prefill_density),
        bucket.raised_heads.to_string(),
    ]
}

fn buckets(inspection: &Inspection) -> String {
    let mut table = table(&bucket_header("above"), 0);
    for bucket in &inspection.buckets {
        table.add_row(bucket_cells(bucket));
    }
    table.trim_fmt()
}

fn layers(inspection: &Inspection) -> String {
    let largest = inspection.buckets.last().map_or(0, |bucket| bucket.length);
    let at = format!("spans at {largest}");
    let mut table = table(&["layer", "heads x rule", &at, "density", "KV density"], 3);
    for layer in &inspection.layers {
        let spans: Vec<String> =
            layer.groups.iter().filter_map(|group| group.spans.last()).map(u32::to_string).collect();
        let last = |values: &[f64]| values.last().copied().map_or_else(String::new, percent);
        table.add_row([
            layer.layer.to_string(),
            rules(layer),
            abridged(&spans),
            last(&layer.density),
            last(&layer.kv_density),
        ]);
    }
    table.trim_fmt()
}

fn rules(layer: &LayerReport) -> String {
    let groups: Vec<String> = layer
        .groups
        .iter()
        .map(|group| {
            let rule = rule_text(Rule { alpha: group.alpha, beta: group.beta });
            format!("{} x {rule}", group.heads.len())
        })
        .collect();
    abridged(&groups)
}

/// A plan with a rule for each head would make rows of hundreds of columns.
fn abridged(items: &[String]) -> String {
    const MOST: usize = 4;
    let shown = items[..items.len().min(MOST)].join(", ");
    if items.len() > MOST { format!("{shown} and {} more", items.len() - MOST) } else { shown }
}

fn kernels(inspection: &Inspection) -> String {
    let compiled = inspection.kernels.iter().any(|kernel| kernel.registers.is_some());
    let mut header = vec!["kernel", "arch", "layers", "threads", "shared"];
    if compiled {
        header.extend(["registers", "spills", "cubin"]);
    }
    let mut table = table(&header, 3);
    for kernel in &inspection.kernels {
        let mut row = vec![
            kernel.symbol.clone(),
            kernel.arch.to_owned(),
            ranges_text(&kernel.layers),
            kernel.threads.to_string(),
            bytes_text(u64::from(kernel.shared_bytes)),
        ];
        if compiled {
            row.push(kernel.registers.map_or_else(String::new, |count| count.to_string()));
            row.push(kernel.spill_bytes.map_or_else(String::new, |bytes| bytes_text(u64::from(bytes))));
            row.push(kernel.cubin_bytes.map_or_else(String::new, bytes_text));
        }
        table.add_row(row);
    }
    table.trim_fmt()
}

impl Display for Diff {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.same() {
            return write!(f, "no difference");
        }
        let mut parts = Vec::new();
        if !self.fields.is_empty() {
            let mut table = table(&["field", "A", "B"], 3);
            for field in &self.fields {
                table.add_row([&field.field, &field.a, &field.b]);
            }
            parts.push(table.trim_fmt());
        }
        if !self.buckets.is_empty() {
            let header = ["bucket", "heads that differ", "mean span A", "B", "KV/request A", "B"];
            let mut table = table(&header, 0);
            for bucket in &self.buckets {
                table.add_row([
                    bucket.length.to_string(),
                    bucket.heads.to_string(),
                    format!("{:.0}", bucket.mean_span[0]),
                    format!("{:.0}", bucket.mean_span[1]),
                    bytes_text(bucket.kv_bytes_per_request[0]),
                    bytes_text(bucket.kv_bytes_per_request[1]),
                ]);
            }
            parts.push(table.trim_fmt());
        }
        if !self.spans.is_empty() {
            let at =
                self.spans[0].lengths.last().map_or_else(String::new, |length| format!("span A at {length}"));
            let mut table = table(&["layer", "heads", "rule A", "rule B", &at, "B"], 4);
            for change in &self.spans {
                let last = |spans: &[u32]| spans.last().map_or_else(String::new, u32::to_string);
                table.add_row([
                    change.layer.to_string(),
                    ranges_text(&change.heads),
                    rule_text(change.rules[0]),
                    rule_text(change.rules[1]),
                    last(&change.spans[0]),
                    last(&change.spans[1]),
                ]);
            }
            parts.push(table.trim_fmt());
        }
        if !self.kernels.is_empty() {
            let mut table = table(&["kernel", "arch", "difference"], 3);
            for kernel in &self.kernels {
                table.add_row([&kernel.symbol, kernel.arch, &kernel.difference]);
            }
            parts.push(table.trim_fmt());
        }
        write!(f, "{}", parts.join("\n\n"))
    }
}
