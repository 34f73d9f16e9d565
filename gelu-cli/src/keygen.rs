//! `gelu keygen`

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;
use gelu_io::files::{write_atomic, write_secret};
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType};
use gelu_wire::{encode_public_key, encode_secret_key};
use serde_json::json;

use crate::model_args::{key_bits, key_type, new_key, warn_of_short_key};
use crate::output::{check_files, outln};

/// Make a key pair: NAME.key, which only its owner can read, and NAME.pub.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gelu keygen --out clinic
  gelu keygen --out phone --key-bits 2048 --key-type subgroup
  gelu keygen --out test --key-bits 1024 --force")]
pub(crate) struct KeygenArgs {
    /// Where to write: NAME.key and NAME.pub.
    #[arg(long, value_name = "NAME")]
    out: PathBuf,
    /// Bits of n.
    #[arg(long, value_parser = key_bits(), default_value = "3072")]
    key_bits: KeyBits,
    /// How the key is made.
    #[arg(long, value_parser = key_type(), default_value = "djn")]
    key_type: KeyType,
    /// Overwrite files that are there: data encrypted under their key is lost then.
    #[arg(long)]
    force: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &KeygenArgs) -> anyhow::Result<()> {
    let with_ending = |ending: &str| {
        let mut name = args.out.clone().into_os_string();
        name.push(ending);
        PathBuf::from(name)
    };
    let (secret, public) = (with_ending(".key"), with_ending(".pub"));
    for path in [&secret, &public] {
        ensure!(
            args.force || !path.exists(),
            "{}: is there already; use another name or --force",
            path.display()
        );
    }
    check_files([secret.as_path(), &public])?;
    let parameters = KeyParameters { size: args.key_bits, key_type: args.key_type };
    let KeyParameters { size, key_type } = parameters;
    warn_of_short_key(size);
    let key = new_key(parameters)?;
    write_secret(&secret, &encode_secret_key(&key)?)?;
    write_atomic(&public, &encode_public_key(key.public_key())?)?;
    let fingerprint = key.public_key().fingerprint_hex();
    if args.json {
        let object = json!({
            "key_bits": size.bits(), "key_type": key_type, "secret": secret.display().to_string(),
            "public": public.display().to_string(), "fingerprint": fingerprint,
        });
        outln!("{object}")?;
    } else {
        outln!("secret key   {}  (keep it to yourself)", secret.display())?;
        outln!("public key   {}", public.display())?;
        outln!("fingerprint  {fingerprint}")?;
    }
    Ok(())
}
