//! Settings from a file and from the environment, for commands that run for long: what stands on the command line wins, then
//! the environment, then the file, then the default.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command};
use gelu_io::files::read_limited;
use toml::{Table, Value};

use crate::output::outln;

/// More than all settings take.
const MOST_BYTES: u64 = 1 << 20;

/// Options that are about settings, and none themselves.
const ABOUT: [&str; 4] = ["config", "print_config", "help", "version"];

/// Where settings come from besides the command line.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
pub(crate) struct ConfigArgs {
    /// A TOML file with options, named as here without their dashes: listen = "0.0.0.0:7443". Each can also be an environment
    /// variable (shown beside it); the command line wins over the environment, and that over the file.
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// Print the settings that would be used, as such a file, and do nothing else.
    #[arg(long)]
    print_config: bool,
}

/// Gives every option of a command an environment variable: GELU_SERVE_LISTEN for `--listen` of `gelu serve`.
pub(crate) fn with_variables(command: Command, prefix: &str) -> Command {
    command.mut_args(|argument| match argument.get_long() {
        Some(long) if !ABOUT.contains(&argument.get_id().as_str()) => {
            let name = format!("{prefix}_{long}").replace('-', "_").to_uppercase();
            argument.env(name).hide_env_values(true)
        }
        _ => argument,
    })
}

/// The command line with the options of its settings file added, which it names itself or by its variable.
pub(crate) fn with_file(command: &Command, line: Vec<OsString>) -> anyhow::Result<Vec<OsString>> {
    // What is wrong or missing is said when all is together.
    let Ok(matches) = command.clone().ignore_errors(true).try_get_matches_from(&line) else {
        return Ok(line);
    };
    let (command, matches) = innermost(command, &matches);
    let Some(path) = value_of::<PathBuf>(matches, "config") else { return Ok(line) };
    let table = read(path)?;
    let mut added = vec![];
    for (key, value) in &table {
        let known = |argument: &&Arg| !ABOUT.contains(&argument.get_id().as_str());
        let mut arguments = command.get_arguments().filter(known);
        let Some(argument) = arguments.find(|argument| argument.get_long() == Some(key)) else {
            bail!(
                "{}: `{key}` is no option of `{}`; its --help lists them",
                path.display(),
                command.get_name()
            );
        };
        let source = matches.value_source(argument.get_id().as_str());
        if matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
            continue;
        }
        let values = match value {
            Value::Array(values) => values.iter().map(text).collect::<Option<Vec<String>>>(),
            Value::Boolean(false) if !argument.get_action().takes_values() => continue,
            Value::Boolean(true) if !argument.get_action().takes_values() => Some(vec![]),
            value => text(value).map(|text| vec![text]),
        };
        let values = values.with_context(|| {
            format!("{}: {key}: expected a text, a number, true, false, or a list of such", path.display())
        })?;
        let option = format!("--{key}");
        match &values[..] {
            [] => added.push(option.into()),
            // A value may begin with a minus.
            values => added.extend(values.iter().map(|value| OsString::from(format!("{option}={value}")))),
        }
    }
    Ok(line.into_iter().chain(added).collect())
}

/// Prints the settings of a command if it was asked to, and returns whether it was.
pub(crate) fn print(command: &Command, matches: &ArgMatches) -> anyhow::Result<bool> {
    let (command, matches) = innermost(command, matches);
    if value_of::<bool>(matches, "print_config") != Some(&true) {
        return Ok(false);
    }
    let mut table = Table::new();
    for argument in command.get_arguments().filter(|argument| !ABOUT.contains(&argument.get_id().as_str())) {
        let (Some(long), id) = (argument.get_long(), argument.get_id().as_str()) else { continue };
        if !argument.get_action().takes_values() {
            if matches.get_flag(id) {
                table.insert(long.to_owned(), Value::Boolean(true));
            }
            continue;
        }
        let Ok(Some(raw)) = matches.try_get_raw(id) else { continue };
        let values: Vec<Value> = raw
            .map(|value| value.to_string_lossy().into_owned())
            .map(|text| text.parse().map_or(Value::String(text), Value::Integer))
            .collect();
        let takes_many = argument.get_num_args().is_some_and(|range| range.max_values() > 1);
        table.insert(
            long.to_owned(),
            match <[Value; 1]>::try_from(values) {
                Ok([only]) if !takes_many => only,
                Ok([only]) => Value::Array(vec![only]),
                Err(values) => Value::Array(values),
            },
        );
    }
    outln!("{}", toml::to_string_pretty(&table)?.trim_end())?;
    Ok(true)
}

fn innermost<'a>(command: &'a Command, matches: &'a ArgMatches) -> (&'a Command, &'a ArgMatches) {
    match matches.subcommand().and_then(|(name, inner)| Some((command.find_subcommand(name)?, inner))) {
        Some((command, matches)) => innermost(command, matches),
        None => (command, matches),
    }
}

/// The value of an option that not every command has.
fn value_of<'a, T: Clone + Send + Sync + 'static>(matches: &'a ArgMatches, id: &str) -> Option<&'a T> {
    matches.try_get_one::<T>(id).ok().flatten()
}

fn read(path: &Path) -> anyhow::Result<Table> {
    let bytes = read_limited(path, MOST_BYTES)?;
    let text = String::from_utf8(bytes).with_context(|| path.display().to_string())?;
    text.parse::<Table>().with_context(|| path.display().to_string())
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(choice) => Some(choice.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let serve = Command::new("serve")
            .arg(Arg::new("listen").long("listen").required(true))
            .arg(Arg::new("models").long("model").num_args(1..))
            .arg(Arg::new("insecure").long("insecure").action(clap::ArgAction::SetTrue));
        Command::new("gelu").subcommand(ConfigArgs::augment_args(serve))
    }

    /// What a line and a settings file come to.
    fn line(arguments: &[&str], file: &str) -> anyhow::Result<Vec<String>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("serve.toml");
        std::fs::write(&path, file)?;
        let mut line: Vec<OsString> = ["gelu", "serve"].iter().chain(arguments).map(Into::into).collect();
        let length = line.len();
        line.extend([OsString::from("--config"), path.into()]);
        let all = with_file(&command(), line)?;
        Ok(all[length + 2..].iter().map(|part| part.to_string_lossy().into_owned()).collect())
    }

    #[test]
    fn a_file_adds_what_the_line_does_not_say() {
        let file = "listen = '0.0.0.0:1'\nmodel = ['a', 'b=c']\ninsecure = true\n";
        assert_eq!(
            line(&[], file).unwrap(),
            ["--insecure", "--listen=0.0.0.0:1", "--model=a", "--model=b=c"]
        );
        assert_eq!(line(&["--listen", "here", "--model", "x"], file).unwrap(), ["--insecure"]);
        assert_eq!(line(&[], "insecure = false").unwrap(), [""; 0]);
    }

    #[test]
    fn files_that_say_what_nobody_understands_are_refused() {
        for (file, words) in [
            ("lisen = 'x'", "`lisen` is no option of `serve`"),
            ("config = 'x'", "`config` is no option"),
            ("listen = 1979-05-27", "expected a text"),
            ("listen = ", "serve.toml"),
        ] {
            let error = format!("{:#}", line(&[], file).unwrap_err());
            assert!(error.contains(words), "{file}: {error}");
        }
    }
}
