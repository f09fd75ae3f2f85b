//! Words for lists in error messages.

use std::fmt::{Debug, Display};

/// Names for a message.
pub(super) fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

/// The first difference of two lists, as (index, found, expected); a difference in length has no index.
pub(super) fn difference<T: PartialEq + Debug>(
    found: &[T],
    expected: &[T],
) -> Option<(Option<usize>, String, String)> {
    if found.len() != expected.len() {
        let entries = |list: &[T]| format!("{} entries", list.len());
        return Some((None, entries(found), entries(expected)));
    }
    let index = found.iter().zip(expected).position(|(found, expected)| found != expected)?;
    Some((Some(index), format!("{:?}", found[index]), format!("{:?}", expected[index])))
}
