//! Where a plan came from: its provenance as a table of two columns, whatever fields it has, long values folded up.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::super::inspection::Inspection;
use super::escape;

/// Characters of a value that is shown at once.
const SHORT: usize = 96;

/// The digest of an artifact and the provenance of its plan.
pub(super) fn write(html: &mut String, inspection: &Inspection) {
    let mut facts = Map::new();
    if let Some(digest) = &inspection.digest {
        facts.insert("artifact sha256".to_owned(), digest.clone().into());
    }
    match &inspection.provenance {
        Some(Value::Object(fields)) => facts.extend(fields.clone()),
        Some(other) => drop(facts.insert("plan".to_owned(), other.clone())),
        None => {}
    }
    if !facts.is_empty() {
        let _ = write!(html, "<section>\n<h2>Provenance</h2>\n{}</section>\n", table(&facts));
    }
}

/// The fields of an object, a row for each.
fn table(fields: &Map<String, Value>) -> String {
    let mut html = "<table class=\"facts\">\n".to_owned();
    for (name, value) in fields {
        let _ = writeln!(html, "<tr><th>{}</th><td>{}</td></tr>", escape(name), shown(value));
    }
    html.push_str("</table>\n");
    html
}

/// A value as HTML. A long one is folded up, an object as a table of its own.
fn shown(value: &Value) -> String {
    let text = plain(value);
    if text.chars().count() <= SHORT {
        return escape(&text);
    }
    let start: String = text.chars().take(SHORT / 2).collect();
    let whole = value.as_object().map_or_else(|| escape(&text), table);
    format!("<details><summary>{} ...</summary>{whole}</details>", escape(&start))
}

/// A value as a person reads it: without quotes, braces and more digits than say something.
fn plain(value: &Value) -> String {
    let join = |parts: Vec<String>| parts.join(", ");
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => short_number(float),
            _ => number.to_string(),
        },
        Value::Array(values) if values.iter().any(|value| value.is_array() || value.is_object()) => {
            join(values.iter().map(|value| format!("({})", plain(value))).collect())
        }
        Value::Array(values) => join(values.iter().map(plain).collect()),
        Value::Object(fields) => {
            join(fields.iter().map(|(name, value)| format!("{name}: {}", plain(value))).collect())
        }
        Value::Null => "none".to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
    }
}

/// Four significant digits.
fn short_number(number: f64) -> String {
    let rounded: f64 = format!("{number:.3e}").parse().unwrap_or(number);
    rounded.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_shown_as_people_read_them() {
        let cases = [
            (json!("a \"b\""), "a \"b\""),
            (json!(0.497_652_777), "0.4977"),
            (json!(1.0), "1"),
            (json!(12_345_678_901_u64), "12345678901"),
            (json!(null), "none"),
            (json!([1024, 0.5, true]), "1024, 0.5, yes"),
            (json!([[1.0, 2.0], []]), "(1, 2), ()"),
            (json!({"kv": 1, "text": 0.25}), "kv: 1, text: 0.25"),
        ];
        for (value, text) in cases {
            assert_eq!(plain(&value), text, "{value}");
        }
    }

    #[test]
    fn long_values_are_folded_and_long_objects_are_tables() {
        assert_eq!(shown(&json!({"1024": 0.5})), "1024: 0.5");
        let list = shown(&json!(vec![7; 200]));
        assert!(list.starts_with("<details><summary>7, 7, ") && list.ends_with("7, 7</details>"), "{list}");
        let object = shown(&json!({"<x>": "a".repeat(100), "b": {"c": 1}}));
        assert!(object.contains("<tr><th>&lt;x&gt;</th><td><details><summary>aaa"), "{object}");
        assert!(object.contains("<tr><th>b</th><td>c: 1</td></tr>"), "{object}");
    }
}
