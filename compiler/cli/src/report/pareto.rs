//! The plans of a search as text for a terminal.

use moac_planner::search::outcome::SearchResult;
use moac_planner::search::solve::Status;

use super::tables::table;

/// A row per plan: its losses and costs by length, and the proven gap of the objective (starred).
pub fn pareto_table(found: &SearchResult) -> String {
    let Some(first) = found.plans.first() else { return "no plans".to_owned() };
    let mut header = vec!["plan".to_owned()];
    header.extend(first.losses.keys().map(|length| format!("loss at {length}")));
    header.extend(first.costs.keys().map(|length| format!("cost at {length}")));
    header.extend(["gap", "proof"].map(str::to_owned));
    let mut rows = table(&header.iter().map(String::as_str).collect::<Vec<_>>(), 1);
    for (at, plan) in found.plans.iter().enumerate() {
        let mut row = vec![format!("{at:02}")];
        row.extend(plan.losses.iter().map(|(&length, loss)| {
            let star = if plan.minimised.contains(&length) { "*" } else { "" };
            format!("{loss:.5}{star}")
        }));
        row.extend(plan.costs.values().map(|cost| format!("{cost:.4}")));
        row.push(format!("{:.3}%", 100.0 * plan.gap));
        row.push(word(plan.status).to_owned());
        rows.add_row(row);
    }
    rows.trim_fmt()
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Optimal => "optimal",
        Status::Gap => "within the gap",
        Status::TimeLimit => "time limit",
        Status::ColumnLimit => "column limit",
    }
}
