//! Sessions of private inference that hide the model, and their account.

use std::sync::Arc;

use gelu_models::infer::hidden::{Answer, Client, Event, Server};
use gelu_models::peer::{Part, Place};
use gelu_models::plan::Plan;
use ndarray::{ArrayView, Dimension};
use rand::CryptoRng;

use super::account::Slot;
use super::{Account, Observer, Role, RunError, Session, StepRecord, Work, WorkKind};
use crate::transport::{Disconnected, Transport};

/// What one side calls its steps: with the key's tables or random factors, before the plan, on a segment's masks, with its
/// circuits, and with an image.
struct Names {
    meanwhile: &'static str,
    opening: &'static str,
    masks: &'static str,
    circuits: &'static str,
    online: &'static str,
}

impl Account {
    /// Adds what was done of a session that hides the model, or before there was a plan.
    fn add_hidden(&mut self, plan: Option<&Arc<Plan>>, work: &Work, names: &Names) {
        if matches!(work.kind, WorkKind::Background | WorkKind::Idle) {
            return self.add((Slot::Opening(1), names.meanwhile.to_owned()), work, true);
        }
        let (Some(Place { round, part, .. }), Some(plan)) = (work.place, plan) else {
            return self.add((Slot::Opening(0), names.opening.to_owned()), work, false);
        };
        let preparation = |query: u32| query / plan.description().batch.max(1) as u32;
        let (segment, slot, what) = match part {
            Part::Inputs { segment, .. } | Part::Sums { segment } => {
                (segment, Slot::Ahead { round, segment, is_circuits: false }, names.masks)
            }
            Part::Choices { segment } | Part::Tables { segment } => {
                let round = preparation(round);
                (segment, Slot::Ahead { round, segment, is_circuits: true }, names.circuits)
            }
            Part::Shares { segment } | Part::Labels { segment } => {
                (segment, Slot::Query { query: round, segment }, names.online)
            }
            _ => return,
        };
        let name = plan.segments().get(segment as usize).map_or("", |segment| &segment.name);
        // Ahead both sides are busy at once.
        self.add((slot, format!("{what} {name}")), work, matches!(slot, Slot::Ahead { .. }));
    }
}

impl Observer<Client> for Account {
    fn did(&mut self, client: &Client, work: &Work) {
        let names = Names {
            meanwhile: "meanwhile: random factors",
            opening: "send the public key",
            masks: "encrypt masks, decrypt shares:",
            circuits: "ask for labels, take circuits:",
            online: "evaluate",
        };
        self.add_hidden(client.plan(), work, &names);
    }
}

impl Observer<Server> for Account {
    fn did(&mut self, server: &Server, work: &Work) {
        let names = Names {
            meanwhile: "meanwhile: tables",
            opening: "check key, make plan",
            masks: "multiply masks:",
            circuits: "garble",
            online: "multiply shares:",
        };
        self.add_hidden(server.program().map(|program| program.plan()), work, &names);
    }
}

/// A client's end of a session, ready for images.
#[derive(Debug)]
pub struct HiddenSession<T: Transport> {
    session: Session<T, Client, Account>,
}

impl<T: Transport> HiddenSession<T> {
    /// Sends the hello and waits for the server's plan.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn open(transport: T, client: Client, rng: &mut dyn CryptoRng) -> Result<Self, RunError> {
        let mut session = Session::new(transport, client, Account::new(Role::Client));
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

    /// Ends the session and hands over the account of its steps.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn finish(mut self, rng: &mut dyn CryptoRng) -> Result<Vec<StepRecord>, RunError> {
        self.end(rng)?;
        Ok(self.into_steps())
    }

    /// Ends the session: nothing can be sent through it any more.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn end(&mut self, rng: &mut dyn CryptoRng) -> Result<(), RunError> {
        self.session.ask(None, Client::finish)?;
        self.session.step(rng)?;
        Ok(())
    }

    /// Returns the account of its steps, also where it broke off.
    pub fn into_steps(self) -> Vec<StepRecord> {
        self.session.into_parts().1.into_records()
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

    use super::super::{Phase, serve};
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
        let served = thread::spawn(move || serve(far, server, &mut ChaCha20Rng::seed_from_u64(2)));
        let client = Client::new(key, 2, Reveal::Logits);
        let mut session = HiddenSession::open(near, client, rng).unwrap();
        session.prepare(rng).unwrap();
        assert_eq!(session.client().prepared(), 2);
        let Answer::Logits(outcome) = session.infer(images.view(), rng).unwrap() else { panic!("logits") };
        assert_eq!(outcome.integers, expected.integers);
        let own = session.finish(rng).unwrap();
        let (other, ended) = served.join().unwrap();
        ended.unwrap();
        let of = |steps: &[StepRecord], phase| {
            let steps: Vec<StepRecord> = steps.iter().filter(|step| step.phase == phase).cloned().collect();
            let sum = |of: fn(&StepRecord) -> usize| steps.iter().map(of).sum::<usize>();
            let bytes = [sum(|step| step.bytes_in), sum(|step| step.bytes_out)];
            let ciphertexts = [sum(|step| step.ciphertexts_in), sum(|step| step.ciphertexts_out)];
            (
                bytes,
                ciphertexts,
                steps.iter().map(|step| step.products + step.checks).sum::<u64>(),
                steps.len(),
            )
        };
        // Two preparations of two queries each, of two layers: masks of both, circuits of one. Three images.
        for (phase, count) in [(Phase::Ahead, 2 * 3), (Phase::Online, 3 * 2)] {
            let ((sent, own_ct, _, steps), (heard, other_ct, operations, others)) =
                (of(&own, phase), of(&other, phase));
            assert_eq!((steps, others), (count, count));
            assert!(sent[0] > 0 && sent[1] > 0);
            assert_eq!(
                (sent[0], sent[1], own_ct[0], own_ct[1]),
                (heard[1], heard[0], other_ct[1], other_ct[0])
            );
            assert_eq!((own_ct[0] > 0, operations > 0), (phase == Phase::Ahead, phase == Phase::Ahead));
        }
        let names: Vec<&str> = other.iter().take(5).map(|step| &step.step[..]).collect();
        assert_eq!(names[names.len() - 3..], ["multiply masks: fc1", "garble fc1", "multiply masks: fc2"]);
    }
}
