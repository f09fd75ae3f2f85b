//! The command line: parses, runs one command, and turns its result into an exit code. The one place for both.

use std::io::IsTerminal as _;

use clap::{CommandFactory as _, Parser, Subcommand};
use moac_compiler::env;
use moac_compiler::hint::report;

use crate::commands::{self, Context, ExitStatus};
use crate::error::Error;

/// Compiles a Mixture-of-Attention plan into the attention kernels of one model, ahead of time.
#[derive(Debug, Parser)]
#[command(name = "moac", bin_name = "moac", version, max_term_width = 100, propagate_version = true, after_long_help = after_help())]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Compile(commands::compile::Args),
    Emit(commands::emit::Args),
    Inspect(commands::inspect::Args),
    Diff(commands::diff::Args),
    Generate(commands::generate::Args),
    Eval(commands::eval::Args),
    Verify(commands::verify::Args),
    Bench(commands::bench::Args),
    Exec(commands::exec::Args),
    Calibrate(commands::calibrate::Args),
    Profile(commands::profile::Args),
    Search(commands::search::Args),
    Refine(commands::refine::Args),
    Validate(commands::validate::Args),
    Plan(Box<commands::plan::Args>),
    Doctor(commands::doctor::Args),
    Quickstart(commands::quickstart::Args),
    Completions(commands::completions::Args),
}

impl Command {
    fn run(&self, context: &Context) -> Result<ExitStatus, Error> {
        match self {
            Self::Compile(args) => commands::compile::run(args, context),
            Self::Verify(args) => commands::verify::run(args, context),
            Self::Bench(args) => commands::bench::run(args, context),
            Self::Exec(args) => commands::exec::run(args, context),
            Self::Calibrate(args) => commands::calibrate::run(args, context),
            Self::Profile(args) => commands::profile::run(args, context),
            Self::Search(args) => commands::search::run(args, context),
            Self::Refine(args) => commands::refine::run(args, context),
            Self::Validate(args) => commands::validate::run(args, context),
            Self::Plan(args) => commands::plan::run(args, context),
            Self::Doctor(args) => commands::doctor::run(args, context),
            Self::Quickstart(args) => commands::quickstart::run(args, context),
            Self::Emit(args) => commands::emit::run(args, context),
            Self::Inspect(args) => commands::inspect::run(args, context),
            Self::Generate(args) => commands::generate::run(args, context),
            Self::Eval(args) => commands::eval::run(args, context),
            Self::Diff(args) => commands::diff::run(args, context),
            Self::Completions(args) => commands::completions::run(args, &mut Cli::command(), context),
        }
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitStatus {
    start_log();
    match Cli::parse().command.run(&Context::default()) {
        Ok(status) => status,
        // Whoever reads our output may stop early, as `head` does.
        Err(Error::Output(source)) if source.kind() == std::io::ErrorKind::BrokenPipe => ExitStatus::Done,
        Err(error) => {
            commands::say(report(&error).trim_end());
            ExitStatus::Error
        }
    }
}

fn start_log() {
    let filter = env::LOG.text().unwrap_or_else(|| "warn".to_owned());
    let filter = tracing_subscriber::EnvFilter::try_new(&filter).unwrap_or_else(|error| {
        commands::say(&format!("warning: {} is ignored: {error}", env::LOG.name));
        tracing_subscriber::EnvFilter::new("warn")
    });
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .finish();
    // Fails only where a host program has set its own.
    let _ = tracing::subscriber::set_global_default(log);
}

fn after_help() -> String {
    use std::fmt::Write as _;
    let mut text =
        "Exit codes:\n  0  done\n  1  the answer is no (a check failed)\n  2  an error\n\nEnvironment:"
            .to_owned();
    for var in env::ALL {
        let _ = write!(text, "\n  {:<16}  {}", var.name, var.help);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_names_every_variable_and_exit_code() {
        let help = Cli::command().render_long_help().to_string();
        for var in env::ALL {
            assert!(help.contains(var.name) && help.contains(&var.help[..20]), "{}", var.name);
        }
        assert!(
            help.contains("0  done") && help.contains("1  the answer is no") && help.contains("2  an error")
        );
    }
}
