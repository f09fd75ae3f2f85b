//! Reports on a plan or an artifact: as data ([`Inspection`], [`Diff`]), as tables, as a page.
//!
//! A [`View`] is their common input: a plan is lowered to one, an artifact contains one.

pub mod bench;
pub mod bench_model;
mod chart;
mod diff;
mod inspection;
mod page;
mod palette;
mod pareto;
mod pareto_chart;
mod profile;
mod quality;
mod quality_charts;
mod refinement;
mod tables;
mod validation;
mod verdicts;
mod view;

pub use self::diff::Diff;
pub use self::inspection::{BucketReport, GroupReport, Inspection, KernelReport, LayerReport};
pub use self::page::page;
pub use self::pareto::pareto_table;
pub use self::pareto_chart::pareto_chart;
pub use self::profile::profile_table;
pub use self::quality::{quality_markdown, quality_tables};
pub use self::quality_charts::quality_chart;
pub use self::refinement::refinement_table;
use self::tables::table;
pub use self::validation::validation_table;
pub use self::verdicts::verdicts_table;
pub use self::view::{KernelView, View};

use moac_runtime::plan::Rule;

/// A rule as a person writes it: `0.5N`, `N - 1024`, `1024`.
pub fn rule_text(rule: Rule) -> String {
    let Rule { alpha, beta } = rule;
    let slope = if (beta - 1.0).abs() < f64::EPSILON { "N".to_owned() } else { format!("{beta}N") };
    match (alpha.abs() < f64::EPSILON, beta.abs() < f64::EPSILON) {
        (true, true) => "0".to_owned(),
        (true, false) => slope,
        (false, true) => format!("{alpha}"),
        (false, false) => format!("{slope} {} {}", if alpha < 0.0 { '-' } else { '+' }, alpha.abs()),
    }
}

/// Bytes as a person reads them, in binary units.
pub fn bytes_text(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// A share in percent: `12.5%`.
fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

/// Numbers as ranges: `0-3 7 9-10`.
pub fn ranges_text(sorted: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &number in sorted {
        match ranges.last_mut() {
            Some((_, end)) if *end + 1 == number => *end = number,
            _ => ranges.push((number, number)),
        }
    }
    let text = |&(start, end): &(u32, u32)| {
        if start == end { start.to_string() } else { format!("{start}-{end}") }
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_read_as_people_write() {
        let rule = |alpha, beta| rule_text(Rule { alpha, beta });
        assert_eq!(rule(0.0, 0.5), "0.5N");
        assert_eq!(rule(-1024.0, 1.0), "N - 1024");
        assert_eq!(rule(2048.0, 0.125), "0.125N + 2048");
        assert_eq!(rule(1024.0, 0.0), "1024");
        assert_eq!(rule(0.0, 0.0), "0");
        assert_eq!(rule(0.0, -1.0), "-1N");
        assert_eq!(bytes_text(1023), "1023 B");
        assert_eq!(bytes_text(1 << 30), "1.0 GiB");
        assert_eq!(ranges_text(&[0, 1, 2, 3, 7, 9, 10]), "0-3 7 9-10");
        assert_eq!(ranges_text(&[]), "");
    }
}
