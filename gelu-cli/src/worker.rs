//! `gelu worker`

use std::net::SocketAddr;

use anyhow::Context;
use clap::Args;
use gelu_service::{Limits, Modes, Service};

use crate::config::ConfigArgs;
use crate::model_args::{Numbers, backend};
use crate::serve::{OfferArg, names};
use crate::serving::ServingArgs;

/// Compute for a server that has clients of its own: `gelu serve --workers` sends shards of its work (some rows of a layer, on
/// ciphertexts), and gets back the weighted sums. Models, --bits and release must be those of the server.
///
/// A worker sees ciphertexts, holds no key, and keeps nothing: any of them can be stopped at any time, and the server has another
/// one do what was lost. It computes whatever its clients ask for, so that only servers may have certificates of --client-ca.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  For a trial on one machine, with a server in a third terminal:
    gelu worker --model lenet5 --listen 127.0.0.1:7444 --insecure
    gelu worker --model lenet5 --listen 127.0.0.1:7445 --insecure
    gelu serve --model lenet5 --modes revealed --insecure \\
        --workers http://127.0.0.1:7444 http://127.0.0.1:7445

  On a machine of its own, for servers with certificates of an authority for workers (`gelu certs`):
    gelu worker --model lenet5 --listen 0.0.0.0:7444 --client-ca certs/ca.pem \\
        --tls-cert certs/server.pem --tls-key certs/server.key")]
pub(crate) struct WorkerArgs {
    /// Models to compute: model files or networks by name, the same as the server's.
    #[arg(long = "model", value_name = "FILE|NETWORK", num_args = 1.., default_value = "lenet5")]
    models: Vec<OfferArg>,
    /// Where to listen: 0.0.0.0 for all of the machine's addresses, port 0 for any that is free.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7444")]
    listen: SocketAddr,
    #[command(flatten)]
    numbers: Numbers,
    #[command(flatten)]
    serving: ServingArgs,
    #[command(flatten)]
    _config: ConfigArgs,
}

pub(crate) fn run(args: &WorkerArgs) -> anyhow::Result<()> {
    args.serving.start_log();
    let security = args.serving.security()?;
    let limits = Limits { grace: args.serving.grace(), ..Limits::default() };
    let mut service = args.serving.with_metrics(Service::new(limits).on(backend()?).as_worker());
    let names = names(&args.models)?;
    for (offer, name) in args.models.iter().zip(&names) {
        let model = offer.load(&args.numbers)?;
        service = service.with_model(name, model, Modes::revealed()).with_context(|| name.clone())?;
    }
    args.serving.run(service, args.listen, &security, &names)
}
