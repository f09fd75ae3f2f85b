//! The command line: parses it, runs one command, and turns the result into an exit code.

use std::fmt::Write as _;

use clap::builder::StyledStr;
use clap::error::ErrorKind;
use clap::{ColorChoice, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use moac_compiler::env;
use moac_compiler::hint::report;

use crate::commands::{self, ExitStatus};
use crate::context::{Context, Output};
use crate::error::Error;

/// Compiles a Mixture-of-Attention plan into the attention kernels of one model, ahead of time.
#[derive(Debug, Parser)]
#[command(name = "moac", bin_name = "moac", version, max_term_width = 100, propagate_version = true, after_long_help = after_help())]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Command {
    Compile(commands::compile::Args),
    Emit(commands::emit::Args),
    Inspect(commands::inspect::Args),
    Diff(commands::diff::Args),
    Generate(commands::generate::Args),
    Serve(commands::serve::Args),
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
    Man(commands::man::Args),
}

/// Every command, in the order and under the headings of help.
const HEADINGS: &[(&str, &[&str])] = &[
    ("Find a plan", &["plan", "calibrate", "profile", "search", "refine", "validate", "eval"]),
    ("Compile and run", &["compile", "generate", "serve", "exec", "bench"]),
    ("Check", &["verify", "inspect", "diff", "emit"]),
    ("Setup", &["quickstart", "doctor", "completions", "man", "help"]),
];

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
            Self::Serve(args) => commands::serve::run(args, context),
            Self::Eval(args) => commands::eval::run(args, context),
            Self::Diff(args) => commands::diff::run(args, context),
            Self::Completions(args) => commands::completions::run(args, &mut command(), context),
            Self::Man(args) => commands::man::run(args, command(), context),
        }
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitStatus {
    let Cli { command, output } = parse();
    let context = Context::new(output);
    context.start_log(output);
    match command.run(&context) {
        Ok(status) => status,
        // The reader of our output may stop early, as `head` does.
        Err(Error::Output(source)) if source.kind() == std::io::ErrorKind::BrokenPipe => ExitStatus::Done,
        Err(error) => {
            context.error(&report(&error));
            ExitStatus::Error
        }
    }
}

/// The command line of this process. One that does not parse ends it, as does one that asks for help.
fn parse() -> Cli {
    // Help and the errors of the parser itself are coloured as `--color` says, so it is looked for beforehand.
    let mut command = command().color(colour(std::env::args()));
    let matches = command.get_matches_mut();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit());
    // clap finds no conflict between global flags that stand before and behind the command's name.
    if cli.output.quiet && cli.output.verbose > 0 {
        let message = "the argument '--quiet' cannot be used with '--verbose'";
        command.error(ErrorKind::ArgumentConflict, message).exit();
    }
    cli
}

/// The last `--color` that is an option and has a value which is one.
fn colour(args: impl Iterator<Item = String>) -> ColorChoice {
    let args: Vec<String> = args.take_while(|arg| arg != "--").collect();
    let separate = args.windows(2).filter(|pair| pair[0] == "--color").map(|pair| pair[1].as_str());
    let joined = args.iter().filter_map(|arg| arg.strip_prefix("--color="));
    separate.chain(joined).find_map(|value| value.parse().ok()).unwrap_or_default()
}

/// The command line, with its commands under headings.
pub fn command() -> clap::Command {
    let command = Cli::command();
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n{}\n{{options}}{{after-help}}",
        headings(&command)
    );
    command.help_template(StyledStr::from(template))
}

/// The commands and what they do, under their headings: what clap would list under one.
fn headings(command: &clap::Command) -> String {
    let styles = command.get_styles();
    let (heading, literal) = (styles.get_header(), styles.get_literal());
    let width = command.get_subcommands().map(|command| command.get_name().len()).max().unwrap_or(0);
    let mut text = String::new();
    for (title, names) in HEADINGS {
        let _ = write!(text, "\n{heading}{title}:{heading:#}\n");
        for name in *names {
            let about = command.find_subcommand(name).and_then(clap::Command::get_about).cloned();
            let about = about.unwrap_or_else(|| "Print the help of a command".into());
            let _ = writeln!(text, "  {literal}{name}{literal:#}{:1$}  {about}", "", width - name.len());
        }
    }
    let _ = write!(text, "\n{heading}Options:{heading:#}");
    text
}

fn after_help() -> String {
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
        command().debug_assert();
    }

    #[test]
    fn every_command_stands_under_one_heading() {
        let mut command = command();
        command.build();
        let mut listed: Vec<&str> = HEADINGS.iter().flat_map(|(_, names)| *names).copied().collect();
        let mut known: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        listed.sort_unstable();
        known.sort_unstable();
        assert_eq!(listed, known);
        let help = command.render_help().to_string();
        for (title, names) in HEADINGS {
            assert!(help.contains(&format!("\n{title}:\n  {}", names[0])), "{title}:\n{help}");
        }
    }

    #[test]
    fn colour_is_found_before_the_command_line_is_parsed() {
        let colour = |args: &str| colour(args.split(' ').map(str::to_owned));
        assert_eq!(colour("moac inspect x"), ColorChoice::Auto);
        assert_eq!(colour("moac --color never x"), ColorChoice::Never);
        assert_eq!(colour("moac x --color=always"), ColorChoice::Always);
        assert_eq!(colour("moac x --color red"), ColorChoice::Auto);
        assert_eq!(colour("moac x -- --color=always"), ColorChoice::Auto);
    }

    #[test]
    fn help_names_every_variable_and_exit_code() {
        let help = command().render_long_help().to_string();
        for var in env::ALL {
            assert!(help.contains(var.name) && help.contains(&var.help[..20]), "{}", var.name);
        }
        assert!(
            help.contains("0  done") && help.contains("1  the answer is no") && help.contains("2  an error")
        );
    }
}
