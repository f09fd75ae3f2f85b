//! The rules of a plan file (SPEC.md section 2), each checked whatever else is wrong.

use moac_runtime::plan::{
    DEFAULT_MIN_SPAN, DEFAULT_SINK, MAX_HEADS, MAX_LAYERS, MAX_LENGTH, ModelShape, PLAN_FORMAT, Plan, TILE,
    is_name,
};
use serde_json::value::RawValue;

use super::json::{self, Fields};
use super::object::Object;
use super::problem::Problems;
use super::stated::{MAX_HEAD_DIM, NAME, Stated};

/// |alpha| is at most this.
pub(super) const MAX_ALPHA: f64 = 2_147_483_648.0;
/// |beta| is at most this.
pub(super) const MAX_BETA: f64 = 16.0;

/// The plan that a document states, its model's shape being `given` or its own.
pub(super) fn plan(fields: Fields<'_>, given: Option<ModelShape>) -> Result<Plan, Problems> {
    let mut problems = Problems::default();
    let plan = Object::new("$", fields, &mut problems).and_then(|file| read(file, given, &mut problems));
    problems.or(plan)
}

fn read(mut file: Object<'_>, given: Option<ModelShape>, problems: &mut Problems) -> Option<Plan> {
    format(&mut file, problems);
    file.take("$schema"); // an editor's
    let own = file.take("model").and_then(|value| model("$.model", json::fields(value), problems));
    if own.is_none() && given.is_none() && problems.list().iter().all(|problem| problem.path != "$.model") {
        problems.add("$.model", "nothing", "the model's shape, in the file or by --model");
        problems.hint("name the model with --model, as in -m llama-3-8b");
    }
    let stated = match (own, given) {
        (Some(own), Some(given)) => own.agree(&given, problems),
        (Some(own), None) => own,
        (None, Some(given)) => given.into(),
        (None, None) => Stated::default(),
    };
    let sink = tiles(&mut file, "sink", DEFAULT_SINK, TILE, problems);
    // If the sink is invalid, its smallest value is used instead, so that min_span can still be checked.
    let min_span = tiles(&mut file, "min_span", DEFAULT_MIN_SPAN, sink.unwrap_or(TILE) + TILE, problems);
    let alphas = rules(&mut file, "alphas", MAX_ALPHA, &stated, problems);
    let betas = rules(&mut file, "betas", MAX_BETA, &stated, problems);
    let provenance = file.take("provenance").and_then(|value| {
        let parsed = serde_json::from_str(value.get());
        parsed.map_err(|error| problems.add("$.provenance", error.to_string(), "plain JSON")).ok()
    });
    file.finish("format, model, sink, min_span, alphas, betas and provenance", problems);
    Some(Plan {
        format: PLAN_FORMAT.to_owned(),
        model: stated.shape()?,
        sink: sink?,
        min_span: min_span?,
        alphas: alphas?,
        betas: betas?,
        provenance,
    })
}

/// The reference implementation's files name no format and have nothing but the rules.
fn format(file: &mut Object<'_>, problems: &mut Problems) {
    let expected = format!("{PLAN_FORMAT:?}");
    if let Some(value) = file.take("format") {
        if json::string(value).as_deref() != Ok(PLAN_FORMAT) {
            problems.add("$.format", json::describe(value), expected);
        }
        return;
    }
    let fields = ["model", "sink", "min_span", "provenance"];
    if let Some(own) = fields.into_iter().find(|name| file.has(name)) {
        problems.add("$.format", "nothing", format!("{expected}, for the file has `{own}`"));
    }
}

/// The shape at `path` of a plan file, as far as it is stated.
fn model(path: &str, fields: Fields<'_>, problems: &mut Problems) -> Option<Stated> {
    let mut object = Object::new(path, fields, problems)?;
    let name = object.require("name", NAME, problems).and_then(|value| {
        let name = json::string(value).ok().filter(|name| is_name(name));
        if name.is_none() {
            problems.add(format!("{path}.name"), json::describe(value), NAME);
        }
        name
    });
    let stated = Stated {
        name,
        num_layers: object.require_whole("num_layers", 1..=MAX_LAYERS, problems),
        num_heads: object.require_whole("num_heads", 1..=MAX_HEADS, problems),
        num_kv_heads: object.require_whole("num_kv_heads", 1..=MAX_HEADS, problems),
        head_dim: object.require_whole("head_dim", 1..=MAX_HEAD_DIM, problems),
        rope_theta: object.positive("rope_theta", problems),
        context: object.whole("context", 1..=u32::MAX, problems),
        softmax_scale: object.positive("softmax_scale", problems),
    };
    object.finish(
        "name, num_layers, num_heads, num_kv_heads, head_dim, rope_theta, context and softmax_scale",
        problems,
    );
    let place = |field: &str| format!("{path}.{field}");
    stated.supported([&place("num_heads"), &place("head_dim"), &place("softmax_scale")], problems);
    Some(stated)
}

/// A field of whole tiles, at least `least`.
fn tiles(
    file: &mut Object<'_>,
    name: &str,
    default: u32,
    least: u32,
    problems: &mut Problems,
) -> Option<u32> {
    let found = match file.take(name) {
        None if default >= least => return Some(default),
        None => format!("nothing, which means {default}"),
        Some(value) => match json::number(value) {
            Ok(number)
                if number.rem_euclid(f64::from(TILE)) == 0.0
                    && (f64::from(least)..=f64::from(MAX_LENGTH)).contains(&number) =>
            {
                return Some(number as u32);
            }
            _ => json::describe(value),
        },
    };
    problems.add(file.place(name), found, format!("a multiple of {TILE} from {least} to {MAX_LENGTH}"));
    None
}

/// `[layer][head]` numbers of magnitude at most `max`. Without a shape, rows must at least be of one length.
fn rules(
    file: &mut Object<'_>,
    name: &str,
    max: f64,
    stated: &Stated,
    problems: &mut Problems,
) -> Option<Vec<Vec<f64>>> {
    const EXPECTED: &str = "a list of one list per layer";
    let place = file.place(name);
    let value = file.require(name, EXPECTED, problems)?;
    let rows = json::items(value).map_err(|found| problems.add(&place, found, EXPECTED)).ok()?;
    let before = problems.count();
    match stated.num_layers {
        Some(layers) if rows.len() != layers as usize => {
            let model = stated.name.as_deref().unwrap_or("the model");
            problems.add(&place, counted(rows.len(), "layer"), format!("{layers}, as {model} has"));
        }
        None if rows.is_empty() => problems.add(&place, "an empty list", EXPECTED),
        _ => {}
    }
    let mut wanted = stated.num_heads.map(|heads| (heads as usize, format!("{heads}, one per head")));
    let mut table = Vec::with_capacity(rows.len());
    for (layer, row) in rows.into_iter().enumerate() {
        let place = format!("{place}[{layer}]");
        let Some(numbers) = numbers(row, &place, max, problems) else { continue };
        let (length, expected) = wanted
            .get_or_insert_with(|| (numbers.len(), format!("{}, as in the first layer", numbers.len())));
        if numbers.len() != *length {
            problems.add(&place, counted(numbers.len(), "number"), expected.clone());
        }
        table.push(numbers);
    }
    (problems.count() == before).then_some(table)
}

fn numbers(row: &RawValue, place: &str, max: f64, problems: &mut Problems) -> Option<Vec<f64>> {
    let items = json::items(row).map_err(|found| problems.add(place, found, "a list of numbers")).ok()?;
    let mut numbers = Vec::with_capacity(items.len());
    for (head, item) in items.into_iter().enumerate() {
        let number = json::number(item);
        if !number.as_ref().is_ok_and(|number| number.abs() <= max) {
            let expected = match &number {
                Ok(number) if number.is_finite() => format!("a number from -{max} to {max}"),
                _ => "a finite number".to_owned(),
            };
            let found = number.as_ref().map_or_else(Clone::clone, |_| json::describe(item));
            problems.add(format!("{place}[{head}]"), found, expected);
        }
        numbers.push(number.unwrap_or(0.0));
    }
    Some(numbers)
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
