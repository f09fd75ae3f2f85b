//! Chat templates, as transformers renders them.
//!
//! A chat template is a Jinja2 program from an untrusted file. transformers runs it with `ImmutableSandboxedEnvironment`
//! (`trim_blocks`, `lstrip_blocks`, loop controls, `{% generation %}`, its own `tojson`, `raise_exception` and
//! `strftime_now`), so what it means is what Python does: how a float prints, what `str.title` makes of a text, which
//! values are iterable. This crate has that language over Python's values. What it does not have is refused by name,
//! where it is reached.
//!
//! What must hold, whatever the template and the variables: time and memory are charged to one account (`meter`) before
//! they are used, values and syntax trees are of bounded depth, and nothing panics.

#![forbid(unsafe_code)]

mod ast;
mod call;
mod checks;
mod de;
mod error;
mod filters;
mod format;
mod json;
mod lexer;
mod meter;
mod methods;
mod number;
mod ops;
mod parser;
mod print;
mod render;
mod time;
mod unicode;
mod value;

pub use error::{Error, ErrorKind};
pub use time::Now;
pub use value::Value;

/// A template, read and ready to render.
#[derive(Debug)]
pub struct Template {
    body: Vec<ast::Stmt>,
    source_bytes: usize,
}

impl Template {
    /// Reads a template.
    pub fn parse(source: &str) -> Result<Self, Error> {
        Ok(Self { body: parser::parse(source)?, source_bytes: source.len() })
    }

    /// Renders it with variables; `strftime_now` tells the time that `now` has.
    pub fn render<'a>(
        &self,
        variables: impl IntoIterator<Item = (&'a str, Value)>,
        now: Now,
    ) -> Result<String, Error> {
        let variables: Vec<(&str, Value)> = variables.into_iter().collect();
        let bytes = variables.iter().map(|(_, value)| value.weight()).sum::<usize>() + self.source_bytes;
        render::render(&self.body, &variables, now, bytes)
    }
}
