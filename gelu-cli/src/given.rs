//! Which options stand on the command line: one that a command would ignore is refused, not ignored.

use std::collections::BTreeSet;
use std::fmt;

use clap::ArgMatches;
use clap::parser::ValueSource;

/// The options that were given, as they are written, without their dashes. Defaults are not among them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given(BTreeSet<String>);

impl Given {
    /// Those of the innermost subcommand.
    pub(crate) fn of(matches: &ArgMatches) -> Self {
        if let Some((_, inner)) = matches.subcommand() {
            return Self::of(inner);
        }
        let given = |id: &&str| matches.value_source(id) == Some(ValueSource::CommandLine);
        Self(matches.ids().map(clap::Id::as_str).filter(given).map(|id| id.replace('_', "-")).collect())
    }

    /// Fails on the first of `options` that was given: it would change nothing, for the reason `why`.
    pub(crate) fn refuse(&self, options: &[&str], why: &str) -> Result<(), WrongUsage> {
        match options.iter().find(|option| self.0.contains(**option)) {
            Some(option) => Err(WrongUsage(format!("--{option} would change nothing: {why}"))),
            None => Ok(()),
        }
    }
}

/// Options that do not go together, which the parser cannot know.
#[derive(Debug)]
pub(crate) struct WrongUsage(String);

impl fmt::Display for WrongUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongUsage {}
