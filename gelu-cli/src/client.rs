//! `gelu client`: the data owner's side of two machines.

mod known;
mod train;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use gelu_models::Interface;
use gelu_models::plan::Reveal;
use gelu_net::InferenceClient;
use gelu_service::{ClientSecurity, Cost, HiddenCost, Offer, Patience, Remote, RemoteTransport};
use serde_json::{Value, json};

use self::known::KnownServers;
use crate::config::ConfigArgs;
use crate::given::Given;
use crate::hide::reveal_name;
use crate::infer::{Asked, Pool, Run, progress_bar};
use crate::output::{note, outln};
use crate::report::TextTable;
use crate::tls_args::{TlsFiles, credentials};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the models of a server, with what a client has to send them and what one input costs.
    #[command(after_help = "\
Example:
    gelu client models --server https://gelu.example.org:7443 \\
        --tls-cert certs/north.pem --tls-key certs/north.key --server-ca certs/ca.pem")]
    Models(ModelsArgs),
    /// Classify images or rows of a table with the model of a server, which sees ciphertexts only.
    #[command(after_help = "\
Examples:
  On one machine, with `gelu serve --insecure` in another terminal:
    gelu client infer --server http://127.0.0.1:7443 --insecure --images digit.png

  On two machines, with certificates of `gelu certs`:
    gelu client infer --server https://gelu.example.org:7443 \\
        --tls-cert certs/north.pem --tls-key certs/north.key --server-ca certs/ca.pem \\
        --model lenet5 --dataset mnist --count 100 --batch 50")]
    Infer(Box<InferArgs>),
    /// Train a model of a server together with others, who take turns: the server sees ciphertexts only.
    ///
    /// The first time, the client gets a place in the run; the run begins when as many have come as the server waits for.
    /// What the client needs to go on is kept in --state before every update, so the same command goes on after an
    /// interruption of either side, and the weights are those of an undisturbed run.
    #[command(after_help = "\
Examples:
  Two clients on one machine, each with half of 600 digits, and a server in a third terminal:
    gelu serve --train --model lenet5 --clients 2 --epochs 1 --state run --insecure
    gelu client train --server http://127.0.0.1:7443 --insecure \\
        --dataset mnist --limit 600 --part 1/2 --state north
    gelu client train --server http://127.0.0.1:7443 --insecure \\
        --dataset mnist --limit 600 --part 2/2 --state south

  With certificates of `gelu certs`, and pictures of one's own in folders by class:
    gelu client train --server https://gelu.example.org:7443 \\
        --tls-cert certs/north.pem --tls-key certs/north.key --server-ca certs/ca.pem \\
        --dataset pictures/")]
    Train(Box<train::TrainArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct ModelsArgs {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    _config: ConfigArgs,
}

#[derive(Debug, Args)]
pub(crate) struct InferArgs {
    /// The model's name on the server [default: the only one that it offers].
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    #[command(flatten)]
    asked: Asked,
    /// See every layer's weighted sums, where the server offers it: that takes fewer bytes. Without this, the model is hidden
    /// where it is offered so.
    #[arg(long, conflicts_with_all = ["hide_model", "reveal", "prepare", "prepared_memory"], help_heading = "Hidden model")]
    revealed: bool,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    _config: ConfigArgs,
}

/// Which server, and how to be sure of each other.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
struct ServerArgs {
    /// The server's address.
    #[arg(long, value_name = "https://HOST:PORT")]
    server: String,
    /// This client's certificate, and those between it and its authority, in PEM.
    #[arg(long, value_name = "FILE.pem")]
    tls_cert: Option<PathBuf>,
    /// Its private key, which only its owner may be able to read.
    #[arg(long, value_name = "FILE.key")]
    tls_key: Option<PathBuf>,
    /// The authority that the server's certificate must come from.
    #[arg(long, value_name = "FILE.pem")]
    server_ca: Option<PathBuf>,
    /// Without TLS, for a server on this machine.
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key", "server_ca"])]
    insecure: bool,
    /// Where the keys of known servers are kept, and what this client needs to go on with training: a server that shows
    /// another key later is not talked to [default: the per-user state folder].
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

impl ServerArgs {
    /// The folder of this client's state.
    fn folder(&self) -> anyhow::Result<PathBuf> {
        known::state_folder(self.state.as_deref())
    }

    /// Reaches the server and lists its models. Its key must be the known one, and is known from then on.
    fn reach(&self) -> anyhow::Result<(Remote, Vec<Offer>)> {
        let files = TlsFiles {
            certificate: (self.tls_cert.as_deref(), "--tls-cert"),
            key: (self.tls_key.as_deref(), "--tls-key"),
            authority: (self.server_ca.as_deref(), "--server-ca"),
        };
        let Some(credentials) = credentials(&files, self.insecure)? else {
            let remote = Remote::new(&self.server, &ClientSecurity::Loopback, Patience::default())?;
            let offers = remote.offers()?;
            return Ok((remote, offers));
        };
        let servers = KnownServers::locate(self.state.as_deref())?;
        let known = servers.find(&self.server)?;
        let security = ClientSecurity::Tls { credentials, known };
        let remote = Remote::new(&self.server, &security, Patience::default())?;
        let offers = remote.offers().with_context(|| match known {
            Some(_) => format!("with the server's key as in {}", servers.path().display()),
            None => "at the first contact with this server".to_owned(),
        })?;
        if let (None, Some(found)) = (known, remote.fingerprint()) {
            servers.add(&self.server, found)?;
            note!(
                "note: first contact with {}: its key {found} is kept in {}",
                self.server,
                servers.path().display()
            );
        }
        Ok((remote, offers))
    }
}

pub(crate) fn run(command: &Command, given: &Given) -> anyhow::Result<()> {
    match command {
        Command::Models(args) => models(args),
        Command::Infer(args) => infer(args, given),
        Command::Train(args) => train::run(args),
    }
}

fn models(args: &ModelsArgs) -> anyhow::Result<()> {
    let (remote, offers) = args.server.reach()?;
    if args.json {
        let models: Vec<Value> = offers.iter().map(to_json).collect();
        let fingerprint = remote.fingerprint().map(|fingerprint| fingerprint.to_string());
        outln!("{}", json!({ "server": remote.server(), "fingerprint": fingerprint, "models": models }))?;
        return Ok(());
    }
    let (in_training, offers): (Vec<&Offer>, Vec<&Offer>) =
        offers.iter().partition(|offer| offer.training.is_some());
    if !in_training.is_empty() {
        let mut table =
            TextTable::new(["in training", "input", "classes", "clients", "iterations", "batch", "keys"]);
        for (offer, training) in in_training.iter().filter_map(|offer| Some((offer, offer.training?))) {
            table.row([
                offer.name.clone(),
                offer.interface.input.to_string(),
                offer.interface.outputs.to_string(),
                format!("{} of {}", training.enrolled, training.clients),
                format!("{} of {}", training.done, training.iterations),
                training.batch.to_string(),
                format!("{} {}", training.key.key_type.name(), training.key.size),
            ]);
        }
        outln!("{}", table.to_string().trim_end())?;
        if offers.is_empty() {
            return Ok(());
        }
        outln!("")?;
    }
    let mut table = TextTable::new([
        "model",
        "input",
        "outputs",
        "you see",
        "round trips",
        "kB up",
        "kB down",
        "kB up ahead",
        "kB down ahead",
        "server's products",
    ]);
    let kilobytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e3);
    for offer in offers {
        let row = |sees: &str, costs: [String; 6]| {
            let Interface { input, outputs, .. } = &offer.interface;
            let model = [offer.name.clone(), input.to_string(), outputs.to_string(), sees.to_owned()];
            model.into_iter().chain(costs).collect::<Vec<_>>()
        };
        if let Some(cost) = offer.hidden {
            let HiddenCost { online, ahead, .. } = cost;
            let [online, ahead] = [online, ahead].map(|(up, down)| [kilobytes(up), kilobytes(down)]);
            let ([up, down], [ahead_up, ahead_down]) = (online, ahead);
            let costs =
                [cost.round_trips.to_string(), up, down, ahead_up, ahead_down, cost.products.to_string()];
            table.row(row(reveal_name(cost.reveal), costs));
        }
        if let Some(Cost { up, down, products, round_trips }) = offer.revealed {
            let (up, down) = (kilobytes(up.1), kilobytes(down.1));
            let costs =
                [round_trips.to_string(), up, down, String::new(), String::new(), products.to_string()];
            table.row(row("sums", costs));
        }
    }
    outln!(
        "{table}\nfor one input under a DJN key of 2048 bits; ahead is what a hidden model takes before the input is there"
    )?;
    Ok(())
}

fn to_json(offer: &Offer) -> Value {
    let training = offer.training.map(|training| {
        json!({
            "clients": training.clients, "enrolled": training.enrolled,
            "iterations_done": training.done, "iterations": training.iterations,
            "batch": training.batch, "epochs": training.epochs,
            "key_bits": training.key.size.bits(), "key_type": training.key.key_type.name(),
        })
    });
    json!({
        "training": training,
        "name": offer.name,
        "input": offer.interface.input.dims(),
        "outputs": offer.interface.outputs,
        "classes": offer.interface.info.classes,
        "preprocessing": offer.interface.info.preprocessing,
        "revealed": offer.revealed.map(|cost| json!({
            "round_trips": cost.round_trips,
            "ciphertexts_up": cost.up.0, "bytes_up": cost.up.1,
            "ciphertexts_down": cost.down.0, "bytes_down": cost.down.1,
            "products": cost.products,
        })),
        "hidden": offer.hidden.map(|cost| json!({
            "reveal": reveal_name(cost.reveal),
            "round_trips": cost.round_trips,
            "bytes_up": cost.online.0, "bytes_down": cost.online.1,
            "bytes_up_ahead": cost.ahead.0, "bytes_down_ahead": cost.ahead.1,
            "products": cost.products, "ands": cost.ands,
        })),
    })
}

/// The offer of a name, or the only one of its kind.
fn choose<'a>(
    remote: &Remote,
    offers: &'a [Offer],
    model: Option<&str>,
    is_training: bool,
) -> anyhow::Result<&'a Offer> {
    let what = if is_training { "training" } else { "inference" };
    let offered = || offers.iter().filter(|offer| offer.training.is_some() == is_training);
    let names: Vec<&str> = offered().map(|offer| &offer.name[..]).collect();
    ensure!(!names.is_empty(), "{}: no model is offered for {what}", remote.server());
    match model {
        None if names.len() > 1 => bail!("--model NAME: expected one of {}", names.join(", ")),
        None => offered().next().context("an offer"),
        Some(name) => offered().find(|offer| offer.name == name).with_context(|| {
            format!("--model {name}: {} offers {} for {what}", remote.server(), names.join(", "))
        }),
    }
}

impl InferArgs {
    /// What the client is to learn of a hidden model; `None` where it is to see weighted sums.
    fn mode(&self, remote: &Remote, offer: &Offer) -> anyhow::Result<Option<Reveal>> {
        let (server, name, hide) = (remote.server(), &offer.name, self.asked.hide());
        let wants_hidden = hide.is_any();
        match offer.hidden {
            None => {
                ensure!(
                    !wants_hidden,
                    "--hide-model: {server} does not offer {name} hidden from its clients"
                );
                Ok(None)
            }
            Some(_) if self.revealed => {
                ensure!(offer.revealed.is_some(), "--revealed: {server} hides {name} from its clients");
                Ok(None)
            }
            Some(cost) => {
                let reveal = hide.reveal().unwrap_or(cost.reveal);
                ensure!(
                    (reveal, cost.reveal) != (Reveal::Logits, Reveal::Class),
                    "--reveal logits: {server} reveals the class of an input to {name} and no more"
                );
                Ok(Some(reveal))
            }
        }
    }
}

fn infer(args: &InferArgs, given: &Given) -> anyhow::Result<()> {
    let InferArgs { asked, .. } = args;
    asked.check(given)?;
    let (remote, offers) = args.server.reach()?;
    let offer = choose(&remote, &offers, args.model.as_deref(), false)?;
    let reveal = args.mode(&remote, offer)?;
    let input = asked.read(&offer.interface)?;
    let inputs = &input.read.inputs;
    let key = Arc::new(asked.key()?);
    let (parameters, backend) = (key.public_key().parameters(), key.public_key().backend());
    let mut client =
        InferenceClient::new(key, asked.batch(inputs.nrows())).preferring(asked.prefer()).going_on();
    let mut remote = remote;
    if let Some(reveal) = reveal {
        (client, remote) = (asked.hide().client(client, reveal), remote.hiding_model());
    }
    let start = Instant::now();
    if asked.pool() > 0 {
        client = client.with_pool(asked.pool(), &mut rand::rng());
    }
    let pool = client.pool().map(|pool| Pool::new(pool, start));
    let bar = progress_bar(inputs.nrows());
    let mut transport: Option<Arc<RemoteTransport>> = None;
    let connect = || -> anyhow::Result<_> {
        let opened = match transport.take().and_then(|last| last.why()) {
            Some(why) if why.is_restart() => {
                note!("note: {why}; what has no answer yet is sent again in another conversation");
                remote.open_again(&offer.name)?
            }
            Some(why) => return Err(why.into()),
            None => remote.open(&offer.name)?,
        };
        Ok(Arc::clone(transport.insert(Arc::new(opened))))
    };
    let ran = client.run(inputs.view(), &mut rand::rng(), connect, |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    // What the transport knows says more than that it is closed.
    let report = ran.map_err(|error| match transport.and_then(|transport| transport.why()) {
        Some(why) => why.into(),
        None => error,
    })?;
    let run = Run {
        model: offer.name.clone(),
        server: Some(remote.server().to_owned()),
        key: parameters,
        backend,
        pool,
        calibrated: None,
        scores: None,
    };
    asked.advise_on_batch(inputs.nrows(), &report.plan);
    asked.tell(&input, &report, &run)
}
