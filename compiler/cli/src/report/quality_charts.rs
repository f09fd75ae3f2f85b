//! The results of an evaluation as pictures: retrieval by length, and loss by KV bytes.

use std::collections::BTreeSet;

use moac_planner::eval::report::{BAR, Kind, Row, RunReport};

use super::chart::{Axis, Chart, Panel, Point, Series, svg};

/// Most panels side by side.
const PANELS: usize = 3;

/// The picture of a run as SVG.
pub fn quality_chart(run: &RunReport) -> String {
    let retrieval = run.run.task.asks();
    svg(&if retrieval { retrieval_chart(run) } else { loss_chart(run) })
}

/// The index of each plan's colour, by its place in the run.
fn colour(run: &RunReport, row: &Row) -> Option<usize> {
    let plans = run.by_length.first().map_or(&[][..], |at| &at.rows);
    let mut names = plans.iter().filter(|row| row.kind == Kind::Plan).map(|row| &row.plan);
    names.position(|name| *name == row.plan).filter(|_| row.kind != Kind::Dense)
}

fn retrieval_chart(run: &RunReport) -> Chart {
    let methods = run.by_length.first().map_or(0, |at| at.rows.len());
    let series = (0..methods).map(|method| {
        let first = &run.by_length[0].rows[method];
        let points = run.by_length.iter().filter_map(|at| {
            let row = &at.rows[method];
            let score = &row.accuracy.as_ref()?.score;
            Some(Point {
                x: f64::from(at.length),
                y: score.share,
                interval: score.interval,
                said: format!(
                    "{} at {}: {:.1}% of {} right",
                    row.method,
                    at.length,
                    100.0 * score.share,
                    score.questions
                ),
            })
        });
        Series {
            name: first.method.clone(),
            colour: colour(run, first),
            partner: first.kind == Kind::Uniform,
            joined: true,
            points: points.collect(),
        }
    });
    let lengths: Vec<u32> = run.by_length.iter().map(|at| at.length).collect();
    let (first, last) = (lengths.first().copied().unwrap_or(0), lengths.last().copied().unwrap_or(1));
    // Every mark where there are few, else about eight round ones.
    let step = (last - first).div_ceil(7).next_multiple_of(1024);
    let shown: BTreeSet<u32> = if lengths.len() <= 8 {
        lengths.iter().copied().collect()
    } else {
        lengths.iter().copied().filter(|length| length % step == 0).chain([last]).collect()
    };
    let share = |percent: u32| (f64::from(percent) / 100.0, format!("{percent}%"));
    Chart {
        title: run.run.title.clone(),
        x: Axis {
            label: "context length, tokens".to_owned(),
            range: [f64::from(first.min(last - 1)), f64::from(last)],
            log: false,
            ticks: shown.into_iter().map(|length| (f64::from(length), length.to_string())).collect(),
        },
        y: Axis {
            label: "right answers".to_owned(),
            range: [0.0, 1.0],
            log: false,
            ticks: vec![
                share(0),
                share(25),
                share(50),
                share(75),
                (BAR, format!("{:.0}%", 100.0 * BAR)),
                share(100),
            ],
        },
        panels: vec![Panel { title: String::new(), series: series.collect() }],
    }
}

fn loss_chart(run: &RunReport) -> Chart {
    let shown = &run.by_length[run.by_length.len().saturating_sub(PANELS)..];
    let rows = || shown.iter().flat_map(|at| &at.rows).filter(|row| row.kind != Kind::Dense);
    let gaps = || rows().filter_map(|row| row.nll.as_ref()?.gap);
    let most =
        gaps().chain(rows().filter_map(|row| Some(row.nll.as_ref()?.gap_interval?[1]))).fold(0.0, f64::max);
    let least = gaps().fold(0.0, f64::min);
    let panels = shown.iter().map(|at| {
        let line = |kind: Kind, name: &str| {
            let mut points: Vec<Point> = Vec::new();
            for row in at.rows.iter().filter(|row| row.kind == kind) {
                let Some((nll, gap)) = row.nll.as_ref().and_then(|nll| Some((nll, nll.gap?))) else {
                    continue;
                };
                let said = format!("{} at {}: {gap:+.4} nats a token", row.method, at.length);
                points.push(Point { x: row.density, y: gap, interval: nll.gap_interval, said });
            }
            points.sort_by(|a, b| a.x.total_cmp(&b.x));
            // Plans of one size are alternatives, and no line.
            let joined = points.windows(2).all(|pair| pair[1].x > 1.1 * pair[0].x);
            Series { name: name.to_owned(), colour: Some(0), partner: kind == Kind::Uniform, joined, points }
        };
        let uniform = Series { colour: None, ..line(Kind::Uniform, "uniform spans") };
        Panel { title: format!("{} tokens", at.length), series: vec![line(Kind::Plan, "plans"), uniform] }
    });
    let low = rows().map(|row| row.density).fold(1.0, f64::min);
    // A plan a little below a mark lies in the room beside it.
    let halvings = (-low.log2() - 0.1).ceil().clamp(1.0, 10.0) as i32;
    let tick = |halving: i32| {
        let share = 0.5f64.powi(halving);
        (share, format!("{}%", 100.0 * share))
    };
    Chart {
        title: run.run.title.clone(),
        x: Axis {
            label: "KV bytes over dense".to_owned(),
            // A little room beside the marks at both ends.
            range: [0.92 * 0.5f64.powi(halvings), 1.04],
            log: true,
            ticks: (0..=halvings).rev().map(tick).collect(),
        },
        y: Axis::from_zero("gap to dense, nats a token", least, most),
        panels: panels.collect(),
    }
}
