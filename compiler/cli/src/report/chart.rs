//! Line charts as SVG: one file, nothing fetched, readable on light and on dark ground.
//!
//! A [`Chart`] is the data; this module draws it. Colours are of middle lightness and differ in lightness and hue. A
//! dashed line with hollow marks is the partner of the solid line of the same colour.

use std::fmt::Write as _;

/// A picture: panels side by side that share their axes, and a legend.
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) panels: Vec<Panel>,
}

/// A scale and its marks.
pub(super) struct Axis {
    pub(super) label: String,
    /// Values at both ends, different from each other.
    pub(super) range: [f64; 2],
    /// Whether equal ratios are equally far apart.
    pub(super) log: bool,
    pub(super) ticks: Vec<(f64, String)>,
}

/// One set of lines.
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) series: Vec<Series>,
}

/// One line.
pub(super) struct Series {
    pub(super) name: String,
    /// Index of its colour; none is grey.
    pub(super) colour: Option<usize>,
    /// Drawn dashed, with hollow marks.
    pub(super) partner: bool,
    /// Whether its marks are joined.
    pub(super) joined: bool,
    pub(super) points: Vec<Point>,
}

/// One mark.
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) interval: Option<[f64; 2]>,
    /// The tooltip.
    pub(super) said: String,
}

const COLOURS: [&str; 6] = ["#2a7fbf", "#c8611d", "#2f9461", "#8a5cc2", "#b8446f", "#8c8420"];
const GREY: &str = "#7d8894";
const STYLE: &str = "text { font: 12px system-ui, sans-serif; fill: #4a5561; } .title { font-size: 15px; fill: #1d2733; }\n\
     .grid { stroke: #8a96a2; stroke-opacity: .28; } .whisker { stroke-opacity: .45; }\n\
     @media (prefers-color-scheme: dark) { text { fill: #a9b4bf; } .title { fill: #e4eaf0; } }";

/// Pixels around the panels.
const LEFT: f64 = 62.0;
const TOP: f64 = 58.0;
const BOTTOM: f64 = 50.0;
const GAP: f64 = 46.0;
const LEGEND: f64 = 190.0;
const HEIGHT: f64 = 300.0;

impl Axis {
    /// From 0 to a round number not below `most`, with about five marks.
    pub(super) fn from_zero(label: &str, least: f64, most: f64) -> Self {
        let step = round_step((most - least.min(0.0)).max(1e-9) / 5.0);
        let (first, last) = ((least.min(0.0) / step).floor(), (most / step).ceil().max(1.0));
        let digits = (-step.log10().floor()).max(0.0) as usize;
        let count = (last - first) as usize;
        let value = |at: usize| (first + at as f64) * step;
        Self {
            label: label.to_owned(),
            range: [value(0), value(count)],
            log: false,
            ticks: (0..=count).map(|at| (value(at), format!("{:.digits$}", value(at)))).collect(),
        }
    }

    fn place(&self, value: f64) -> f64 {
        let [low, high] = self.range;
        let scale = |value: f64| if self.log { value.log2() } else { value };
        (scale(value) - scale(low)) / (scale(high) - scale(low))
    }
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|&step| step >= least * 0.999)
        .unwrap_or(power)
}

/// The picture as SVG.
pub(super) fn svg(chart: &Chart) -> String {
    let count = chart.panels.len().max(1) as f64;
    let width = if chart.panels.len() > 1 { 260.0 } else { 520.0 };
    let total = LEFT + count * width + (count - 1.0) * GAP + 20.0 + LEGEND;
    let height = TOP + HEIGHT + BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{total:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {total:.0} {height:.0}\" role=\"img\" aria-label=\"{0}\">\n<style>{STYLE}</style>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"22\">{0}</text>\n",
        escape(&chart.title)
    );
    for (at, panel) in chart.panels.iter().enumerate() {
        let left = LEFT + at as f64 * (width + GAP);
        draw_axes(&mut svg, chart, panel, left, width, at == 0);
        for series in &panel.series {
            draw_series(&mut svg, chart, series, left, width);
        }
    }
    draw_legend(&mut svg, chart, total - LEGEND + 6.0);
    svg.push_str("</svg>\n");
    svg
}

fn draw_axes(svg: &mut String, chart: &Chart, panel: &Panel, left: f64, width: f64, first: bool) {
    let bottom = TOP + HEIGHT;
    if !panel.title.is_empty() {
        let _ =
            writeln!(svg, "<text x=\"{left:.1}\" y=\"{:.1}\">{}</text>", TOP - 12.0, escape(&panel.title));
    }
    for (value, label) in &chart.y.ticks {
        let y = bottom - chart.y.place(*value) * HEIGHT;
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{left:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
            left + width
        );
        if first {
            let (x, y) = (left - 8.0, y + 4.0);
            let _ =
                writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{}</text>", escape(label));
        }
    }
    for (value, label) in &chart.x.ticks {
        let x = left + chart.x.place(*value) * width;
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP:.1}\" y2=\"{bottom:.1}\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 18.0,
            escape(label)
        );
    }
    let (x, y) = (left + width / 2.0, bottom + 38.0);
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{}</text>",
        escape(&chart.x.label)
    );
    if first {
        let (x, y) = (16.0, TOP + HEIGHT / 2.0);
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 {x} {y:.1})\">{}</text>",
            escape(&chart.y.label)
        );
    }
}

fn draw_series(svg: &mut String, chart: &Chart, series: &Series, left: f64, width: f64) {
    let colour = series.colour.map_or(GREY, |at| COLOURS[at % COLOURS.len()]);
    let x = |value: f64| left + chart.x.place(value) * width;
    let y = |value: f64| TOP + HEIGHT * (1.0 - chart.y.place(value).clamp(0.0, 1.0));
    let _ = writeln!(svg, "<g stroke=\"{colour}\" fill=\"{colour}\" stroke-width=\"2\">");
    if series.joined && series.points.len() > 1 {
        let points: Vec<String> =
            series.points.iter().map(|point| format!("{:.1},{:.1}", x(point.x), y(point.y))).collect();
        let dash = if series.partner { " stroke-dasharray=\"6 4\"" } else { "" };
        let _ = writeln!(svg, "<polyline points=\"{}\" fill=\"none\"{dash}/>", points.join(" "));
    }
    for point in &series.points {
        let (cx, cy) = (x(point.x), y(point.y));
        if let Some([low, high]) = point.interval {
            let _ = writeln!(
                svg,
                "<line class=\"whisker\" x1=\"{cx:.1}\" x2=\"{cx:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
                y(low),
                y(high)
            );
        }
        let _ = writeln!(
            svg,
            "<circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"3.2\"{}><title>{}</title></circle>",
            if series.partner { " fill=\"none\"" } else { "" },
            escape(&point.said)
        );
    }
    svg.push_str("</g>\n");
}

fn draw_legend(svg: &mut String, chart: &Chart, left: f64) {
    let Some(panel) = chart.panels.first() else { return };
    for (at, series) in panel.series.iter().enumerate() {
        let y = TOP + 8.0 + 20.0 * at as f64;
        let colour = series.colour.map_or(GREY, |at| COLOURS[at % COLOURS.len()]);
        let (dash, fill) = if series.partner { (" stroke-dasharray=\"6 4\"", "none") } else { ("", colour) };
        let _ = writeln!(
            svg,
            "<g stroke=\"{colour}\" stroke-width=\"2\" fill=\"{fill}\"><line x1=\"{left:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" \
             y2=\"{y:.1}\"{dash}/><circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"3.2\"/></g>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            left + 26.0,
            left + 13.0,
            left + 34.0,
            y + 4.0,
            escape(&series.name)
        );
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        let axis = Axis::from_zero("y", 0.013, 0.0931);
        assert!(axis.range[0].abs() < 1e-12 && (axis.range[1] - 0.1).abs() < 1e-12, "{:?}", axis.range);
        assert_eq!(axis.ticks.first().unwrap().1, "0.00");
        assert_eq!(axis.ticks.last().unwrap().1, "0.10");
        let below = Axis::from_zero("y", -0.004, 0.1);
        assert!(
            below.range[0] <= -0.004 && below.range[1] >= 0.1 && below.ticks.len() < 9,
            "{:?}",
            below.ticks
        );
        // Nothing to show is still an axis.
        let empty = Axis::from_zero("y", 0.0, 0.0);
        assert!(empty.range[1] > empty.range[0]);
    }

    #[test]
    fn points_lie_where_their_values_are_and_text_is_escaped() {
        let ticks = |values: [f64; 2]| values.map(|value| (value, value.to_string())).to_vec();
        let chart = Chart {
            title: "a < b".into(),
            x: Axis { label: "x".into(), range: [1024.0, 4096.0], log: true, ticks: ticks([1024.0, 4096.0]) },
            y: Axis { label: "y".into(), range: [0.0, 1.0], log: false, ticks: ticks([0.0, 1.0]) },
            panels: vec![Panel {
                title: String::new(),
                series: vec![Series {
                    name: "\"q\"".into(),
                    colour: Some(7),
                    partner: false,
                    joined: true,
                    points: vec![
                        Point { x: 2048.0, y: 0.5, interval: Some([0.25, 2.0]), said: "half".into() },
                        Point { x: 4096.0, y: 1.0, interval: None, said: String::new() },
                    ],
                }],
            }],
        };
        let svg = svg(&chart);
        // The middle of a log scale is the geometric mean.
        let (x, y) = (LEFT + 260.0, TOP + 150.0);
        assert!(svg.contains(&format!("cx=\"{x:.1}\" cy=\"{y:.1}\"")), "{svg}");
        // An interval beyond the scale ends at its edge.
        assert!(svg.contains(&format!("y1=\"{:.1}\" y2=\"{TOP:.1}\"", TOP + 225.0)), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains("&quot;q&quot;") && !svg.contains("NaN"));
        assert_eq!(svg.matches("<g").count(), svg.matches("</g>").count());
    }
}
