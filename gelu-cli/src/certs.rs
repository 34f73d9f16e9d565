//! `gelu certs`

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;
use gelu_io::files::{make_folder, write_atomic, write_secret};
use gelu_service::{TrialAuthority, TrialCertificate};
use serde_json::json;

use crate::output::{check_folders, outln};

/// Make certificates for a trial: an authority, a server's and clients'.
///
/// The authority's own key is forgotten at once, so that nobody can sign others with it later. For lasting use, take
/// certificates of an authority of your own.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  For a trial on one machine:
    gelu certs --out certs

  For a server that clients call by its name or address, and two clients:
    gelu certs --out certs --server gelu.example.org 192.168.1.7 --client north south

The server gets server.pem, server.key and ca.pem; each client its own two files and ca.pem.")]
pub(crate) struct CertsArgs {
    /// Where to write: ca.pem, server.pem, server.key, and NAME.pem and NAME.key of each client.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Names and addresses by which clients call the server.
    #[arg(long, value_name = "HOST", num_args = 1.., default_values = ["localhost", "127.0.0.1", "::1"])]
    server: Vec<String>,
    /// Names of clients.
    #[arg(long, value_name = "NAME", num_args = 1.., default_values = ["client"], value_parser = parse_name)]
    client: Vec<String>,
    /// Days that the certificates hold.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Overwrite files that are there.
    #[arg(long)]
    force: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// A name becomes that of files, beside those of server and authority.
fn parse_name(text: &str) -> Result<String, String> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    match text {
        "ca" | "server" => Err(format!("`{text}` is the name of other files here; choose another")),
        _ if !text.is_empty() && text.chars().all(is_plain) && !text.starts_with(['.', '-']) => {
            Ok(text.to_owned())
        }
        _ => Err(format!("expected letters, digits, `-`, `_` and `.`, found `{text}`")),
    }
}

pub(crate) fn run(args: &CertsArgs) -> anyhow::Result<()> {
    check_folders([args.out.as_path()])?;
    let authority = TrialAuthority::new(args.days)?;
    let mut made = vec![("server".to_owned(), authority.server(&args.server)?)];
    for client in &args.client {
        ensure!(!made.iter().any(|(name, _)| name == client), "--client {client}: named twice");
        made.push((client.clone(), authority.client(client)?));
    }
    let path = |name: &str, ending: &str| args.out.join(format!("{name}.{ending}"));
    let ca = path("ca", "pem");
    let paths = made.iter().flat_map(|(name, _)| [path(name, "pem"), path(name, "key")]);
    for path in paths.chain([ca.clone()]) {
        ensure!(
            args.force || !path.exists(),
            "{}: is there already; use another folder or --force",
            path.display()
        );
    }
    make_folder(&args.out)?;
    write_atomic(&ca, authority.certificate().as_bytes())?;
    for (name, TrialCertificate { certificate, key, .. }) in &made {
        write_secret(&path(name, "key"), key.as_bytes())?;
        write_atomic(&path(name, "pem"), certificate.as_bytes())?;
    }
    let fingerprint = made[0].1.credentials()?.fingerprint()?;
    let names: Vec<&String> = made.iter().map(|(name, _)| name).collect();
    if args.json {
        let folder = args.out.display().to_string();
        outln!("{}", json!({ "folder": folder, "names": names, "fingerprint": fingerprint.to_string() }))?;
        return Ok(());
    }
    outln!("authority    {}", ca.display())?;
    for name in names {
        outln!("{name:12} {}, {}", path(name, "pem").display(), path(name, "key").display())?;
    }
    outln!("fingerprint  {fingerprint}  (of the server's key)")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_clients_are_names_of_files() {
        for name in ["north", "st-mary_2", "a.b"] {
            assert_eq!(parse_name(name), Ok(name.to_owned()));
        }
        for name in ["", "ca", "server", "../x", "a/b", ".hidden", "-x", "a b"] {
            assert!(parse_name(name).is_err(), "{name}");
        }
    }
}
