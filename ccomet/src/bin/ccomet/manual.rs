//! Completions for shells, and manual pages.

use std::error::Error;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::Arguments;

/// Returns the script with which a shell completes commands and options.
pub(crate) fn completions(shell: Shell) -> Result<String, Box<dyn Error>> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "ccomet", &mut script);
    Ok(String::from_utf8(script)?)
}

/// Returns the manual page of the program, or of a command, in troff.
pub(crate) fn page(command: Option<&str>) -> Result<String, Box<dyn Error>> {
    let mut program = Arguments::command().disable_help_subcommand(true);
    program.build();
    let described = match command {
        None => program,
        Some(name) => {
            let found = program.find_subcommand(name);
            let found =
                found.ok_or_else(|| format!("there is no command {name}: `ccomet --help` lists all commands"))?;
            found.clone()
        }
    };
    let mut page = Vec::new();
    Man::new(described).render(&mut page)?;
    Ok(String::from_utf8(page)?)
}
