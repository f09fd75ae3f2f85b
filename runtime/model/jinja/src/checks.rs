//! Jinja2's tests: what stands behind `is`.

use std::cmp::Ordering;

use crate::call::CallArgs;
use crate::error::{ErrorKind, Result, fail};
use crate::filters;
use crate::render::{Interp, Object};
use crate::unicode;
use crate::value::V;

const NAMES: [&str; 39] = [
    "odd",
    "even",
    "divisibleby",
    "defined",
    "undefined",
    "filter",
    "test",
    "none",
    "boolean",
    "false",
    "true",
    "integer",
    "float",
    "lower",
    "upper",
    "string",
    "mapping",
    "number",
    "sequence",
    "iterable",
    "callable",
    "sameas",
    "escaped",
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
];

impl Interp<'_> {
    /// Whether a value passes a test.
    pub(crate) fn check(&self, name: &str, value: &V, args: CallArgs) -> Result<bool> {
        let modulo = |divisor: &V| -> Result<V> { self.binary(crate::ast::Binary::Mod, value, divisor) };
        let ordered = |args: CallArgs, is: fn(Ordering) -> bool| -> Result<bool> {
            Ok(value.compare(&args.one(name)?, &self.meter)?.is_some_and(is))
        };
        let takes_none = !matches!(
            name,
            "divisibleby"
                | "sameas"
                | "in"
                | "=="
                | "eq"
                | "equalto"
                | "!="
                | "ne"
                | ">"
                | "gt"
                | "greaterthan"
                | "ge"
                | ">="
                | "<"
                | "lt"
                | "lessthan"
                | "<="
                | "le"
        );
        if takes_none && !(args.positional.is_empty() && args.named.is_empty()) && NAMES.contains(&name) {
            return fail(format!("the test `{name}` takes no arguments"));
        }
        Ok(match name {
            "defined" => !value.is_undefined(),
            "undefined" => value.is_undefined(),
            "none" => matches!(value, V::None),
            "boolean" => matches!(value, V::Bool(_)),
            "true" => matches!(value, V::Bool(true)),
            "false" => matches!(value, V::Bool(false)),
            "integer" => matches!(value, V::Int(_)),
            "float" => matches!(value, V::Float(_)),
            "number" => matches!(value, V::Bool(_) | V::Int(_) | V::Float(_)),
            "string" => value.as_str().is_some(),
            "mapping" => matches!(value, V::Dict(_)),
            "sequence" => match value {
                // An undefined value has a length and the method for items, which fails only when it is called.
                V::Undefined(_)
                | V::Str(_)
                | V::Safe(_)
                | V::List(_)
                | V::Tuple(_)
                | V::Dict(_)
                | V::Range(_) => true,
                _ => false,
            },
            "iterable" => match value {
                V::Object(id) => matches!(self.objects[*id], Object::Loop(_)),
                V::Undefined(_)
                | V::Str(_)
                | V::Safe(_)
                | V::List(_)
                | V::Tuple(_)
                | V::Dict(_)
                | V::View(..)
                | V::Range(_)
                | V::Iter(_) => true,
                _ => false,
            },
            "callable" => match value {
                V::Object(id) => {
                    matches!(
                        self.objects[*id],
                        Object::Macro { .. } | Object::Loop(_) | Object::Joiner { .. }
                    )
                }
                V::Method(_) | V::Global(_) | V::Undefined(_) => true,
                _ => false,
            },
            "escaped" => matches!(value, V::Safe(_)),
            "odd" => modulo(&V::Int(2))?.equals(&V::Int(1), &self.meter)?,
            "even" => modulo(&V::Int(2))?.equals(&V::Int(0), &self.meter)?,
            "divisibleby" => modulo(&args.one(name)?)?.equals(&V::Int(0), &self.meter)?,
            "lower" => unicode::is("islower", &self.str(value)?).unwrap_or(false),
            "upper" => unicode::is("isupper", &self.str(value)?).unwrap_or(false),
            "sameas" => value.same(&args.one(name)?),
            "in" => self.contains(&args.one(name)?, value)?,
            "==" | "eq" | "equalto" => value.equals(&args.one(name)?, &self.meter)?,
            "!=" | "ne" => !value.equals(&args.one(name)?, &self.meter)?,
            ">" | "gt" | "greaterthan" => ordered(args, Ordering::is_gt)?,
            ">=" | "ge" => ordered(args, Ordering::is_ge)?,
            "<" | "lt" | "lessthan" => ordered(args, Ordering::is_lt)?,
            "<=" | "le" => ordered(args, Ordering::is_le)?,
            "filter" => value.as_str().is_some_and(|name| filters::is_known(name)),
            "test" => value.as_str().is_some_and(|name| NAMES.contains(&&**name)),
            _ => {
                return Err(ErrorKind::Runtime(format!("No test named '{name}'.")).into());
            }
        })
    }
}
