//! Hopper's instructions against results computed independently, and every misuse against its finding.

mod attention;
mod copies;
mod misuse;
mod mutants;
mod support;
mod wgmma;
mod wgmma_rules;
