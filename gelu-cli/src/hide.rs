//! Options of commands that can hide the model from the client, and what they say of it.

use clap::Args;
use clap::builder::TypedValueParser;
use gelu_io::session::Phase;
use gelu_models::infer::hidden::Client;
use gelu_models::plan::{HiddenPlan, Reveal};
use gelu_net::{InferenceClient, InferenceReport, LocalInference, PhaseTotals};
use serde_json::{Value, json};

use crate::model_args::named;

use crate::given::{Given, WrongUsage};

/// Whether the model is hidden from the client.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Hidden model")]
pub(crate) struct HideArgs {
    /// Hide the model from the client too: it learns the outputs and nothing between. All work on ciphertexts is done ahead,
    /// so that an image is answered sooner; activations are garbled circuits, which take more bytes.
    #[arg(long)]
    hide_model: bool,
    /// What the client learns of a hidden model [default: logits].
    #[arg(long, value_parser = reveal(), value_name = "WHAT")]
    reveal: Option<Reveal>,
    /// Queries that are prepared together, of which each image takes one: more are cheaper by the image, and fewer where memory
    /// has no room for so many [default: as many as there are images, in equal parts of at most 25].
    #[arg(long, value_name = "QUERIES", value_parser = clap::value_parser!(u32).range(1..=256))]
    prepare: Option<u32>,
    /// Memory of the client for queries that are prepared and not yet used, in MB: one of LeNet-5 takes 2, one of ResNet-20
    /// some 300, as `gelu plan --hide-model` says of a model [default: 1000].
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u32).range(1..))]
    prepared_memory: Option<u32>,
}

fn reveal() -> impl TypedValueParser<Value = Reveal> {
    named([
        ("logits", Reveal::Logits, "The outputs of the last layer"),
        ("class", Reveal::Class, "Which of them is the largest, and no more"),
    ])
}

impl HideArgs {
    /// Refuses options about a hidden model where it is not hidden.
    pub(crate) fn check(&self, given: &Given) -> Result<(), WrongUsage> {
        match self.hide_model {
            true => Ok(()),
            false => given.refuse(&["reveal", "prepare", "prepared_memory"], "it is about --hide-model"),
        }
    }

    /// Whether the model is to be hidden.
    pub(crate) fn is_asked(&self) -> bool {
        self.hide_model
    }

    /// What the client is to learn of a hidden model, if that was said.
    pub(crate) fn reveal(&self) -> Option<Reveal> {
        self.reveal
    }

    /// Queries that are prepared together, if that was said.
    pub(crate) fn prepare(&self) -> Option<usize> {
        self.prepare.map(|queries| queries as usize)
    }

    /// Whether anything was said of a hidden model.
    pub(crate) fn is_any(&self) -> bool {
        self.hide_model || self.reveal.is_some() || self.prepare.is_some() || self.prepared_memory.is_some()
    }

    /// Bytes of memory for prepared queries, if they were said.
    fn memory(&self) -> Option<usize> {
        self.prepared_memory.map(|megabytes| megabytes as usize * 1_000_000)
    }

    /// How many queries may be prepared, by a plan.
    pub(crate) fn most_prepared(&self, hidden: &HiddenPlan) -> usize {
        hidden.most_prepared(self.memory().unwrap_or(Client::MEMORY))
    }

    /// A client from which the model is hidden.
    pub(crate) fn client(&self, client: InferenceClient, reveal: Reveal) -> InferenceClient {
        let mut client = client.hiding_model(reveal);
        if let Some(queries) = self.prepare() {
            client = client.preparing(queries);
        }
        match self.memory() {
            Some(bytes) => client.keeping(bytes),
            None => client,
        }
    }

    /// Local inference in the mode that was asked for.
    pub(crate) fn local(&self, local: LocalInference) -> LocalInference {
        match self.hide_model {
            true => local.with_client(|client| self.client(client, self.reveal().unwrap_or_default())),
            false => local,
        }
    }
}

/// The name of what a client learns.
pub(crate) fn reveal_name(reveal: Reveal) -> &'static str {
    match reveal {
        Reveal::Logits => "logits",
        Reveal::Class => "class",
    }
}

/// ANDs of all circuits of an image.
pub(crate) fn ands(hidden: &HiddenPlan) -> usize {
    hidden.segments().iter().map(|segment| segment.ands).sum()
}

/// Adds to a report which mode it was, and what a hidden model took.
pub(crate) fn add_to(object: &mut Value, report: &InferenceReport) {
    let Some(hidden) = &report.hidden else {
        object["mode"] = "revealed".into();
        return;
    };
    let phase = |phase, seconds: f64| {
        let mut totals = json!(report.phase(phase));
        totals["seconds"] = seconds.into();
        totals
    };
    object["mode"] = "hidden".into();
    object["reveal"] = reveal_name(hidden.reveal()).into();
    object["prepared"] = report.prepared().into();
    object["prepared_together"] = report.plan.description().batch.into();
    object["round_trips"] = hidden.round_trips().into();
    object["ands"] = ands(hidden).into();
    object["ahead"] = phase(Phase::Ahead, report.seconds_ahead);
    object["online"] = phase(Phase::Online, report.seconds_online);
}

/// What a hidden model took, for people; nothing where it was not hidden.
pub(crate) fn text(report: &InferenceReport) -> String {
    let Some(hidden) = &report.hidden else { return String::new() };
    let (images, prepared) = (report.predictions.len(), report.prepared());
    let busy = |totals: &PhaseTotals| {
        let server = totals.server_seconds.map_or(String::new(), |server| format!("server {server:.3} s, "));
        format!("{server}client {:.3} s", totals.client_seconds)
    };
    let each = |bytes: usize, of: usize| bytes as f64 / 1e3 / of.max(1) as f64;
    let (ahead, online) = (report.phase(Phase::Ahead), report.phase(Phase::Online));
    format!(
        "hidden model    the client learns the {}; {} ANDs and {} round trips an image; {} queries prepared together\n\
         ahead           {:.3} s, {:.1} ms a query of {prepared} ({}), {:.1} kB up and {:.1} kB down each\n\
         online          {:.3} s, {:.1} ms an image ({}), {:.1} kB up and {:.1} kB down each\n",
        reveal_name(hidden.reveal()),
        ands(hidden),
        hidden.round_trips(),
        report.plan.description().batch,
        report.seconds_ahead,
        1e3 * report.seconds_ahead / prepared.max(1) as f64,
        busy(&ahead),
        each(ahead.bytes_up, prepared),
        each(ahead.bytes_down, prepared),
        report.seconds_online,
        1e3 * report.seconds_online / images.max(1) as f64,
        busy(&online),
        each(online.bytes_up, images),
        each(online.bytes_down, images),
    )
}
