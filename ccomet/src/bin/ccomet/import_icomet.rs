//! `ccomet import-icomet`: prints a configuration of icomet as settings of this server.

use std::path::PathBuf;

use clap::Args;

/// The arguments of `import-icomet`.
#[derive(Debug, Args)]
pub(crate) struct ImportIcomet {
    /// icomet's configuration
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl ImportIcomet {
    /// Returns the settings, as TOML. Settings without an equivalent are named on standard error.
    pub(crate) fn toml(&self) -> Result<String, Box<dyn std::error::Error>> {
        let path = self.file.display();
        let text = std::fs::read(&self.file).map_err(|error| format!("cannot read {path}: {error}"))?;
        let text = String::from_utf8_lossy(&text);
        let (config, warnings) = ccomet::import_icomet(&text).map_err(|error| format!("{path}: {error}"))?;
        for warning in warnings {
            eprintln!("{path}: {warning}");
        }
        config.check()?;
        Ok(config.to_toml())
    }
}
