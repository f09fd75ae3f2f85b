//! The profile as text for a terminal.

use moac_planner::profile::LengthSummary;

use super::tables::table;

/// A row per length: items, their tokens, and the dense model's loss on their answers.
pub fn profile_table(lengths: &[LengthSummary]) -> String {
    let mut rows = table(&["length", "items", "tokens", "answer tokens", "loss"], 0);
    for at in lengths {
        rows.add_row([
            at.length.to_string(),
            at.items.to_string(),
            at.tokens.to_string(),
            at.answer_tokens.to_string(),
            format!("{:.4}", at.loss),
        ]);
    }
    rows.trim_fmt()
}
