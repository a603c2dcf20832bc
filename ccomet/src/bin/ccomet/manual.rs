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

/// Returns the manual page of the program, or of a command, in troff. The names of a command and of
/// its own command are several words, or one text with spaces.
pub(crate) fn page(command: &[String]) -> Result<String, Box<dyn Error>> {
    let mut program = Arguments::command().disable_help_subcommand(true);
    program.build();
    let mut described = &program;
    for name in command.iter().flat_map(|words| words.split_whitespace()) {
        let found = described.find_subcommand(name);
        let of = described.get_bin_name().unwrap_or("ccomet");
        described = found.ok_or_else(|| format!("there is no command {name}: `{of} --help` lists all commands"))?;
    }
    let examples = described.get_after_help().map(ToString::to_string);
    let described = described.clone().after_help(None::<&str>);
    let man = Man::new(described).source(concat!("ccomet ", env!("CARGO_PKG_VERSION"))).manual("Commands of ccomet");
    let mut page = Vec::new();
    man.render(&mut page)?;
    // Without a date, the version would be in its place.
    let mut page = String::from_utf8(page)?.replacen(" 1  \"", " 1 \"\" \"", 1);
    if let Some(examples) = examples {
        page.push_str(&section_of_examples(&examples));
    }
    Ok(page)
}

/// Returns a section with lines as they are.
fn section_of_examples(examples: &str) -> String {
    let escaped = examples.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    // A line that begins with a dot is a request.
    let lines =
        escaped.lines().map(|line| if line.starts_with('.') { format!("\\&{line}\n") } else { format!("{line}\n") });
    format!(".SH EXAMPLES\n.nf\n{}.fi\n", lines.collect::<String>())
}
