//! What a server does within a turn: it grants it, computes sums and products with the weights of its beginning, and takes the
//! sum of its steps.
//!
//! The client knows its own steps, but not the learning rate. So the server multiplies with weights that stay as they are, and
//! what the steps have changed comes from the client: an encrypted correction of each sum, which the server multiplies with
//! the rate and adds.

use gelu_tensor::paillier::PublicKey;
use gelu_tensor::{Decryption, EncChunk, EncTensorBuilder};
use rand::CryptoRng;

use super::super::coordinator::RATE_BITS;
use super::super::plan::Multiplication;
use super::super::{Message, PRIVATE_VERSION, Position, PrivateError};
use super::{Change, Server, ServerTurn, Stage, TurnState};
use crate::peer::exchange::{TensorProduct, sum_of_products};
use crate::peer::{Expected, Part};

impl Server {
    pub(super) fn take(&mut self, message: Message) -> Result<Option<Change>, PrivateError> {
        let found = message.to_string();
        match message {
            Message::Abort { reason } => Err(PrivateError::Aborted(reason)),
            Message::Join { version, client, key } if self.turn.is_none() => {
                if version != PRIVATE_VERSION {
                    return Err(PrivateError::Version { expected: PRIVATE_VERSION, found: version });
                }
                let key = key.on(self.key.public_key().backend())?;
                let granted = self.begin(client, key)?;
                self.outgoing.push_back(granted);
                Ok(Some(Change::Granted))
            }
            Message::Tensor { position, index, ciphertexts } if self.turn.is_some() => {
                self.tensor(position, index, &ciphertexts)
            }
            _ => {
                let expected = if self.turn.is_none() { Expected::Join } else { Expected::Ciphertexts };
                Err(PrivateError::Unexpected { expected, found })
            }
        }
    }

    fn begin(&mut self, client: u32, key: PublicKey) -> Result<Message, PrivateError> {
        let (expected, found) = (self.plan.description().client_key.size, key.size());
        if expected != found {
            return Err(PrivateError::KeySize { expected, found });
        }
        let (state, begun) = match self.interrupted.take() {
            Some(turn)
                if turn.client == client
                    && self.coordinator.allows(client, turn.grant.iterations.saturating_add(turn.again)) =>
            {
                let begun = turn.done + 1;
                (turn, begun)
            }
            vanished => {
                if let Some(turn) = vanished {
                    self.coordinator.note(turn.client, turn.seen());
                }
                let (grant, rate) = self.coordinator.grant(client)?;
                (TurnState { client, grant, rate, done: 0, again: 0 }, 0)
            }
        };
        let message = Message::Turn {
            description: Box::new(self.plan.description().clone()),
            grant: state.grant.clone(),
            begun,
            key: self.key.public_key().clone(),
        };
        let multiplications = self.plan.multiplications(&self.coordinator.state().parameters)?;
        let (stage, is_resumed) = (Stage::Between, begun > 0);
        self.turn = Some(ServerTurn { client: key, state, stage, is_resumed, multiplications });
        Ok(message)
    }

    /// Takes a chunk of the tensor that is due.
    fn tensor(
        &mut self,
        position: Position,
        chunk: u32,
        ciphertexts: &EncChunk,
    ) -> Result<Option<Change>, PrivateError> {
        let (plan, key) = (self.plan.clone(), self.key.clone());
        let turn = self.turn.as_mut().ok_or(PrivateError::Bug("no turn is in progress"))?;
        let (grant, mut change) = (&turn.state.grant, None);
        if let Stage::Between = turn.stage {
            // A client that was interrupted may have done the iteration that was in progress.
            let done = position.iteration.saturating_add(u32::from(position.part == Part::Total));
            if std::mem::take(&mut turn.is_resumed) && done == turn.state.done + 1 && done <= grant.iterations
            {
                turn.state.done = done;
            }
            let (done, is_total) = (turn.state.done, position.part == Part::Total);
            if done > 0 && (is_total || done == grant.iterations) {
                turn.stage = Stage::Total(Decryption::new(key.public_key(), plan.header(Part::Total)?)?);
            } else {
                turn.stage = Stage::exchange(&plan, 0, done);
                change = (done > 0).then_some(Change::Iterated);
            }
        }
        let place = |part: Part| {
            let iteration = turn.state.done - u32::from(part == Part::Total);
            let expected = Position { turn: grant.turn, iteration, part };
            if position == expected { Ok(()) } else { Err(expected.instead_of(position)) }
        };
        match &mut turn.stage {
            Stage::Between => return Err(PrivateError::Bug("a plan has exchanges")),
            Stage::Exchange { index, inputs } => {
                let exchange = &plan.exchanges()[*index];
                let Some(&part) = inputs.due().and_then(|due| exchange.ups(turn.state.done).get(due)) else {
                    let (expected, found) = (Expected::Nothing, position.to_string());
                    return Err(PrivateError::Unexpected { expected, found });
                };
                place(part)?;
                let layout = &turn.multiplications[*index].layout;
                let header = plan.header(part)?;
                let begin = || EncTensorBuilder::new(&turn.client, header, layout.groups_of_part());
                inputs.push((chunk, ciphertexts), begin)?;
            }
            Stage::Total(totals) => {
                place(Part::Total)?;
                totals.push(chunk, ciphertexts, &key)?;
                if totals.is_complete() {
                    self.end()?;
                    return Ok(Some(Change::Ended));
                }
            }
        }
        Ok(change)
    }

    /// Ends the turn with the sum of its steps (Algorithm 5).
    fn end(&mut self) -> Result<(), PrivateError> {
        let turn = self.turn.as_mut().ok_or(PrivateError::Bug("no turn is in progress"))?;
        let Stage::Total(totals) = std::mem::replace(&mut turn.stage, Stage::Between) else {
            return Err(PrivateError::Bug("no turn is at its end"));
        };
        let (totals, state) = (totals.finish()?, &turn.state);
        let (client, number) = (state.client, state.grant.turn);
        let iterations = (state.done, state.again, state.rate);
        self.coordinator.finish(client, iterations, &totals.values()[..self.plan.parameters()])?;
        self.turn = None;
        self.outgoing.push_back(Message::Ended { turn: number });
        Ok(())
    }

    /// Computes the next part of the answer to an exchange whose tensors have come.
    pub(super) fn advance(&mut self, rng: &mut dyn CryptoRng) -> Result<(), PrivateError> {
        let Some(turn) = &mut self.turn else { return Ok(()) };
        let ServerTurn { client, state, stage, multiplications, .. } = turn;
        let Stage::Exchange { index, inputs } = stage else { return Ok(()) };
        let Some((at, tensors)) = inputs.next_part() else { return Ok(()) };
        let Multiplication { layout, terms, bias, shape, format } = &multiplications[*index];
        let (corrections, tensors) = tensors.split_at(tensors.len() - terms.len());
        let Some((_, part)) = layout.each_part().nth(at) else { return Ok(()) };
        let exponents = client.hiding_exponents(rng, part.hiding);
        let products = terms.iter().zip(tensors.iter().zip(&part.products));
        let products =
            products.map(|((map, weights), (input, product))| TensorProduct { input, map, weights, product });
        let sums = || {
            let sums = sum_of_products(products, shape)?;
            let sums = match bias {
                Some(bias) => sums.add_plain(bias)?,
                None => sums,
            };
            let sums = sums.repack(layout.down.stacked())?;
            // What the steps so far have changed.
            let sums = match corrections {
                [corrections] => sums.add(&corrections.scaled(state.rate, RATE_BITS)?)?,
                _ => sums,
            };
            sums.bounded_by(*format)
        };
        let (sums, fresh) = rayon::join(sums, || exponents.powers());
        let sums = sums?.rerandomize_with(fresh, rng);
        let down = self.plan.exchanges()[*index].down;
        let position = Position { turn: state.grant.turn, iteration: state.done, part: down };
        let chunks = inputs.number(sums.chunks()).into_iter();
        let message = |(index, ciphertexts)| Message::Tensor { position, index, ciphertexts };
        self.outgoing.extend(chunks.map(message));
        if inputs.is_answered() {
            *stage = Stage::exchange(&self.plan, *index + 1, state.done);
            state.done += u32::from(matches!(stage, Stage::Between));
        }
        Ok(())
    }
}
