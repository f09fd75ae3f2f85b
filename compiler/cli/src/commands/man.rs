//! `moac man`: manual pages.

use std::path::PathBuf;

use clap::Command;
use clap_mangen::Man;
use moac_runtime::file;

use super::args::on_disk;
use super::{Context, ExitStatus};
use crate::error::Error;

/// Print a manual page, or write those of all commands
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The command to print the page of [default: moac itself]
    command: Option<String>,
    /// Write the pages of all commands to this folder, created if needed
    #[arg(short, long, value_name = "DIR", conflicts_with = "command", value_parser = on_disk())]
    out: Option<PathBuf>,
}

/// Runs the command. `moac` is the whole command line.
pub fn run(args: &Args, moac: Command, context: &Context) -> Result<ExitStatus, Error> {
    // `moac help COMMAND` needs no page.
    let mut moac = moac.disable_help_subcommand(true);
    moac.build();
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
        for command in std::iter::once(&moac).chain(moac.get_subcommands()) {
            let page = Man::new(command.clone());
            let path = folder.join(page.get_filename());
            file::write(&path, &rendered(&page)).map_err(Error::file("write", &path))?;
        }
        context.note(format!("wrote the pages to `{}`", folder.display()));
        return Ok(ExitStatus::Done);
    }
    let command = match &args.command {
        Some(name) => moac.find_subcommand(name).ok_or_else(|| Error::Command { name: name.clone() })?,
        None => &moac,
    };
    context.print_bytes(&rendered(&Man::new(command.clone())))?;
    Ok(ExitStatus::Done)
}

fn rendered(page: &Man) -> Vec<u8> {
    let mut text = Vec::new();
    page.render(&mut text).expect("a vector takes every byte");
    text
}
