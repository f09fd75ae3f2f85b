//! Every template of a table, against what jinja2 makes of it in transformers' environment (`constructs.py`).

use moac_jinja::{ErrorKind, Now, Template, Value};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Table {
    variables: BTreeMap<String, Value>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    #[serde(default)]
    variables: BTreeMap<String, Value>,
    /// The text that it renders.
    expected: Option<String>,
    /// The message given to `raise_exception`.
    raised: Option<String>,
    /// The name of another error's class.
    error: Option<String>,
}

/// 2024-07-26 09:05:03, the time that the table was made with.
const NOW: i64 = 1_721_984_703;

#[test]
fn templates_render_as_jinja2_does() {
    let table: Table = serde_json::from_str(include_str!("constructs.json")).unwrap();
    assert!(table.cases.len() >= 300, "{}", table.cases.len());
    let mut wrong = Vec::new();
    for case in &table.cases {
        let mut variables: BTreeMap<&str, Value> =
            table.variables.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        variables.extend(case.variables.iter().map(|(name, value)| (name.as_str(), value.clone())));
        let found =
            Template::parse(&case.template).and_then(|template| template.render(variables, Now::utc(NOW)));
        let right = match (&found, &case.expected, &case.raised) {
            (Ok(text), Some(expected), _) => text == expected,
            (Err(error), None, Some(message)) => {
                matches!(&error.kind, ErrorKind::Raised(raised) if raised == message)
            }
            (Err(error), None, None) => case.error.is_some() && !matches!(error.kind, ErrorKind::Raised(_)),
            // What is not there is refused by name.
            (Err(error), Some(_), _) => matches!(error.kind, ErrorKind::Unsupported(_)),
            _ => false,
        };
        if !right {
            wrong.push(format!(
                "{:?}\n  expected {:?}\n  found    {found:?}",
                case.template,
                case.expected.as_ref().or(case.raised.as_ref()).or(case.error.as_ref())
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), table.cases.len(), wrong.join("\n"));
}
