//! What a server does within a turn: it grants it, computes sums and products with masked weights, and takes steps.

use std::ops::Range;
use std::sync::Arc;

use gelu_tensor::paillier::PublicKey;
use gelu_tensor::{Decryption, EncChunk, EncRate, EncTensorBuilder, Flood, LinearMap, MapWeights};
use rand::CryptoRng;

use super::super::{Message, PRIVATE_VERSION, Position, PrivateError, TrainPlan, TrainSegment};
use super::{Change, Server, ServerTurn, Stage, TurnState};
use crate::peer::exchange::{TensorProduct, sum_of_products};
use crate::peer::{Expected, Part};
use crate::plan::Layout;

impl Server {
    pub(super) fn take(
        &mut self,
        message: Message,
        rng: &mut dyn CryptoRng,
    ) -> Result<Option<Change>, PrivateError> {
        let found = message.to_string();
        match message {
            Message::Abort { reason } => Err(PrivateError::Aborted(reason)),
            Message::Join { version, client, key } if self.turn.is_none() => {
                if version != PRIVATE_VERSION {
                    return Err(PrivateError::Version { expected: PRIVATE_VERSION, found: version });
                }
                let key = key.on(self.key.public_key().backend())?;
                let granted = self.begin(client, key, rng)?;
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

    fn begin(
        &mut self,
        client: u32,
        key: PublicKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<Message, PrivateError> {
        let (expected, found) = (self.plan.description().client_key.size, key.size());
        if expected != found {
            return Err(PrivateError::KeySize { expected, found });
        }
        let state = match self.interrupted.take() {
            Some(turn)
                if turn.client == client
                    && self.coordinator.allows(client, turn.grant.iterations.saturating_add(turn.again)) =>
            {
                turn
            }
            vanished => {
                if let Some(turn) = vanished {
                    self.coordinator.note(turn.client, turn.seen());
                }
                let (grant, rate) = self.coordinator.grant(client)?;
                let masked = self.coordinator.state().parameters.clone();
                TurnState { client, grant, rate, done: 0, again: 0, masked }
            }
        };
        let rate = EncRate::encrypt(state.rate, &self.key, rng)?;
        let message = Message::Turn {
            description: Box::new(self.plan.description().clone()),
            grant: state.grant.clone(),
            done: state.done,
            key: self.key.public_key().clone(),
            rate,
        };
        let stage = Stage::exchange(&self.plan, 0);
        self.turn = Some(ServerTurn { client: key, state, stage, again: (0, 0) });
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
        let own = Position { turn: turn.state.grant.turn, iteration: turn.state.done, ..position };
        if position.part == Part::Update && Some(position.iteration) == turn.state.done.checked_sub(1) {
            let again = Position { iteration: position.iteration, ..own };
            return match position == again {
                true => self.update_again(position, chunk, ciphertexts).map(|()| None),
                false => Err(again.instead_of(position)),
            };
        }
        let place = |part: Part| {
            let expected = Position { part, ..own };
            if position == expected { Ok(()) } else { Err(expected.instead_of(position)) }
        };
        match &mut turn.stage {
            Stage::Exchange { index, inputs } => {
                let exchange = &plan.exchanges()[*index];
                let Some(&part) = inputs.due().and_then(|due| exchange.ups.get(due)) else {
                    let (expected, found) = (Expected::Nothing, position.to_string());
                    return Err(PrivateError::Unexpected { expected, found });
                };
                place(part)?;
                let layout = plan.product(exchange.down)?.layout;
                let header = plan.header(part)?;
                let begin = || EncTensorBuilder::new(&turn.client, header, layout.groups_of_part());
                inputs.push((chunk, ciphertexts), begin)?;
            }
            // After the errors of the first segment a turn may go on or end.
            Stage::Steps(arrival) => {
                let part = match (&arrival, position.part) {
                    (Some((part, _)), _) => *part,
                    (None, Part::Total) => Part::Total,
                    (None, _) => Part::Update,
                };
                place(part)?;
                let (_, mut steps) = match arrival.take() {
                    Some(arrival) => arrival,
                    None => (part, Decryption::new(key.public_key(), plan.header(part)?)?),
                };
                steps.push(chunk, ciphertexts, &key)?;
                match steps.is_complete() {
                    false => *arrival = Some((part, steps)),
                    true if part == Part::Total => {
                        self.end(steps)?;
                        return Ok(Some(Change::Ended));
                    }
                    true => {
                        self.update(steps)?;
                        return Ok(Some(Change::Updated));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Takes the steps of an iteration.
    fn update(&mut self, steps: Decryption) -> Result<(), PrivateError> {
        let (plan, ring) = (self.plan.clone(), self.plan.numbers().ring);
        let turn = self.turn.as_mut().ok_or(PrivateError::Bug("no turn is in progress"))?;
        if turn.state.done + 1 >= turn.state.grant.iterations {
            let position =
                Position { turn: turn.state.grant.turn, iteration: turn.state.done, part: Part::Total };
            return Err(position.instead_of(Position { part: Part::Update, ..position }));
        }
        let size = self.key.public_key().size();
        let steps = plan.update_layout().read(size, turn.state.rate, &steps.finish_residues()?)?;
        for (weight, step) in turn.state.masked.iter_mut().zip(steps.iter()) {
            *weight = ring.wrap(weight.wrapping_sub(*step));
        }
        let iteration = turn.state.done;
        turn.state.done += 1;
        turn.again = (0, 0);
        turn.stage = Stage::exchange(&plan, 0);
        self.outgoing.push_back(Message::Updated { turn: turn.state.grant.turn, iteration });
        Ok(())
    }

    /// An update that was sent twice is taken once: the second time it is only counted.
    fn update_again(
        &mut self,
        Position { turn: number, iteration, .. }: Position,
        chunk: u32,
        ciphertexts: &EncChunk,
    ) -> Result<(), PrivateError> {
        let count = self.plan.update_layout().ciphertexts(self.key.public_key().size())?;
        let turn = self.turn.as_mut().ok_or(PrivateError::Bug("no turn is in progress"))?;
        let (expected, found) = (turn.again.0, turn.again.1 + ciphertexts.ciphertext_count());
        if chunk != expected || found > count {
            return Err(gelu_tensor::Error::Order { expected, found: chunk }.into());
        }
        turn.again = (chunk + 1, found);
        if found == count {
            turn.again = (0, 0);
            self.outgoing.push_back(Message::Updated { turn: number, iteration });
        }
        Ok(())
    }

    /// Ends the turn with the sum of its steps (Algorithm 5).
    fn end(&mut self, totals: Decryption) -> Result<(), PrivateError> {
        let totals = totals.finish()?;
        let turn = self.turn.as_ref().ok_or(PrivateError::Bug("no turn is in progress"))?;
        let (client, number) = (turn.state.client, turn.state.grant.turn);
        let iterations = (turn.state.done + 1, turn.state.again, turn.state.rate);
        self.coordinator.finish(client, iterations, &totals.values()[..self.plan.parameters()])?;
        self.turn = None;
        self.outgoing.push_back(Message::Ended { turn: number });
        Ok(())
    }

    /// Computes the next part of the answer to an exchange whose tensors have come.
    pub(super) fn advance(&mut self, rng: &mut dyn CryptoRng) -> Result<(), PrivateError> {
        let plan = self.plan.clone();
        let Some(ServerTurn { client, state, stage, .. }) = &mut self.turn else { return Ok(()) };
        let Stage::Exchange { index, inputs } = stage else { return Ok(()) };
        let Some((at, tensors)) = inputs.next_part() else { return Ok(()) };
        let exchange = &plan.exchanges()[*index];
        let Multiplication { layout, flood, terms, bias } = plan.product(exchange.down)?;
        let Some((_, part)) = layout.each_part().nth(at) else { return Ok(()) };
        let exponents = client.hiding_exponents(rng, part.hiding);
        let shape = plan.header(exchange.down)?.shape;
        let products = terms.iter().zip(tensors.iter().zip(&part.products));
        let products = products.map(|((map, weights), (input, product))| {
            let weights = MapWeights::Residues { values: &state.masked[weights.clone()], flood };
            TensorProduct { input, map, weights, product }
        });
        let (sums, fresh) = rayon::join(
            || sum_of_products(products, &shape)?.repack(layout.down.stacked()),
            || exponents.powers(),
        );
        let bias = bias.map_or(vec![], |segment| segment.bias(&state.masked));
        let sums = sums?.flood(&bias, rng)?.rerandomize_with(fresh, rng);
        let position = Position { turn: state.grant.turn, iteration: state.done, part: exchange.down };
        let chunks = inputs.number(sums.chunks()).into_iter();
        let message = |(index, ciphertexts)| Message::Tensor { position, index, ciphertexts };
        self.outgoing.extend(chunks.map(message));
        if inputs.is_answered() {
            *stage = Stage::exchange(&plan, *index + 1);
        }
        Ok(())
    }
}

/// What a server computes for a tensor of sums or products.
struct Multiplication<'a> {
    layout: &'a Layout,
    flood: Flood,
    /// The maps, and where their weights lie among all parameters.
    terms: Vec<(&'a Arc<LinearMap>, Range<usize>)>,
    /// The segment whose biases are added.
    bias: Option<&'a TrainSegment>,
}

impl TrainPlan {
    fn product(&self, part: Part) -> Result<Multiplication<'_>, PrivateError> {
        let absent =
            || PrivateError::Model { rule: "the plan must have the tensor", found: part.to_string() };
        match part {
            Part::Sums { segment } => {
                let segment = self.segments().get(segment as usize).ok_or_else(absent)?;
                let terms = segment.terms.iter();
                Ok(Multiplication {
                    layout: &segment.layout,
                    flood: segment.flood,
                    terms: terms.map(|term| (&term.map, term.layer.weights.clone())).collect(),
                    bias: Some(segment),
                })
            }
            Part::Products { segment, term } => {
                let segment = self.segments().get(segment as usize).ok_or_else(absent)?;
                let term = segment.terms.get(term as usize).ok_or_else(absent)?;
                let back = term.back.as_ref().ok_or_else(absent)?;
                Ok(Multiplication {
                    layout: &back.layout,
                    flood: back.flood,
                    terms: vec![(&back.map, term.layer.weights.clone())],
                    bias: None,
                })
            }
            _ => Err(absent()),
        }
    }
}
