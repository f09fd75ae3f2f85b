//! Jinja2's filters.

pub(crate) mod sequence;
mod text;

use std::sync::Arc;

use crate::call::{CallArgs, integer};
use crate::error::{ErrorKind, Result, fail, unsupported};
use crate::json;
use crate::number::{self, NotInt};
use crate::render::Interp;
use crate::value::{V, need_str};

const NAMES: [&str; 54] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "items",
    "map",
    "min",
    "max",
    "pprint",
    "random",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "urlize",
    "wordcount",
    "wordwrap",
    "xmlattr",
    "tojson",
];

pub(crate) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

impl Interp<'_> {
    pub(crate) fn filter(&mut self, name: &str, value: &V, args: CallArgs) -> Result<V> {
        if let Some(made) = self.text_filter(name, value, &args)? {
            return Ok(made);
        }
        match name {
            "default" | "d" => {
                let [default, boolean] = args.bind(name, ["default_value", "boolean"])?;
                let missing = value.is_undefined() || boolean.is_some_and(|b| b.truth()) && !value.truth();
                Ok(if missing { default.unwrap_or_else(|| V::text("")) } else { value.clone() })
            }
            "tojson" => self.to_json(value, args),
            "string" => {
                let [] = args.bind(name, [])?;
                Ok(if let V::Safe(_) = value { value.clone() } else { V::Str(self.str(value)?) })
            }
            "length" | "count" => {
                let [] = args.bind(name, [])?;
                self.length(value).map(|length| V::Int(length as i128))
            }
            "abs" => {
                let [] = args.bind(name, [])?;
                match value {
                    V::Float(number) => Ok(V::Float(number.abs())),
                    V::Undefined(message) => fail(&**message),
                    _ => match value.as_int() {
                        Some(number) => Ok(V::Int(number.saturating_abs())),
                        None => fail(format!("bad operand type for abs(): '{}'", value.type_name())),
                    },
                }
            }
            "int" => {
                let [default, base] = args.bind(name, ["default", "base"])?;
                self.to_int(value, default, integer(base.as_ref(), 10)?)
            }
            "float" => {
                let [default] = args.bind(name, ["default"])?;
                if let V::Undefined(message) = value {
                    return fail(&**message);
                }
                let number = match value.as_str() {
                    Some(text) => number::parse_float(text),
                    None => value.as_float(),
                };
                Ok(number.map_or_else(|| default.unwrap_or(V::Float(0.0)), V::Float))
            }
            "round" => {
                let [precision, method] = args.bind(name, ["precision", "method"])?;
                round(value, integer(precision.as_ref(), 0)?, method.as_ref())
            }
            "attr" => {
                let name = need_str(&args.one(name)?, "attribute name")?;
                match value {
                    // Items are not attributes.
                    V::Dict(dict) if dict.text(&name).is_some() => {
                        let bare = V::dict(Vec::new(), &self.meter)?;
                        match self.attribute(&bare, &name)? {
                            V::Method(_) => self.attribute(value, &name),
                            other => Ok(other),
                        }
                    }
                    _ => self.attribute(value, &name),
                }
            }
            "items" => {
                let [] = args.bind(name, [])?;
                match value {
                    V::Undefined(_) => V::iter(Vec::new()),
                    V::Dict(dict) => {
                        self.meter.items(dict.entries().len())?;
                        let pairs = dict.entries().iter().map(|(k, v)| V::tuple(vec![k.clone(), v.clone()]));
                        V::iter(pairs.collect::<Result<_>>()?)
                    }
                    _ => fail("Can only get item pairs from a mapping."),
                }
            }
            "pprint" | "random" | "striptags" | "urlize" | "wordwrap" => {
                unsupported(format!("the filter `{name}`"))
            }
            _ if is_known(name) => self.sequence_filter(name, value, args),
            _ => Err(ErrorKind::Runtime(format!("No filter named '{name}'.")).into()),
        }
    }

    /// Python's `len`.
    pub(crate) fn length(&self, value: &V) -> Result<usize> {
        if let V::Object(id) = value
            && let crate::render::Object::Loop(state) = &self.objects[*id]
        {
            return Ok(state.items.len());
        }
        if let Some(text) = value.as_str() {
            self.meter.bytes(text.len())?;
        }
        match value.len() {
            Some(length) => Ok(length),
            None => fail(format!("object of type '{}' has no len()", value.type_name())),
        }
    }

    fn to_json(&self, value: &V, args: CallArgs) -> Result<V> {
        let [ascii, indent, separators, sort] =
            args.bind("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])?;
        let indent = match indent {
            None | Some(V::None) => None,
            Some(V::Str(text)) => Some(text.to_string()),
            Some(indent) => {
                let width = usize::try_from(integer(Some(&indent), 0)?.max(0)).unwrap_or(usize::MAX);
                Some(self.repeated(" ", width)?)
            }
        };
        let separators: Option<(Arc<str>, Arc<str>)> = match separators {
            None | Some(V::None) => None,
            Some(pair) => {
                let pair = pair.items(&self.meter)?;
                let [item, key] = &pair[..] else { return fail("separators must be a pair") };
                Some((need_str(item, "separator")?, need_str(key, "separator")?))
            }
        };
        let style = json::Style {
            ascii: ascii.is_some_and(|flag| flag.truth()),
            item: separators.as_ref().map_or(if indent.is_some() { "," } else { ", " }, |(item, _)| item),
            key: separators.as_ref().map_or(": ", |(_, key)| key),
            indent,
            sort: sort.is_some_and(|flag| flag.truth()),
        };
        json::dump(value, &style, &self.meter).map(|text| V::Str(text.into()))
    }

    fn to_int(&self, value: &V, default: Option<V>, base: i128) -> Result<V> {
        let beyond = || unsupported("an integer beyond 128 bits");
        if let V::Undefined(message) = value {
            return fail(&**message);
        }
        let float = match value.as_str() {
            Some(text) => {
                self.meter.bytes(text.len())?;
                match number::parse_int(text, u32::try_from(base).unwrap_or(99)) {
                    Ok(number) => return Ok(V::Int(number)),
                    Err(NotInt::Beyond) => return beyond(),
                    Err(NotInt::Invalid) => number::parse_float(text),
                }
            }
            None => match value.as_int() {
                Some(number) => return Ok(V::Int(number)),
                None => value.as_float(),
            },
        };
        match float {
            Some(number) if number.is_finite() && number.abs() < 1e38 => Ok(V::Int(number.trunc() as i128)),
            Some(number) if number.is_finite() => beyond(),
            // `int(nan)` is a ValueError, of infinity an OverflowError; both give the default.
            _ => Ok(default.unwrap_or(V::Int(0))),
        }
    }
}

/// The filter `round`.
fn round(value: &V, precision: i128, method: Option<&V>) -> Result<V> {
    let method = method.map_or_else(|| Ok("common".into()), |method| need_str(method, "method"))?;
    if let V::Undefined(message) = value {
        return fail(&**message);
    }
    let Some(number) = value.as_float() else {
        return fail(format!("type {} doesn't define __round__ method", value.type_name()));
    };
    match &*method {
        "common" => match value.as_int() {
            Some(whole) if precision >= 0 => Ok(V::Int(whole)),
            Some(_) => unsupported("`round` of an integer to tens"),
            // Correctly rounded, ties to even, as Python's `round`.
            None if !number.is_finite() => Ok(V::Float(number)),
            None if (0..=400).contains(&precision) => {
                let text = number::fixed(number, usize::try_from(precision).unwrap_or(0));
                Ok(V::Float(text.parse().unwrap_or(number)))
            }
            None if precision > 400 => Ok(V::Float(number)),
            None => unsupported("`round` of a number to tens"),
        },
        "ceil" | "floor" => {
            let power = 10f64.powi(i32::try_from(precision.clamp(-400, 400)).unwrap_or(0));
            let scaled = number * power;
            if !scaled.is_finite() {
                return fail("cannot convert float infinity to integer");
            }
            Ok(V::Float(if &*method == "ceil" { scaled.ceil() } else { scaled.floor() } / power))
        }
        _ => fail("method must be common, ceil or floor"),
    }
}
