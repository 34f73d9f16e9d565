//! `gelu weights`

pub(crate) fn run(_: &Command) -> anyhow::Result<()> {
    Ok(())
}
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Inspect,
}
