//! A parsed PTX module: its kernels and variables.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::decode;
use crate::kernel::Kernel;
use crate::parse::ast::{Init, Variable};
use crate::parse::{self, ParseError};

/// A PTX module.
#[derive(Clone, Debug)]
pub struct Module {
    target: String,
    kernels: BTreeMap<String, Kernel>,
    /// `.global` and `.const` variables in order of declaration.
    pub(crate) variables: Vec<Variable>,
    /// The text's lines, for reports.
    pub(crate) lines: Vec<String>,
    /// Stands for the module's text.
    pub(crate) identity: u64,
}

impl Module {
    /// Parses PTX text.
    ///
    /// # Errors
    /// Text that is no PTX, and instructions, directives or modifiers that the emulator does not know, each with line and text.
    pub fn parse(source: &str) -> Result<Self, ParseError> {
        let build = || {
            let unit = parse::parse(source)?;
            let kernels = decode::kernels(&unit)?;
            let variables: Vec<Variable> =
                unit.variables.into_iter().filter(|v| v.space != "shared").collect();
            let names: HashSet<&str> = variables.iter().map(|v| v.name.as_str()).collect();
            for v in &variables {
                for i in &v.init {
                    if let Init::Symbol(name, _) = i
                        && !names.contains(name.as_str())
                    {
                        return Err(parse::Error::new(
                            v.line,
                            format!("the initialiser names `{name}`, which is not a variable"),
                        ));
                    }
                }
                if v.bytes.is_none() {
                    return Err(parse::Error::new(v.line, format!("variable `{}` has no size", v.name)));
                }
            }
            Ok((unit.target, kernels, variables))
        };
        let (target, kernels, variables) = build().map_err(|e: parse::Error| e.with_text(source))?;
        let mut hasher = DefaultHasher::new();
        source.hash(&mut hasher);
        Ok(Self {
            target,
            kernels: kernels.into_iter().map(|k| (k.name.clone(), k)).collect(),
            variables,
            lines: source.lines().map(|l| l.trim().to_owned()).collect(),
            identity: hasher.finish(),
        })
    }

    /// The `.target`, such as `sm_90a`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// A kernel by its symbol.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.get(name)
    }

    /// All kernels by symbol.
    pub fn kernels(&self) -> impl Iterator<Item = &Kernel> {
        self.kernels.values()
    }

    /// Text of a line, counted from 1.
    pub(crate) fn line(&self, line: u32) -> String {
        self.lines.get((line as usize).wrapping_sub(1)).cloned().unwrap_or_default()
    }
}
