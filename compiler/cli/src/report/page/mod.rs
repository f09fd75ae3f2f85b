//! The page of `moac inspect --html`: one file, nothing fetched, readable without scripts.

use std::fmt::Write as _;

use moac_runtime::plan::Rule;
use serde::Serialize;

use super::inspection::{BucketReport, Inspection};
use super::tables::{bucket_cells, bucket_header};
use super::{bytes_text, palette, percent, ranges_text, rule_text};

mod map;
mod provenance;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The data that the script needs to show another bucket.
#[derive(Serialize)]
struct Data<'a> {
    lengths: Vec<u32>,
    steps: usize,
    first_kv_head: u32,
    cards: std::collections::BTreeMap<&'static str, Vec<String>>,
    layers: Vec<DataLayer<'a>>,
}

#[derive(Serialize)]
struct DataLayer<'a> {
    groups: Vec<DataGroup<'a>>,
    kv_spans: &'a [Vec<u32>],
}

#[derive(Serialize)]
struct DataGroup<'a> {
    rule: String,
    spans: &'a [u32],
}

/// One number of a bucket, shown large: its element's id, its label and its text.
type Card = (&'static str, &'static str, fn(&BucketReport) -> String);

const CARDS: [Card; 6] = [
    ("kv", "KV per request", |bucket| bytes_text(bucket.kv_bytes_per_request)),
    ("token", "KV per token", |bucket| bytes_text(bucket.kv_bytes_per_token.round() as u64)),
    ("dense", "of a dense cache", |bucket| percent(bucket.slab_over_dense)),
    ("density", "density, last token", |bucket| percent(bucket.density)),
    ("prefill", "density, prefill", |bucket| percent(bucket.prefill_density)),
    ("raised", "heads raised to min_span", |bucket| bucket.raised_heads.to_string()),
];

/// The page as HTML.
pub fn page(inspection: &Inspection) -> String {
    let model = &inspection.model;
    let title = escape(&format!("{} span map", model.name));
    let [first, end] = inspection.kv_heads;
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>\n{STYLE}"
    );
    html.push_str(&map::colours());
    let _ = write!(
        html,
        "</style>\n</head>\n<body>\n<main>\n<header>\n<h1>{}</h1>\n<p>{} layers, {} heads, {} KV heads of {}; sink {}, \
         min_span {}; KV heads {first} to {}, {}, {}</p>\n</header>\n",
        escape(&model.name),
        model.num_layers,
        model.num_heads,
        model.num_kv_heads,
        model.head_dim,
        inspection.sink,
        inspection.min_span,
        end - 1,
        inspection.dtype,
        inspection.archs.join(" "),
    );
    cards(&mut html, inspection);
    map::write(&mut html, inspection);
    chart(&mut html, inspection);
    provenance::write(&mut html, inspection);
    buckets(&mut html, inspection);
    layers(&mut html, inspection);
    kernels(&mut html, inspection);
    let _ = write!(
        html,
        "</main>\n<script type=\"application/json\" id=\"data\">{}</script>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        data(inspection)
    );
    html
}

fn cards(html: &mut String, inspection: &Inspection) {
    let Some(largest) = inspection.buckets.last() else { return };
    html.push_str("<div class=\"cards\">\n");
    for (id, label, text) in CARDS {
        let _ = writeln!(
            html,
            "<div class=\"card\"><b id=\"{id}\">{}</b><span>{label}</span></div>",
            text(largest)
        );
    }
    html.push_str("</div>\n");
}

/// Slab bytes over the context length, beside what a dense cache of exactly that length takes.
fn chart(html: &mut String, inspection: &Inspection) {
    const WIDTH: f64 = 1080.0;
    const HEIGHT: f64 = 220.0;
    const LEFT: f64 = 70.0;
    const BOTTOM: f64 = 24.0;
    let Some(largest) = inspection.buckets.last() else { return };
    let most = largest.dense_kv_bytes_per_request.max(largest.kv_bytes_per_request) as f64;
    let x = |tokens: u32| LEFT + f64::from(tokens) / f64::from(largest.length) * (WIDTH - LEFT - 10.0);
    let y = |bytes: u64| 10.0 + (1.0 - bytes as f64 / most) * (HEIGHT - 10.0 - BOTTOM);
    html.push_str("<section>\n<h2>KV bytes of a request</h2>\n<div class=\"scroll\">\n");
    let _ = writeln!(
        html,
        "<svg width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"slab bytes\">"
    );
    for quarter in 0..=4u32 {
        let bytes = (most * f64::from(quarter) / 4.0) as u64;
        let tokens = largest.length / 4 * quarter;
        let _ = writeln!(
            html,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{1:.1}\" y2=\"{1:.1}\" class=\"grid\"/>\
             <text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{4}</text>\
             <text x=\"{5:.1}\" y=\"{6}\" text-anchor=\"middle\">{tokens}</text>",
            WIDTH - 10.0,
            y(bytes),
            LEFT - 8.0,
            y(bytes) + 3.0,
            bytes_text(bytes),
            x(tokens).min(WIDTH - 24.0),
            HEIGHT - 8.0
        );
    }
    let mut steps = String::new();
    let mut from = 0;
    for bucket in &inspection.buckets {
        let level = y(bucket.kv_bytes_per_request);
        let _ = write!(steps, "{:.1},{level:.1} {:.1},{level:.1} ", x(from), x(bucket.length));
        from = bucket.length;
    }
    let _ = writeln!(
        html,
        "<polyline points=\"{:.1},{:.1} {:.1},{:.1}\" class=\"dense\"/>\n\
         <polyline points=\"{}\" class=\"slab\"/>\n</svg>\n</div>\n\
         <p>Solid: the slab, whose bucket is fixed when it is made. Dashed: a dense cache of exactly that many tokens.</p>\n\
         </section>",
        x(0),
        y(0),
        x(largest.length),
        y(largest.dense_kv_bytes_per_request),
        steps.trim_end()
    );
}

fn buckets(html: &mut String, inspection: &Inspection) {
    let header = bucket_header("just above the one before");
    let rows = inspection.buckets.iter().map(|bucket| bucket_cells(bucket).to_vec());
    table(html, "Buckets", " id=\"buckets\"", &header, 0, rows);
}

fn layers(html: &mut String, inspection: &Inspection) {
    let rows = inspection.layers.iter().map(|layer| {
        let rules: Vec<String> = layer
            .groups
            .iter()
            .map(|group| {
                let rule = rule_text(Rule { alpha: group.alpha, beta: group.beta });
                format!("{rule}: heads {}", ranges_text(&group.heads))
            })
            .collect();
        let last = |values: &[f64]| values.last().copied().map_or_else(String::new, percent);
        vec![rules.join("; "), layer.layer.to_string(), last(&layer.density), last(&layer.kv_density)]
    });
    table(html, "Layers, at the largest bucket", "", &["rules", "layer", "density", "KV density"], 1, rows);
}

fn kernels(html: &mut String, inspection: &Inspection) {
    let header = ["kernel", "arch", "layers", "threads", "shared", "registers", "spills", "cubin"];
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let rows = inspection.kernels.iter().map(|kernel| {
        vec![
            kernel.symbol.clone(),
            kernel.arch.to_owned(),
            ranges_text(&kernel.layers),
            kernel.threads.to_string(),
            bytes_text(u64::from(kernel.shared_bytes)),
            or_dash(kernel.registers.map(|count| count.to_string())),
            or_dash(kernel.spill_bytes.map(|bytes| bytes_text(u64::from(bytes)))),
            or_dash(kernel.cubin_bytes.map(bytes_text)),
        ]
    });
    table(html, "Kernels", "", &header, 3, rows);
}

/// A table whose first `words` columns are words and whose others are numbers.
fn table(
    html: &mut String,
    title: &str,
    body: &str,
    header: &[&str],
    words: usize,
    rows: impl Iterator<Item = Vec<String>>,
) {
    let class = |column: usize| if column < words { " class=\"word wrap\"" } else { "" };
    let _ = write!(html, "<section>\n<h2>{title}</h2>\n<div class=\"scroll\">\n<table>\n<thead><tr>");
    for (column, name) in header.iter().enumerate() {
        let _ = write!(html, "<th{}>{name}</th>", class(column));
    }
    let _ = writeln!(html, "</tr></thead>\n<tbody{body}>");
    for row in rows {
        html.push_str("<tr>");
        for (column, text) in row.iter().enumerate() {
            let _ = write!(html, "<td{}>{}</td>", class(column), escape(text));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table>\n</div>\n</section>\n");
}

fn data(inspection: &Inspection) -> String {
    let text_of = |text: fn(&BucketReport) -> String| inspection.buckets.iter().map(text).collect();
    let data = Data {
        lengths: inspection.buckets.iter().map(|bucket| bucket.length).collect(),
        steps: palette::STEPS - 1,
        first_kv_head: inspection.kv_heads[0],
        cards: CARDS.into_iter().map(|(id, _, text)| (id, text_of(text))).collect(),
        layers: inspection
            .layers
            .iter()
            .map(|layer| DataLayer {
                groups: layer
                    .groups
                    .iter()
                    .map(|group| DataGroup {
                        rule: rule_text(Rule { alpha: group.alpha, beta: group.beta }),
                        spans: &group.spans,
                    })
                    .collect(),
                kv_spans: &layer.kv_spans,
            })
            .collect(),
    };
    // No tag can end the script that holds it.
    serde_json::to_string(&data).expect("numbers and text").replace('<', "\\u003c")
}

fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, character| {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            _ => escaped.push(character),
        }
        escaped
    })
}
