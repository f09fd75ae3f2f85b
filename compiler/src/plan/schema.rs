//! The JSON Schema of moac's own plan files: generated from [`Plan`], with the bounds that types do not say.

use std::collections::BTreeMap;

use moac_runtime::plan::{
    DEFAULT_MIN_SPAN, DEFAULT_SINK, MAX_HEADS, MAX_LAYERS, MAX_LENGTH, PLAN_FORMAT, Plan, TILE,
};
use serde_json::{Value, json};

use super::check::{MAX_ALPHA, MAX_BETA};
use super::stated::HEAD_DIMS;

/// The schema as the repository keeps it, in `plans/plan.schema.json`.
pub fn text() -> String {
    let mut text = format!("{:#}", sorted(schema()));
    text.push('\n');
    text
}

fn schema() -> Value {
    let mut schema = schemars::schema_for!(Plan).to_value();
    schema["title"] = json!("moac plan");
    schema["additionalProperties"] = json!(false);
    let fields = &mut schema["properties"];
    fields["$schema"] = json!({ "type": "string", "description": "Where an editor finds this schema." });
    fields["format"] = json!({ "const": PLAN_FORMAT });
    for (field, default, least) in [("sink", DEFAULT_SINK, TILE), ("min_span", DEFAULT_MIN_SPAN, 2 * TILE)] {
        bound(&mut fields[field], least, MAX_LENGTH);
        fields[field]["multipleOf"] = json!(TILE);
        fields[field]["default"] = json!(default);
    }
    for (field, max) in [("alphas", MAX_ALPHA), ("betas", MAX_BETA)] {
        let rows = &mut fields[field];
        rows["minItems"] = json!(1);
        let number = &mut rows["items"]["items"];
        *number = json!({ "type": "number", "minimum": -max, "maximum": max });
    }
    let model = &mut schema["$defs"]["ModelShape"];
    model["additionalProperties"] = json!(false);
    let fields = &mut model["properties"];
    for (field, most) in [("num_layers", MAX_LAYERS), ("num_heads", MAX_HEADS), ("num_kv_heads", MAX_HEADS)] {
        bound(&mut fields[field], 1, most);
    }
    bound(&mut fields["context"], 1, u32::MAX);
    fields["head_dim"] = json!({ "description": fields["head_dim"]["description"], "enum": HEAD_DIMS });
    for field in ["rope_theta", "softmax_scale"] {
        fields[field]["exclusiveMinimum"] = json!(0);
    }
    schema
}

/// Whether a map keeps its order depends on features that other crates turn on.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<String, Value> =
                fields.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        scalar => scalar,
    }
}

fn bound(field: &mut Value, least: u32, most: u32) {
    field["minimum"] = json!(least);
    field["maximum"] = json!(most);
}
