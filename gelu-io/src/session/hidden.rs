//! Sessions of private inference that hide the model, and their account: what was done ahead, and what with the images.

use gelu_models::infer::hidden::{Answer, Client, Event, Server};
use gelu_models::peer::{Part, Peer, Place};
use ndarray::{ArrayView, Dimension};
use rand::CryptoRng;
use serde::Serialize;

use super::{Observer, RunError, Session, Work, WorkKind};
use crate::transport::{Disconnected, Transport};

/// What one side did in a part of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Phase {
    /// Time that it was busy: decoding, computing and encoding, without waiting.
    pub seconds: f64,
    /// Bytes that it received.
    pub bytes_in: usize,
    /// Bytes that it sent.
    pub bytes_out: usize,
    /// Ciphertexts that it received or sent.
    pub ciphertexts: usize,
    /// Operations mod n^2 on the other side's ciphertexts, with those of checking them.
    pub operations: u64,
}

/// The account of one side of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct HiddenAccount {
    /// Keys, plans and the beginning of transfers.
    pub opening: Phase,
    /// What was done before there was an image.
    pub ahead: Phase,
    /// What was done with images.
    pub online: Phase,
    /// Shares of a segment's inputs that were sent or received: one for each round trip of each image.
    pub round_trips: u64,
}

impl<P> Observer<P> for HiddenAccount {
    fn did(&mut self, _: &P, work: &Work) {
        let phase = match work.place.map(|place| place.part) {
            Some(Part::Inputs { .. } | Part::Sums { .. } | Part::Choices { .. } | Part::Tables { .. }) => {
                &mut self.ahead
            }
            Some(_) => &mut self.online,
            None => &mut self.opening,
        };
        phase.seconds += work.seconds;
        match work.kind {
            WorkKind::Took => phase.bytes_in += work.bytes,
            WorkKind::Made => phase.bytes_out += work.bytes,
            WorkKind::Idle | WorkKind::Background => {}
        }
        phase.ciphertexts += work.place.map_or(0, |place| place.ciphertexts);
        phase.operations += work.operations.computing.total() + work.operations.checking.total();
        let is_shares = |place: Place| matches!(place.part, Part::Shares { .. });
        self.round_trips += u64::from(work.bytes > 0 && work.place.is_some_and(is_shares));
    }
}

/// Serves one session until the client ends it; the account comes back with how it ended.
pub fn serve_hidden(
    transport: impl Transport,
    server: Server,
    rng: &mut dyn CryptoRng,
) -> (HiddenAccount, Result<(), RunError>) {
    let mut session = Session::new(transport, server, HiddenAccount::default());
    let served = session.step(rng).map(|_| ());
    (session.into_parts().1, served)
}

/// A client's end of a session, ready for images.
#[derive(Debug)]
pub struct HiddenSession<T: Transport> {
    session: Session<T, Client, HiddenAccount>,
}

impl<T: Transport> HiddenSession<T> {
    /// Sends the hello and waits for the server's plan.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn open(transport: T, client: Client, rng: &mut dyn CryptoRng) -> Result<Self, RunError> {
        let mut session = Session::new(transport, client, HiddenAccount::default());
        match session.step(rng)? {
            Some(_) => Ok(Self { session }),
            None => Err(Disconnected.into()),
        }
    }

    /// Returns the state machine: its plan, its key, and what is in stock.
    pub fn client(&self) -> &Client {
        self.session.peer()
    }

    /// Prepares as many queries as are prepared together.
    ///
    /// # Errors
    /// [`RunError`]; the session is over then.
    pub fn prepare(&mut self, rng: &mut dyn CryptoRng) -> Result<(), RunError> {
        self.session.ask(None, Client::prepare)?;
        while self.client().is_preparing() {
            self.session.step(rng)?.ok_or(Disconnected)?;
        }
        Ok(())
    }

    /// Sends images, `[images, elements]` or of the model's input shape, through the network, with what is in stock; where that
    /// is not enough, more is prepared.
    ///
    /// # Errors
    /// [`RunError`]; the session is over then.
    pub fn infer<D: Dimension>(
        &mut self,
        images: ArrayView<'_, f32, D>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Answer, RunError> {
        let place = Place { round: 0, part: Part::Shares { segment: 0 }, index: 0, ciphertexts: 0 };
        self.session.ask(Some(place), |client| client.start(images))?;
        loop {
            if let Event::Done(answer) = self.session.step(rng)?.ok_or(Disconnected)? {
                return Ok(answer);
            }
        }
    }

    /// Returns the account so far.
    pub fn account(&self) -> HiddenAccount {
        *self.session.observer()
    }

    /// Ends the session and hands over its account.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn finish(mut self, rng: &mut dyn CryptoRng) -> Result<HiddenAccount, RunError> {
        self.session.ask(None, Client::finish)?;
        while !self.client().is_closed() {
            self.session.step(rng)?;
        }
        Ok(self.session.into_parts().1)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use gelu_layers::Initializer;
    use gelu_models::ModelBuilder;
    use gelu_models::infer::ServerModel;
    use gelu_models::plan::{Deployment, Quantization, Reveal};
    use gelu_tensor::paillier::{KeyBits, SecretKey};
    use ndarray::Array2;
    use rand::{SeedableRng, rngs::ChaCha20Rng};

    use super::*;
    use crate::transport::InProcess;

    #[test]
    fn sessions_that_hide_the_model_tell_ahead_from_online() {
        let rng = &mut ChaCha20Rng::seed_from_u64(1);
        let mut model = ModelBuilder::new([4]).dense("fc1", 3).relu().dense("fc2", 2).build().unwrap();
        model.initialize(Initializer::KaimingUniform, rng);
        let images = Array2::from_shape_fn((3, 4), |(i, j)| (i + j) as f32 / 6.0);
        model.calibrate(images.view()).unwrap();
        let program = model.compile(&Quantization::default(), &Deployment::default()).unwrap();
        let expected = program.run_clear(images.view()).unwrap();
        let key = Arc::new(SecretKey::generate(KeyBits::Bits1024, rng).unwrap());
        let (near, far) = InProcess::pair();
        let server = Server::new(Arc::new(ServerModel::new(model, Quantization::default())));
        let served = thread::spawn(move || serve_hidden(far, server, &mut ChaCha20Rng::seed_from_u64(2)));
        let client = Client::new(key, 2, Reveal::Logits);
        let mut session = HiddenSession::open(near, client, rng).unwrap();
        session.prepare(rng).unwrap();
        assert_eq!((session.client().prepared(), session.account().online), (2, Phase::default()));
        let ahead = session.account().ahead;
        assert!(ahead.ciphertexts > 0 && ahead.bytes_in > ahead.bytes_out / 10 && ahead.seconds > 0.0);
        let Answer::Logits(outcome) = session.infer(images.view(), rng).unwrap() else { panic!("logits") };
        assert_eq!(outcome.integers, expected.integers);
        let own = session.finish(rng).unwrap();
        let (other, ended) = served.join().unwrap();
        ended.unwrap();
        // Two layers of three images; what one side sends the other receives, but for the farewell.
        assert_eq!((own.round_trips, other.round_trips), (6, 6));
        assert_eq!(
            (own.online.bytes_out, own.online.bytes_in),
            (other.online.bytes_in, other.online.bytes_out)
        );
        assert_eq!((own.ahead.bytes_out, own.ahead.bytes_in), (other.ahead.bytes_in, other.ahead.bytes_out));
        assert_eq!((own.online.ciphertexts, other.online.operations), (0, 0));
        assert!(other.ahead.operations > 0 && own.ahead.ciphertexts == other.ahead.ciphertexts);
    }
}
