//! The result of a validation as text for a terminal.

use moac_planner::validate::{Validated, Validation};

use super::tables::table;

/// A row for dense attention and one per plan, the best one starred: loss, what it is over dense, loss by task.
pub fn validation_table(validation: &Validation) -> String {
    let mut header = vec!["plan", "KV bytes", "loss", "over dense"];
    header.extend(validation.dense.by_task.keys());
    let mut rows = table(&header, 1);
    let mut add = |name: String, of: &Validated| {
        let mut row = vec![
            name,
            format!("{:.4}", of.kv_bytes),
            format!("{:.5}", of.loss),
            format!("{:+.5}", of.over_dense),
        ];
        row.extend(of.by_task.values().map(|loss| format!("{loss:.5}")));
        rows.add_row(row);
    };
    add(validation.dense.name.clone(), &validation.dense);
    for (at, plan) in validation.plans.iter().enumerate() {
        let star = if at == validation.best { "*" } else { "" };
        add(format!("{}{star}", plan.name), plan);
    }
    rows.trim_fmt()
}
