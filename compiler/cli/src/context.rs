//! The printer: the only way from a command to the terminal. Data goes to stdout; notes, errors, the log and progress
//! bars go to stderr.
//!
//! Bars and lines share a terminal, so every line is written through the owner of the bars, which removes them from
//! the screen for that moment. Nothing else in the crate writes to stdout or stderr or makes a bar.

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write as _};

use anstream::{AutoStream, ColorChoice};
use clap::builder::styling::{AnsiColor, Style};
use indicatif::{
    HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};
use moac_compiler::env;
use serde::Serialize;

use crate::error::Error;

/// The options of every command: how much is shown, and how.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Output {
    /// Print results and errors only: no notes, no progress
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Log more to stderr: -v for information, -vv for debugging, -vvv for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_default_value = true)]
    pub color: clap::ColorChoice,
    /// Draw no progress bars
    #[arg(long, global = true)]
    pub no_progress: bool,
}

impl Output {
    /// The filter of the log where no variable asks for another.
    fn log_filter(self) -> &'static str {
        match (self.quiet, self.verbose) {
            (true, _) => "error",
            (false, 0) => "warn",
            (false, 1) => "warn,moac=info",
            (false, 2) => "info,moac=debug",
            (false, _) => "trace",
        }
    }

    /// Whether stderr is coloured: as the flag says, or else where it is a terminal and no variable speaks against it.
    fn coloured(self) -> bool {
        match self.color {
            clap::ColorChoice::Always => true,
            clap::ColorChoice::Never => false,
            clap::ColorChoice::Auto => AutoStream::choice(&io::stderr()) != ColorChoice::Never,
        }
    }
}

/// Writes to the terminal.
#[derive(Debug)]
pub struct Context {
    bars: MultiProgress,
    quiet: bool,
    coloured: bool,
}

impl Default for Context {
    fn default() -> Self {
        Self::new(Output::default())
    }
}

impl Context {
    /// As the flags ask for.
    pub fn new(output: Output) -> Self {
        let drawn = !output.quiet && !output.no_progress;
        let target = if drawn { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self {
            bars: MultiProgress::with_draw_target(target),
            quiet: output.quiet,
            coloured: output.coloured(),
        }
    }

    /// Starts the log of this process: `-q` and `-v` say how much of it there is, else `MOAC_LOG`.
    pub fn start_log(&self, output: Output) {
        let asked = output.quiet || output.verbose > 0;
        let filter = env::LOG.text().filter(|_| !asked).unwrap_or_else(|| output.log_filter().to_owned());
        let filter = tracing_subscriber::EnvFilter::try_new(&filter).unwrap_or_else(|error| {
            self.warn(format!("{} is ignored: {error}", env::LOG.name));
            tracing_subscriber::EnvFilter::new(output.log_filter())
        });
        let bars = self.bars.clone();
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(move || Between { bars: bars.clone() })
            .with_ansi(self.coloured)
            .finish();
        // Fails only where a host program has set its own.
        let _ = tracing::subscriber::set_global_default(log);
    }

    /// Prints a line of data to stdout.
    pub fn print(&self, text: impl Display) -> Result<(), Error> {
        self.bars.suspend(|| writeln!(io::stdout().lock(), "{text}")).map_err(Error::Output)
    }

    /// Prints data to stdout as it is.
    pub fn print_bytes(&self, bytes: &[u8]) -> Result<(), Error> {
        let print = || {
            let mut out = io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        };
        self.bars.suspend(print).map_err(Error::Output)
    }

    /// Prints one object of `--json` output on a line of its own.
    pub fn json_line(&self, value: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_string(value).map_err(|error| Error::Output(error.into()))?;
        self.print(text)
    }

    /// Prints `--json` output.
    pub fn json(&self, value: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(value).map_err(|error| Error::Output(error.into()))?;
        self.print(text)
    }

    /// Tells the user something on stderr that is neither data nor an error.
    pub fn note(&self, text: impl Display) {
        if !self.quiet {
            self.say(&format!("note: {text}"));
        }
    }

    /// Prints a table to stderr where standard output has something else.
    pub fn aside(&self, text: impl Display) {
        if !self.quiet {
            self.say(&text.to_string());
        }
    }

    /// Tells the user on stderr that something is wrong, though not so wrong that the command ends.
    pub fn warn(&self, text: impl Display) {
        self.say(&format!("warning: {text}"));
    }

    /// Shows an error on stderr: the text of [`moac_compiler::hint::report`].
    pub fn error(&self, report: &str) {
        self.say(report.trim_end());
    }

    /// Asks for a line of input.
    pub fn prompt(&self, text: &str) {
        let mut err = io::stderr().lock();
        let _ = write!(err, "{text}").and_then(|()| err.flush());
    }

    /// A bar that counts steps of about equal length. It is gone when it is dropped.
    pub fn steps(&self, doing: &'static str, all: usize) -> Bar {
        self.bar(doing, "{pos}/{len}", all as u64)
    }

    /// A bar whose steps differ in length: it shows the share of the work that is done.
    pub fn work(&self, doing: &'static str) -> Bar {
        self.bar(doing, "{percent:>3}%", 0)
    }

    fn bar(&self, doing: &'static str, count: &str, all: u64) -> Bar {
        let template = format!("{{prefix}} {{bar:32}} {count} {{elapsed}}{{left}}  {{wide_msg}}");
        let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let style = style.with_key("left", |state: &ProgressState, out: &mut dyn fmt::Write| {
            if state.pos() > 0 {
                let _ = write!(out, ", about {} left", HumanDuration(state.eta()));
            }
        });
        Bar(self.bars.add(ProgressBar::new(all).with_style(style).with_prefix(doing)))
    }

    /// Writes lines to stderr, each label in its colour. Nothing can be done where that fails.
    fn say(&self, text: &str) {
        let text = if self.coloured { painted(text) } else { text.to_owned() };
        self.bars.suspend(|| {
            let _ = writeln!(io::stderr().lock(), "{text}");
        });
    }
}

/// The lines of a text, with colour on the label that a line begins with.
fn painted(text: &str) -> String {
    let label = |line: &str| {
        [
            ("error", AnsiColor::Red),
            ("warning", AnsiColor::Yellow),
            ("note", AnsiColor::Cyan),
            ("hint", AnsiColor::Green),
        ]
        .into_iter()
        .find(|(label, _)| line.strip_prefix(label).is_some_and(|rest| rest.starts_with(": ")))
    };
    let mut painted = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        if let Some((label, colour)) = label(line) {
            let style: Style = colour.on_default().bold();
            let _ = write!(painted, "{style}{label}:{style:#}{}", &line[label.len() + 1..]);
        } else {
            painted.push_str(line);
        }
    }
    painted
}

/// The length of a bar that shows a share.
const WHOLE: u64 = 10_000;

/// A progress bar on stderr: drawn on a terminal only, and gone when this value is dropped.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Bar {
    /// So many steps of so many are done.
    pub fn show(&self, done: usize, all: usize) {
        self.0.set_length(all as u64);
        self.0.set_position(done as u64);
    }

    /// So much work of so much is done, in whatever unit it is measured.
    pub fn show_work(&self, done: f64, all: f64) {
        self.0.set_length(WHOLE);
        self.0.set_position((done / all * WHOLE as f64) as u64);
    }

    /// One more step is done.
    pub fn inc(&self) {
        self.0.inc(1);
    }

    /// Says what is being done now.
    pub fn message(&self, text: impl Into<String>) {
        self.0.set_message(text.into());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Writes to stderr between the bars.
struct Between {
    bars: MultiProgress,
}

impl io::Write for Between {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bars.suspend(|| io::stderr().lock().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_painted_and_nothing_else() {
        let text = "error: a\n  caused by: error: b\nhint: c: d\nnotes: e";
        let bold = |code: &str, label: &str| format!("\u{1b}[1m\u{1b}[{code}m{label}:\u{1b}[0m");
        let expected = format!(
            "{} a\n  caused by: error: b\n{} c: d\nnotes: e",
            bold("31", "error"),
            bold("32", "hint")
        );
        assert_eq!(painted(text), expected);
    }

    #[test]
    fn flags_decide_on_the_log_and_on_colour() {
        let output = |quiet, verbose| Output { quiet, verbose, ..Output::default() }.log_filter();
        assert_eq!([output(true, 0), output(false, 0)], ["error", "warn"]);
        assert_eq!(
            [1, 2, 3, 9].map(|times| output(false, times)),
            ["warn,moac=info", "info,moac=debug", "trace", "trace"]
        );
        let coloured = |color| Output { color, ..Output::default() }.coloured();
        assert!(coloured(clap::ColorChoice::Always) && !coloured(clap::ColorChoice::Never));
    }
}
