//! The verdicts of a verification as text for a terminal.

use std::fmt::Write as _;

use moac_compiler::verify::session::{Status, Verdict};

use super::ranges_text;
use super::tables::table;

/// Failures of a kernel that are worth their lines.
const SHOWN: usize = 6;

/// A row per kernel, what is wrong, and the sum.
pub fn verdicts_table(verdicts: &[Verdict]) -> String {
    let header = ["kernel", "arch", "verdict", "layers", "cases", "rows", "error", "worst row", "lse"];
    let mut rows = table(&header, 4);
    for verdict in verdicts {
        let number = |value: f64| if verdict.rows == 0 { "-".to_owned() } else { format!("{value:.1e}") };
        rows.add_row([
            verdict.symbol.clone(),
            verdict.arch.to_string(),
            word(verdict.status).to_owned(),
            ranges_text(&verdict.layers),
            verdict.cases.to_string(),
            verdict.rows.to_string(),
            number(verdict.error),
            number(verdict.row_error),
            number(verdict.lse_error),
        ]);
    }
    let mut text = rows.trim_fmt();
    for verdict in verdicts.iter().filter(|verdict| verdict.status != Status::Passed) {
        let _ = write!(text, "\n\n{} for {}: {}", verdict.symbol, verdict.arch, word(verdict.status));
        if let Some(reason) = &verdict.reason {
            let _ = write!(text, ": {reason}");
        }
        for wrong in verdict.failures.iter().take(SHOWN) {
            let _ = write!(text, "\n  {}: {}", wrong.case, wrong.failure);
        }
        if let more @ 1.. = verdict.failures.len().saturating_sub(SHOWN) {
            let _ = write!(text, "\n  and {more} more");
        }
    }
    let count = |status| verdicts.iter().filter(|verdict| verdict.status == status).count();
    let (passed, failed, not_run) = (count(Status::Passed), count(Status::Failed), count(Status::NotRun));
    let _ = write!(text, "\n\n{passed} passed, {failed} failed, {not_run} not run");
    text
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Passed => "passed",
        Status::Failed => "FAILED",
        Status::NotRun => "not run",
    }
}
