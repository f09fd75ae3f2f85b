//! The steps of a refinement as text for a terminal.

use moac_planner::refine::Refined;

use super::tables::table;

/// A row per step, of other items each: the loss under the plan before it, by length; and the KV bytes of the result.
pub fn refinement_table(refined: &Refined) -> String {
    let lengths: Vec<String> = refined.lengths.iter().map(|length| format!("loss at {length}")).collect();
    let head: Vec<&str> = std::iter::once("step").chain(lengths.iter().map(String::as_str)).collect();
    let mut rows = table(&head, 0);
    for (step, losses) in (1..).zip(&refined.losses) {
        let losses = losses.iter().map(|loss| format!("{loss:.4}"));
        rows.add_row(std::iter::once(step.to_string()).chain(losses));
    }
    let bytes = refined.kv_bytes.iter().map(|share| format!("{:.1}%", 100.0 * share));
    rows.add_row(std::iter::once("KV bytes of the plan".to_owned()).chain(bytes));
    rows.trim_fmt()
}
