//! The span map: a column per layer, a row per query head, KV heads set apart; and its legend.

use std::fmt::Write as _;

use moac_runtime::plan::Rule;

use super::super::inspection::{Inspection, LayerReport};
use super::{palette, percent, rule_text};

/// Width of the whole map, in pixels: that of the page.
const WIDTH: usize = 1080;
/// Room for the labels of rows and columns.
const LEFT: usize = 56;
const TOP: usize = 22;
/// Between the heads of two KV heads.
const GAP: usize = 4;

/// The fill of every step of the palette. On a dark page the scale is turned around, so that a long span stands out on
/// either.
pub(super) fn colours() -> String {
    let fills = |colour: fn(usize) -> String| {
        (0..palette::STEPS).fold(String::new(), |mut css, step| {
            let _ = writeln!(css, ".d{step} {{ fill: {0}; background: {0}; }}", colour(step));
            css
        })
    };
    let dark = fills(|step| palette::colour(palette::STEPS - 1 - step));
    format!("{}@media (prefers-color-scheme: dark) {{\n{dark}}}\n", fills(palette::colour))
}

/// The map of the largest bucket, with the bar that the script puts the other ones in.
pub(super) fn write(html: &mut String, inspection: &Inspection) {
    let [first, end] = inspection.kv_heads;
    let group = (inspection.model.num_heads / inspection.model.num_kv_heads) as usize;
    let kv_heads = (end - first) as usize;
    let heads = group * kv_heads;
    let layers = inspection.layers.len().max(1);
    // Cells fill the width, and are flat enough for all heads to be seen at once.
    let width = ((WIDTH - LEFT) / layers).clamp(6, 72);
    let height = (560 / heads).clamp(8, 20);
    let x = |layer: usize| LEFT + layer * width;
    let y = |head: usize| TOP + head * height + head / group * GAP;
    let size = [x(layers), y(heads - 1) + height + 2];
    html.push_str("<section>\n<h2>Span of each head</h2>\n<div class=\"bar\"><span>context length</span></div>\n<div class=\"scroll\">\n");
    let _ = writeln!(
        html,
        "<svg id=\"map\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" role=\"img\" aria-label=\"span map\">",
        size[0], size[1]
    );
    // A label is as wide as two digits; where there is no room for all, every fourth stands.
    let every = if width >= 18 { 1 } else { 4 };
    for (column, layer) in inspection.layers.iter().enumerate().step_by(every) {
        let middle = x(column) + width / 2;
        let _ = writeln!(
            html,
            "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            TOP - 8,
            layer.layer
        );
    }
    let every = if group * height + GAP >= 11 { 1 } else { 4 };
    for kv_head in (0..kv_heads).step_by(every) {
        let middle = (y(kv_head * group) + y(kv_head * group + group - 1) + height) / 2 + 3;
        let _ = writeln!(
            html,
            "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">KV {}</text>",
            LEFT - 8,
            first as usize + kv_head
        );
    }
    for (column, layer) in inspection.layers.iter().enumerate() {
        for (row, (group_of, head)) in heads_of(layer).into_iter().enumerate() {
            let (class, said) = cell(inspection, layer, row / group, group_of, head);
            let _ = writeln!(
                html,
                "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" class=\"d{class}\" data-l=\"{column}\" data-h=\"{head}\" \
                 data-g=\"{group_of}\" data-k=\"{}\"><title>{said}</title></rect>",
                x(column),
                y(row),
                width - 1,
                height - 1,
                row / group
            );
        }
    }
    html.push_str("</svg>\n</div>\n<p class=\"legend\"><span>short span</span><span class=\"scale\">");
    for step in 0..palette::STEPS {
        let _ = write!(html, "<i class=\"d{step}\"></i>");
    }
    html.push_str(
        "</span><span>whole context</span></p>\n<p>Columns are layers, rows are query heads, grouped by KV head.</p>\n\
         <p id=\"said\">&nbsp;</p>\n</section>",
    );
}

/// `(head group, head)` of each query head in order.
fn heads_of(layer: &LayerReport) -> Vec<(usize, u32)> {
    let groups = layer.groups.iter().enumerate();
    let mut heads: Vec<(usize, u32)> =
        groups.flat_map(|(group, of)| of.heads.iter().map(move |&head| (group, head))).collect();
    heads.sort_unstable_by_key(|&(_, head)| head);
    heads
}

/// The colour step and the tooltip of a head at the largest bucket.
fn cell(
    inspection: &Inspection,
    layer: &LayerReport,
    kv_head: usize,
    group: usize,
    head: u32,
) -> (usize, String) {
    let length = inspection.buckets.last().map_or(1, |bucket| bucket.length);
    let group = &layer.groups[group];
    let span = group.spans.last().copied().unwrap_or(0);
    let kv_span = layer.kv_spans.last().map_or(0, |spans| spans[kv_head]);
    let share = f64::from(span) / f64::from(length);
    let said = format!(
        "layer {}, head {head}: span {span} of {length} ({}), rule {}; KV head {}, KV span {kv_span}",
        layer.layer,
        percent(share),
        rule_text(Rule { alpha: group.alpha, beta: group.beta }),
        kv_head + inspection.kv_heads[0] as usize,
    );
    (palette::step(share), said)
}
