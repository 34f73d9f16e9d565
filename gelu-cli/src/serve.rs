//! `gelu serve`

mod training;
mod web;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use gelu_io::files::make_folder;
use gelu_models::infer::ServerModel;
use gelu_models::plan::Reveal;
use gelu_service::{ClientSecurity, Ledger, Limits, Modes, Patience, Service, WorkerPool};

use self::training::TrainArgs;
use self::web::WebArgs;
use crate::config::ConfigArgs;
use crate::given::Given;
use crate::model::{Loaded, ModelArgs};
use crate::model_args::{Numbers, backend};
use crate::serving::ServingArgs;
use crate::tls_args::{TlsFiles, credentials};

/// Offer models to clients on other machines, who send ciphertexts and keep their data and keys.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  For a trial on one machine (stop it with Ctrl-C):
    gelu serve --model lenet5 --insecure

  For clients on other machines, with certificates of `gelu certs` or of an authority of your own:
    gelu serve --model lenet5 --listen 0.0.0.0:7443 --client-ca certs/ca.pem \\
        --tls-cert certs/server.pem --tls-key certs/server.key

  With all of that in a file, as --print-config writes one:
    gelu serve --config serve.toml

  For browsers, too, on this machine, with the page that gelu-web/build makes:
    gelu serve --model lenet5 --modes any --insecure --web gelu-web/site

  Several models, under names of their own, of which one is no secret:
    gelu serve --model digits=lenet5 xrays=xrays.safetensors \\
        --modes xrays=class digits=any --insecure

  With the products computed by two other machines (`gelu worker`):
    gelu serve --model lenet5 --modes revealed --insecure \\
        --workers http://127.0.0.1:7444 http://127.0.0.1:7445

  Have two hospitals train a network, each on its own digits (`gelu client train`):
    gelu serve --train --model lenet5 --clients 2 --epochs 1 --state run \\
        --listen 0.0.0.0:7443 --client-ca certs/ca.pem \\
        --tls-cert certs/server.pem --tls-key certs/server.key")]
pub(crate) struct ServeArgs {
    /// Models to offer: model files or networks by name, NAME= in front for another name.
    #[arg(long = "model", value_name = "[NAME=]FILE|NETWORK", num_args = 1.., default_value = "lenet5")]
    models: Vec<OfferArg>,
    /// What clients see of the models, or of the one of a name: hidden (the outputs and nothing between), class (the class of an
    /// input and nothing else), revealed (every layer's weighted sums, from which the weights can be solved: SECURITY.md), any
    /// (as the client chooses) [default: hidden].
    #[arg(long, value_name = "[NAME=]MODE", num_args = 1..)]
    modes: Vec<ModesArg>,
    /// Where to listen: 0.0.0.0 for all of the machine's addresses, port 0 for any that is free.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7443")]
    listen: SocketAddr,
    #[command(flatten)]
    web: WebArgs,
    #[command(flatten)]
    numbers: Numbers,
    /// Conversations at a time. Each takes a thread, and memory for the tensors of two batches.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096), help_heading = "Limits")]
    sessions: u32,
    /// Conversations of one client's certificate at a time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096), help_heading = "Limits")]
    sessions_per_client: u32,
    /// Connections of one client's certificate at a time, of 256 that there are for all [default: twice
    /// --sessions-per-client, 32 at least].
    #[arg(long, value_name = "CONNECTIONS", value_parser = clap::value_parser!(u32).range(1..=4096), help_heading = "Limits")]
    connections_per_client: Option<u32>,
    /// Seconds that a client may say nothing while the server waits for it.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Limits")]
    silence: u32,
    /// Seconds that a conversation is kept for a client whose connection broke.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Limits")]
    absence: u32,
    /// Keep account of what each client asks for, and runs of training, in this folder, over restarts (`gelu state` shows
    /// them).
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Inputs of each model that each client's certificate may have in all: with enough of them, a client can solve for the
    /// weights (SECURITY.md) [default: any number].
    #[arg(long, value_name = "INPUTS", requires = "state", help_heading = "Limits", value_parser = clap::value_parser!(u64).range(1..))]
    budget: Option<u64>,
    /// Inputs of each model that each client's certificate may have in an hour [default: any number].
    #[arg(long, value_name = "INPUTS", requires = "state", help_heading = "Limits", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Machines that compute the replies, each of them running `gelu worker` with the same models. What is hidden from clients is
    /// computed here.
    #[arg(long, value_name = "URL", num_args = 1.., help_heading = "Workers")]
    workers: Vec<String>,
    /// The authority that the workers' certificates come from.
    #[arg(long, value_name = "FILE.pem", requires = "workers", help_heading = "Workers")]
    workers_ca: Option<PathBuf>,
    /// The certificate that this server shows them.
    #[arg(long, value_name = "FILE.pem", requires = "workers", help_heading = "Workers")]
    workers_cert: Option<PathBuf>,
    /// Its private key, which only its owner may be able to read.
    #[arg(long, value_name = "FILE.key", requires = "workers", help_heading = "Workers")]
    workers_key: Option<PathBuf>,
    #[command(flatten)]
    serving: ServingArgs,
    #[command(flatten)]
    training: TrainArgs,
    #[command(flatten)]
    _config: ConfigArgs,
}

/// A model, and the name that it is offered under.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OfferArg {
    name: Option<String>,
    model: PathBuf,
}

impl FromStr for OfferArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, model)) if !name.is_empty() && !model.is_empty() => {
                Ok(Self { name: Some(name.to_owned()), model: model.into() })
            }
            Some(_) => Err(format!("expected NAME=FILE or NAME=NETWORK, found `{text}`")),
            None => Ok(Self { name: None, model: text.into() }),
        }
    }
}

impl OfferArg {
    /// The name that was given, else that of the network or of the file without its ending.
    fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| match self.model.extension() {
            Some(_) => {
                self.model.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
            }
            None => self.model.display().to_string(),
        })
    }

    /// Reads the model, to be rounded as these numbers say.
    pub(crate) fn load(&self, numbers: &Numbers) -> anyhow::Result<Arc<ServerModel>> {
        let Loaded { model, .. } = ModelArgs::of(&self.model).load()?;
        let quantization = numbers.quantization(&model);
        Ok(Arc::new(ServerModel::new(model, quantization)))
    }
}

/// The names of models, no two of them the same.
pub(crate) fn names(offers: &[OfferArg]) -> anyhow::Result<Vec<String>> {
    let mut names = vec![];
    for offer in offers {
        let name = offer.name();
        ensure!(
            !names.contains(&name),
            "--model: two models are called {name}; NAME=FILE gives one another name"
        );
        names.push(name);
    }
    Ok(names)
}

/// What clients see of a model, or of all that are not named.
#[derive(Clone, Debug, PartialEq)]
struct ModesArg {
    model: Option<String>,
    modes: Modes,
}

impl FromStr for ModesArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (model, mode) = match text.split_once('=') {
            Some((model, mode)) => (Some(model.to_owned()), mode),
            None => (None, text),
        };
        let modes = match mode {
            "hidden" => Modes::hidden(Reveal::Logits),
            "class" => Modes::hidden(Reveal::Class),
            "revealed" => Modes::revealed(),
            "any" => Modes::any(),
            other => return Err(format!("expected hidden, class, revealed or any, found `{other}`")),
        };
        Ok(Self { model, modes })
    }
}

impl ServeArgs {
    /// The machines that compute, if there are others.
    fn workers(&self) -> anyhow::Result<Option<WorkerPool>> {
        if self.workers.is_empty() {
            return Ok(None);
        }
        let files = TlsFiles {
            certificate: (self.workers_cert.as_deref(), "--workers-cert"),
            key: (self.workers_key.as_deref(), "--workers-key"),
            authority: (self.workers_ca.as_deref(), "--workers-ca"),
        };
        let security = credentials(&files, self.serving.is_insecure())?
            .map_or(ClientSecurity::Loopback, |credentials| ClientSecurity::Tls { credentials, known: None });
        let patience = Patience { answer: Duration::from_secs(120), ..Patience::default() };
        Ok(Some(WorkerPool::new(&self.workers, &security, patience)?))
    }

    /// What clients see of a model.
    fn modes(&self, model: &str) -> Modes {
        let named = |name: Option<&str>| self.modes.iter().rfind(|arg| arg.model.as_deref() == name);
        named(Some(model)).or_else(|| named(None)).map_or_else(Modes::default, |arg| arg.modes)
    }
}

pub(crate) fn run(args: &ServeArgs, given: &Given) -> anyhow::Result<()> {
    args.training.check(given)?;
    args.serving.start_log();
    let security = args.serving.security()?;
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let defaults = Limits::default();
    let limits = Limits {
        sessions: args.sessions as usize,
        sessions_per_client: args.sessions_per_client as usize,
        connections_per_client: args
            .connections_per_client
            .map_or(defaults.connections_per_client.max(2 * args.sessions_per_client as usize), |most| {
                most as usize
            }),
        silence: seconds(args.silence),
        absence: seconds(args.absence),
        grace: args.serving.grace(),
        ..defaults
    };
    let mut service = Service::new(limits).on(backend()?);
    if let Some(folder) = &args.state {
        make_folder(folder)?;
        service = service.with_ledger(Arc::new(Ledger::open(folder)?), args.budget);
    }
    if let Some(rate) = args.rate {
        service = service.with_rate(rate);
    }
    service = args.serving.with_metrics(service);
    if let Some(workers) = args.workers()? {
        service = service.with_workers(Arc::new(workers));
    }
    if let Some(web) = args.web.web()? {
        service = service.with_web(web);
    }
    let known: Vec<String> = args.models.iter().map(OfferArg::name).collect();
    if let Some(unknown) =
        args.modes.iter().filter_map(|arg| arg.model.as_ref()).find(|it| !known.contains(it))
    {
        bail!("--modes {unknown}=: expected one of {}", known.join(", "));
    }
    let names = names(&args.models)?;
    for (offer, name) in args.models.iter().zip(&names) {
        service = match args.state.as_deref().filter(|_| args.training.train) {
            Some(folder) => {
                service.with_training(name, args.training.training(&offer.model, name, folder)?)?
            }
            None => {
                let model = offer.load(&args.numbers)?;
                service.with_model(name, model, args.modes(name)).with_context(|| name.clone())?
            }
        };
    }
    args.serving.run(service, args.listen, &security, &names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_called_as_given_or_as_their_file() {
        for (text, name) in [
            ("lenet5", "lenet5"),
            ("mlp:12", "mlp:12"),
            ("folder/xrays.safetensors", "xrays"),
            ("digits=lenet5", "digits"),
            ("x=folder/xrays.safetensors", "x"),
        ] {
            assert_eq!(text.parse::<OfferArg>().map(|offer| offer.name()), Ok(name.to_owned()));
        }
        assert!("=lenet5".parse::<OfferArg>().is_err() && "x=".parse::<OfferArg>().is_err());
    }
}
