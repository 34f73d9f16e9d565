//! The data owner's side: finding a server, seeing what it offers, and conversations that survive broken connections.

mod conversation;
mod dial;
mod membership;
#[cfg(test)]
mod tests;
mod training;

use std::sync::Arc;
use std::time::{Duration, Instant};

use gelu_models::plan::Reveal;
use gelu_models::{Interface, ModelInfo};
use gelu_tensor::Shape;
use tokio::runtime::Runtime;

pub use self::conversation::RemoteTransport;
use self::conversation::{About, Topic};
pub(crate) use self::dial::Dialer;
pub use self::membership::{Membership, TrainingOffer};
pub use self::training::{Moment, RemoteTraining};
use crate::{ClientSecurity, Fingerprint, Refusal, SERVICE_VERSION, ServiceError, proto};

/// How long a client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a connection to be made, its handshake included. Default: 10 s.
    pub connect: Duration,
    /// For an answer, as long as there is a connection: the server may be busy with other clients. Default: 10 minutes.
    pub answer: Duration,
    /// For a broken connection to be made again. Default: 2 minutes, as long as a server keeps the conversation.
    pub reconnect: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(600),
            reconnect: Duration::from_secs(120),
        }
    }
}

/// A model that a server offers.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Its name there.
    pub name: String,
    /// How its inputs are prepared and what its outputs mean.
    pub interface: Interface,
    /// What an input costs where the client sees every layer's weighted sums; `None` where it is not offered so.
    pub revealed: Option<Cost>,
    /// What an input costs where the model is hidden from the client; `None` where it is not offered so.
    pub hidden: Option<HiddenCost>,
    /// The run in which it is trained; `None` where it is offered for inference. A model in training has no costs.
    pub training: Option<TrainingOffer>,
}

/// What one input costs under a DJN key of 2,048 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Ciphertexts and bytes from client to server.
    pub up: (u64, u64),
    /// Ciphertexts and bytes from server to client.
    pub down: (u64, u64),
    /// The server's products mod n^2.
    pub products: u64,
    /// Times that the client waits for an answer.
    pub round_trips: u32,
}

/// What one input costs where the model is hidden, under a DJN key of 2,048 bits and prepared alone: several at a time cost
/// less each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HiddenCost {
    /// What a client may learn at most.
    pub reveal: Reveal,
    /// Bytes from client to server and back before the input is there.
    pub ahead: (u64, u64),
    /// The server's products mod n^2, all ahead.
    pub products: u64,
    /// ANDs of the garbled circuits.
    pub ands: u64,
    /// Bytes from client to server and back with the input.
    pub online: (u64, u64),
    /// Times that the client waits for an answer with the input.
    pub round_trips: u32,
}

/// A server, from a client's side. Cloning it shares the connection's settings and threads.
#[derive(Clone, Debug)]
pub struct Remote {
    dialer: Arc<Dialer>,
    runtime: Arc<Runtime>,
    is_hidden: bool,
}

impl Remote {
    /// Returns the server at an address such as `https://host:7443`, which is not connected to yet.
    ///
    /// # Errors
    /// [`ServiceError`] when the address is none, certificates cannot be used, or a server on another machine would be
    /// talked to without TLS.
    pub fn new(server: &str, security: &ClientSecurity, patience: Patience) -> Result<Self, ServiceError> {
        let dialer = Dialer::new(server, security, patience)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("gelu-remote")
            .enable_all()
            .build()
            .map_err(|error| dialer.unreachable(error.to_string()))?;
        Ok(Self { dialer: Arc::new(dialer), runtime: Arc::new(runtime), is_hidden: false })
    }

    /// Returns the same server for conversations in which the model is hidden from this client.
    pub fn hiding_model(self) -> Self {
        Self { is_hidden: true, ..self }
    }

    /// Returns its address.
    pub fn server(&self) -> &str {
        self.dialer.server()
    }

    /// Returns the key that the server showed when it was last connected to; `None` before, and without TLS.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.dialer.shown()
    }

    /// Asks which models there are.
    ///
    /// # Errors
    /// [`ServiceError`] when the server cannot be reached or refuses.
    pub fn offers(&self) -> Result<Vec<Offer>, ServiceError> {
        self.runtime.block_on(async {
            let mut client = self.dialer.dial().await?;
            let request = proto::ListModelsRequest { version: SERVICE_VERSION };
            let answer = self.dialer.in_time(client.list_models(request)).await?;
            let models = answer.map_err(|status| self.dialer.failure(&status))?.into_inner().models;
            models.into_iter().map(Self::offer).collect()
        })
    }

    /// Asks for the model of that name.
    ///
    /// # Errors
    /// [`ServiceError`] as [`offers`](Self::offers), and when there is none of that name.
    pub fn find(&self, model: &str) -> Result<Offer, ServiceError> {
        let offers = self.offers()?;
        let names: Vec<String> = offers.iter().map(|offer| offer.name.clone()).collect();
        offers.into_iter().find(|offer| offer.name == model).ok_or_else(|| ServiceError::Refused {
            server: self.server().to_owned(),
            refusal: Refusal::UnknownModel,
            message: format!("the models here are {}", names.join(", ")),
        })
    }

    /// Begins a conversation about a model.
    ///
    /// # Errors
    /// [`ServiceError`] when the server cannot be reached or refuses.
    pub fn open(&self, model: &str) -> Result<RemoteTransport, ServiceError> {
        self.open_about(Topic { model: model.to_owned(), about: About::Inputs { is_hidden: self.is_hidden } })
    }

    fn open_about(&self, topic: Topic) -> Result<RemoteTransport, ServiceError> {
        RemoteTransport::open(Arc::clone(&self.dialer), Arc::clone(&self.runtime), topic)
    }

    /// Begins another conversation about a model after one that ended with a [restart](ServiceError::is_restart): tries again
    /// while the server cannot be reached or takes none, for as long as a broken connection may take.
    ///
    /// # Errors
    /// [`ServiceError`] as [`open`](Self::open).
    pub fn open_again(&self, model: &str) -> Result<RemoteTransport, ServiceError> {
        let (since, limit) = (Instant::now(), self.dialer.patience().reconnect);
        let mut pause = Duration::from_millis(50);
        loop {
            match self.open(model) {
                Err(error) if error.may_pass() && since.elapsed() + pause < limit => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                opened => return opened,
            }
        }
    }

    /// What a server says of a model is checked as everything from outside.
    pub(crate) fn offer(model: proto::Model) -> Result<Offer, ServiceError> {
        let wrong = |found: String| ServiceError::Stream {
            expected: "a list of models with shapes, preprocessing and costs",
            found,
        };
        let extents: Option<Vec<usize>> =
            model.input.iter().map(|&extent| usize::try_from(extent).ok()).collect();
        let input = Shape::from(&extents.ok_or_else(|| wrong(format!("the shape {:?}", model.input)))?[..]);
        let outputs = usize::try_from(model.outputs).map_err(|error| wrong(error.to_string()))?;
        let preprocessing = match &model.preprocessing[..] {
            "" => None,
            text => Some(serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?),
        };
        let info = ModelInfo { preprocessing, classes: model.classes, provenance: [].into() };
        let interface = Interface { input, outputs, info };
        if let Some(fault) = interface.fault() {
            return Err(wrong(fault));
        }
        let revealed = model.cost.map(|cost| Cost {
            up: (cost.ciphertexts_up, cost.bytes_up),
            down: (cost.ciphertexts_down, cost.bytes_down),
            products: cost.products,
            round_trips: cost.round_trips,
        });
        let hidden = model.hidden.map(|cost| HiddenCost {
            reveal: if cost.logits { Reveal::Logits } else { Reveal::Class },
            ahead: (cost.ahead_up, cost.ahead_down),
            products: cost.products,
            ands: cost.ands,
            online: (cost.online_up, cost.online_down),
            round_trips: cost.round_trips,
        });
        let training = model.training.map(TrainingOffer::read).transpose()?;
        Ok(Offer { name: model.name, interface, revealed, hidden, training })
    }
}
