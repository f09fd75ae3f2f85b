//! The results of an evaluation, as text for a terminal and as Markdown.

use std::fmt::Write as _;

use moac_planner::eval::report::{Accuracy, Effective, Kind, Part, Report, Row, RunReport, Score};

use super::percent;
use super::tables::table;

/// A table that is not printed yet: a header whose first columns are words, and rows.
struct Grid {
    words: usize,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// How tables are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Markdown,
}

/// All tables, for a terminal.
pub fn quality_tables(report: &Report) -> String {
    document(report, Form::Text)
}

/// All tables as Markdown.
pub fn quality_markdown(report: &Report) -> String {
    document(report, Form::Markdown)
}

fn document(report: &Report, form: Form) -> String {
    let mut text = String::new();
    if let (Some(title), Form::Markdown) = (&report.title, form) {
        let _ = writeln!(text, "## {title}\n");
    }
    for (at, run) in report.runs.iter().enumerate() {
        if at > 0 {
            text.push('\n');
        }
        let title = &run.run.title;
        let _ = match form {
            Form::Text => writeln!(text, "{title}: {}\n", report.model),
            Form::Markdown => writeln!(text, "### {title}\n"),
        };
        let retrieval = run.run.task.asks();
        if run.by_length.len() > 1 {
            grid(&mut text, &by_length(run, retrieval), form);
        }
        if retrieval {
            grid(&mut text, &effective(&run.effective), form);
        }
        grid(&mut text, &if retrieval { answers(run) } else { losses(run) }, form);
        if let Some(parts) = parts(run) {
            grid(&mut text, &parts, form);
        }
    }
    text.truncate(text.trim_end().len());
    text
}

fn grid(text: &mut String, grid: &Grid, form: Form) {
    match form {
        Form::Text => {
            let mut rows = table(&grid.header.iter().map(String::as_str).collect::<Vec<_>>(), grid.words);
            for row in &grid.rows {
                rows.add_row(row);
            }
            let _ = writeln!(text, "{}\n", rows.trim_fmt());
        }
        Form::Markdown => {
            let _ = writeln!(text, "| {} |", grid.header.join(" | "));
            let rule = |column| if column < grid.words { "---" } else { "---:" };
            let _ = writeln!(text, "|{}|", (0..grid.header.len()).map(rule).collect::<Vec<_>>().join("|"));
            for row in &grid.rows {
                let _ = writeln!(text, "| {} |", row.join(" | "));
            }
            text.push('\n');
        }
    }
}

fn header(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// The rows of a length, but partners with the spans of one that was there: several plans may have the same.
fn distinct(rows: &[Row]) -> Vec<&Row> {
    let mut shown: Vec<&Row> = Vec::new();
    for row in rows {
        let same = |other: &&Row| {
            row.kind == Kind::Uniform
                && other.kind == Kind::Uniform
                && row.mean_kv_span.to_bits() == other.mean_kv_span.to_bits()
        };
        if !shown.iter().any(same) {
            shown.push(row);
        }
    }
    shown
}

fn name(row: &Row) -> String {
    if row.kind == Kind::Uniform { format!("uniform {:.0}", row.mean_kv_span) } else { row.method.clone() }
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

fn interval(ends: Option<[f64; 2]>, text: impl Fn(f64) -> String) -> String {
    or_dash(ends.map(|[low, high]| format!("{} to {}", text(low), text(high))))
}

fn items(row: &Row) -> String {
    if row.items == row.all_items {
        row.items.to_string()
    } else {
        format!("{} of {}", row.items, row.all_items)
    }
}

/// Methods by lengths: the one number that matters of each.
fn by_length(run: &RunReport, retrieval: bool) -> Grid {
    let what = if retrieval { "right at" } else { "gap to dense at" };
    let mut header = vec![what.to_owned()];
    header.extend(run.by_length.iter().map(|at| at.length.to_string()));
    let methods = run.by_length.first().map_or(0, |at| at.rows.len());
    let rows = (0..methods).map(|method| {
        let cells = run.by_length.iter().map(|at| {
            let row = &at.rows[method];
            let nll = row.nll.as_ref();
            or_dash(match &row.accuracy {
                Some(accuracy) => Some(percent(accuracy.score.share)),
                None if row.kind == Kind::Dense => nll.map(|nll| format!("({:.3})", nll.mean)),
                None => nll.and_then(|nll| nll.gap).map(|gap| format!("{gap:+.4}")),
            })
        });
        std::iter::once(run.by_length[0].rows[method].method.clone()).chain(cells).collect()
    });
    Grid { words: 1, header, rows: rows.collect() }
}

fn effective(found: &[Effective]) -> Grid {
    let rows = found.iter().map(|found| {
        let length =
            found.length.map(|length| format!("{}{length}", if found.at_least { "\u{2265} " } else { "" }));
        vec![
            found.method.clone(),
            or_dash(length),
            or_dash(found.mean_kv_span.map(|span| format!("{span:.0}"))),
            or_dash(found.ratio.map(|ratio| format!("{ratio:.2}"))),
        ]
    });
    Grid {
        words: 1,
        header: header(&["method", "effective context", "mean KV span there", "ratio"]),
        rows: rows.collect(),
    }
}

fn answers(run: &RunReport) -> Grid {
    let columns = [
        "method",
        "length",
        "KV bytes",
        "mean KV span",
        "right",
        "95%",
        "of dense",
        "95%",
        "questions",
        "contexts",
    ];
    let mut rows = Vec::new();
    for at in &run.by_length {
        for row in distinct(&at.rows) {
            let Some(score) = row.accuracy.as_ref().map(|accuracy| &accuracy.score) else { continue };
            rows.push(vec![
                name(row),
                at.length.to_string(),
                percent(row.density),
                format!("{:.0}", row.mean_kv_span),
                percent(score.share),
                interval(score.interval, percent),
                or_dash(score.of_dense.map(|ratio| format!("{ratio:.3}"))),
                interval(score.of_dense_interval, |ratio| format!("{ratio:.3}")),
                score.questions.to_string(),
                items(row),
            ]);
        }
    }
    Grid { words: 1, header: header(&columns), rows }
}

/// What is right of every part of the questions, by method: of several tasks, kinds or turns; with what each plan keeps of the
/// tasks that dense attention passes.
fn parts(run: &RunReport) -> Option<Grid> {
    let methods = run.by_length.first().map_or(&[][..], |at| &at.rows).iter().map(|row| row.method.clone());
    let header = ["right of".to_owned(), "length".to_owned()].into_iter().chain(methods).collect();
    let mut rows = Vec::new();
    for at in &run.by_length {
        let accuracies = || at.rows.iter().map(|row| row.accuracy.as_ref());
        let names = accuracies().flatten().next().map_or(&[][..], |accuracy| &accuracy.parts);
        for Part { name, .. } in names {
            let share = |accuracy: Option<&Accuracy>| {
                let part = accuracy?.parts.iter().find(|part| part.name == *name)?;
                Some(percent(part.score.share))
            };
            let cells = accuracies().map(|accuracy| or_dash(share(accuracy)));
            rows.push([name.clone(), at.length.to_string()].into_iter().chain(cells).collect());
        }
        let passed = |accuracy: Option<&Accuracy>| {
            let Score { share, of_dense, of_dense_interval, .. } = accuracy?.passed.as_ref()?.score;
            let (ratio, interval) = (of_dense?, interval(of_dense_interval, |ratio| format!("{ratio:.3}")));
            Some(format!("{}, {ratio:.3} of dense [{interval}]", percent(share)))
        };
        if let Some(Part { name, .. }) = accuracies().flatten().find_map(|accuracy| accuracy.passed.as_ref())
        {
            let cells = accuracies().map(|accuracy| or_dash(passed(accuracy)));
            rows.push([name.clone(), at.length.to_string()].into_iter().chain(cells).collect());
        }
    }
    (!rows.is_empty()).then_some(Grid { words: 1, header, rows })
}

fn losses(run: &RunReport) -> Grid {
    let columns = [
        "method",
        "length",
        "KV bytes",
        "mean KV span",
        "NLL",
        "gap to dense",
        "95%",
        "of uniform's",
        "95%",
        "windows",
    ];
    let mut rows = Vec::new();
    for at in &run.by_length {
        for row in distinct(&at.rows) {
            let Some(nll) = &row.nll else { continue };
            let gap = nll.gap.filter(|_| row.kind != Kind::Dense);
            rows.push(vec![
                name(row),
                at.length.to_string(),
                percent(row.density),
                format!("{:.0}", row.mean_kv_span),
                format!("{:.4}", nll.mean),
                or_dash(gap.map(|gap| format!("{gap:+.4}"))),
                interval(nll.gap_interval, |gap| format!("{gap:+.4}")),
                or_dash(nll.gap_of_uniform.map(|ratio| format!("{ratio:.2}"))),
                interval(nll.gap_of_uniform_interval, |ratio| format!("{ratio:.2}")),
                items(row),
            ]);
        }
    }
    Grid { words: 1, header: header(&columns), rows }
}
