//! The paper's own protocol to the letter.

use std::sync::Arc;

use gelu_tensor::hazmat::{Exponent, Residues};
use gelu_tensor::paillier::{PublicKey, SecretKey};
use num_bigint::{BigInt, BigUint};
use rand::CryptoRng;

use super::coordinator::{Coordinator, CoordinatorState, MOST_RATE};
use super::participant::{Need, Participant};
use super::plan::{LayerSpan, TrainSegment};
use super::{CoordinatorConfig, ParticipantConfig, PrivateError, Samples, Statistics, TrainPlan};

/// The paper's own protocol to the letter (section 4, Algorithms 1 to 5), for dense networks: the reference for the fast
/// mode of [`Client`](super::Client) and [`Server`](super::Server), which masks nothing and packs.
///
/// Masks are uniform in Z_N, with N the server's modulus; the server's masked weights are scalars of full size; `1/eta`
/// is an exact inverse mod N; a ciphertext holds one number. Where the paper masks real numbers, these are the fast
/// mode's integers, so that all masks cancel exactly, and the weights are those of [`FixedTrainer`](super::FixedTrainer),
/// bit for bit.
///
/// A masked sum is an integer of up to N times the inputs' absolute values, which must not wrap in the client's plaintext
/// space before it is reduced mod N: so a client's key must be larger than the server's. The paper has keys of one size
/// and real numbers, where this question does not arise.
pub struct PaperTrainer {
    plan: Arc<TrainPlan>,
    coordinator: Coordinator,
    participants: Vec<Participant>,
    server: Arc<SecretKey>,
    clients: Vec<Arc<SecretKey>>,
    longest_scalar: u64,
}

/// What both sides hold in a turn. Both are here, since both sides are in one process; neither function below is given
/// more than its own side has.
struct PaperTurn {
    /// The server's: w - r mod N.
    masked: Vec<BigUint>,
    /// The client's: r mod N.
    masks: Vec<BigUint>,
    /// N.
    modulus: BigUint,
}

impl PaperTrainer {
    /// Returns a run of some clients from these parameters (as [`TrainPlan::quantize`] gives them), each with
    /// its key.
    ///
    /// # Errors
    /// [`PrivateError::Model`] when the network has other layers than dense ones; [`PrivateError::Setting`] when a
    /// client's key is not larger than the server's by as much as the network's sums need.
    pub fn new(
        plan: Arc<TrainPlan>,
        config: CoordinatorConfig,
        parameters: Vec<i64>,
        server: Arc<SecretKey>,
        clients: impl IntoIterator<Item = (Arc<SecretKey>, Arc<dyn Samples>, ParticipantConfig)>,
    ) -> Result<Self, PrivateError> {
        if let Some(segment) = plan.segments().iter().find(|segment| dense(segment).is_none()) {
            let rule = "the paper's mode trains dense layers only";
            return Err(PrivateError::Model { rule, found: segment.name.to_owned() });
        }
        let numbers = plan.numbers();
        if numbers.product_bits != numbers.weight_bits {
            return Err(PrivateError::Setting {
                what: "fractional bits of weights in products, in the paper's mode",
                expected: format!("{}, as weights have", numbers.weight_bits),
                found: numbers.product_bits.to_string(),
            });
        }
        let coordinator = Coordinator::new(plan.clone(), config, parameters)?;
        let (mut participants, mut keys) = (vec![], vec![]);
        // The largest sum of a scalar below N times inputs or errors, and a bias, is N times this.
        let most = plan.segments().iter().map(|segment| {
            let terms = segment.terms.iter().map(|term| term.map.most_terms() as u64 * term.format.bound());
            let sum = terms.sum::<u64>() + segment.bias_factor();
            let back = segment.terms.iter().filter_map(|term| term.back.as_ref());
            let products = back.map(|back| (back.map.most_terms() as u64) << plan.numbers().error_bits);
            products.fold(sum, u64::max)
        });
        let needed = server.public_key().modulus() * most.max().unwrap_or(1) * 2u8;
        for (key, samples, config) in clients {
            if key.public_key().modulus() <= needed {
                return Err(PrivateError::Setting {
                    what: "bits of a client's key, for the sums of the paper's mode",
                    expected: format!("more than {}", needed.bits()),
                    found: key.public_key().size().bits().to_string(),
                });
            }
            participants.push(Participant::new(plan.clone(), samples, config)?);
            keys.push(key);
        }
        if participants.is_empty() {
            return Err(PrivateError::no_clients());
        }
        Ok(Self { plan, coordinator, participants, server, clients: keys, longest_scalar: 0 })
    }

    /// Returns the parameters, and how far the run is.
    pub fn coordinator(&self) -> &CoordinatorState {
        self.coordinator.state()
    }

    /// Returns what the clients have met, one after another.
    pub fn statistics(&self) -> Vec<Statistics> {
        self.participants.iter().map(|participant| participant.state().statistics).collect()
    }

    /// Returns whether all iterations have been done.
    pub fn is_complete(&self) -> bool {
        self.coordinator.state().iterations >= self.coordinator.iterations()
    }

    /// Returns the bits of the longest scalar that the server has multiplied with so far.
    pub fn longest_scalar(&self) -> u64 {
        self.longest_scalar
    }

    /// Runs one turn of the client whose turn it is.
    ///
    /// # Errors
    /// [`PrivateError`]; [`PrivateError::Bug`] when masked weights and masks do not add up to the weights, which would
    /// be a bug.
    pub fn turn(&mut self, rng: &mut dyn CryptoRng) -> Result<(), PrivateError> {
        let at = (self.coordinator.state().turns % self.participants.len() as u64) as usize;
        let (grant, rate) = self.coordinator.grant(at as u32)?;
        let modulus = self.server.public_key().modulus();
        let key = self.clients[at].clone();
        let masked: Vec<BigUint> =
            self.coordinator.state().parameters.iter().map(|&w| residue(w, &modulus)).collect();
        let masks = vec![BigUint::ZERO; masked.len()];
        let mut turn = PaperTurn { masked, masks, modulus };
        // Algorithm 2, line 1: [1/eta] under the server's key.
        let server = self.server.public_key().clone();
        let inverse = BigUint::from(rate)
            .modinv(&turn.modulus)
            .ok_or(PrivateError::Bug("the rate has an inverse mod N"))?;
        let encrypted_inverse = Residues::encrypt(&*self.server, &[inverse], rng)?;
        debug_assert!(rate <= MOST_RATE);

        self.participants[at].begin(grant)?;
        let mut need = self.participants[at].proceed()?;
        let totals = loop {
            need = match need {
                Need::Sums(index, values) => {
                    let sums = self.exchange(&turn, (index, Pass::Forward), &values[0], &key, rng)?;
                    self.participants[at].sums(index, &sums)?
                }
                Need::Products([index, term], errors) => {
                    let products = self.exchange(&turn, (index, Pass::Backward), &errors, &key, rng)?;
                    self.participants[at].products([index, term], &products)?
                }
                Need::Nothing(steps) => {
                    let updates = mask(&server, &encrypted_inverse, &steps, &mut turn, rng)?;
                    self.update(rate, &updates, &mut turn)?;
                    let totals =
                        self.participants[at].state().turn.as_ref().map_or(&[][..], |(_, _, totals)| totals);
                    let expected = self.coordinator.after(rate, totals);
                    let meet =
                        turn.masked.iter().zip(&turn.masks).zip(&expected).all(|((masked, mask), &w)| {
                            (masked + mask) % &turn.modulus == residue(w, &turn.modulus)
                        });
                    if !meet {
                        return Err(PrivateError::Bug("masked weights and masks must add up to the weights"));
                    }
                    self.participants[at].proceed()?
                }
                Need::Total(totals) => break totals,
            };
        };
        // Algorithm 5: the sums of the true steps, encrypted under the server's key.
        let numbers: Vec<BigUint> = totals.iter().map(|&total| residue(total, &turn.modulus)).collect();
        let sent = Residues::encrypt(&server, &numbers, rng)?;
        let received = sent.decrypt(&self.server)?;
        let totals: Vec<i64> =
            received.iter().map(|number| centerd(number, &turn.modulus)).collect::<Result<_, _>>()?;
        let iterations = self.participants[at].state().turn.as_ref().map_or(0, |(_, done, _)| *done);
        self.participants[at].end();
        self.coordinator.finish(at as u32, (iterations, 0, rate), &totals)
    }

    /// Algorithms 1 and 2 with 4: the client encrypts, the server multiplies with masked weights, the client decrypts
    /// and takes its masks off.
    fn exchange(
        &mut self,
        turn: &PaperTurn,
        (index, pass): (usize, Pass),
        values: &[i64],
        key: &SecretKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<i64>, PrivateError> {
        let plan = self.plan.clone();
        let segment = &plan.segments()[index];
        let layer = dense(segment).ok_or(PrivateError::Bug("dense layers only"))?;
        let (rows, taps) = (layer.rows, layer.taps());
        let (inputs, outputs) = if pass == Pass::Forward { (taps, rows) } else { (rows, taps) };
        // Where the weight from an input to an output of this pass lies.
        let weight = |output: usize, input: usize| {
            layer.weights.start
                + if pass == Pass::Forward { output * taps + input } else { input * taps + output }
        };
        let public = key.public_key();
        let (images, own) = (plan.batch(), public.modulus());
        let scalar = |output: usize, of: &[BigUint]| match pass {
            Pass::Forward if !layer.biases.is_empty() => {
                &of[layer.biases.start + output] * segment.bias_factor()
            }
            Pass::Forward | Pass::Backward => BigUint::ZERO,
        };

        // Client.
        let numbers: Vec<BigUint> = values.iter().map(|&value| residue(value, &own)).collect();
        let sent = Residues::encrypt(key, &numbers, rng)?;

        // Server.
        let mut sums: Option<Residues> = None;
        for output in 0..outputs {
            let bias = vec![scalar(output, &turn.masked); images];
            let mut sum = Residues::encrypt(public, &bias, rng)?;
            for input in 0..inputs {
                let weight = &turn.masked[weight(output, input)];
                self.longest_scalar = self.longest_scalar.max(weight.bits());
                let column =
                    sent.select(&(0..images).map(|image| image * inputs + input).collect::<Vec<_>>())?;
                let product = column.power(public, &Exponent::of(public, weight)?)?;
                sum.multiply(public, &product)?;
            }
            match &mut sums {
                Some(sums) => sums.join(&sum)?,
                None => sums = Some(sum),
            }
        }
        let sums = sums.ok_or(PrivateError::Bug("a layer has outputs"))?;
        let answered = sums.hide(public, rng)?;

        // Client.
        let received = answered.decrypt(key)?;
        let mut out = vec![0; images * outputs];
        for (at, number) in received.iter().enumerate() {
            let (output, image) = (at / images, at % images);
            let mut sum = signed(number, &own) + BigInt::from(scalar(output, &turn.masks));
            for input in 0..inputs {
                sum +=
                    BigInt::from(turn.masks[weight(output, input)].clone()) * values[image * inputs + input];
            }
            let modulus = BigInt::from(turn.modulus.clone());
            let sum = ((sum % &modulus) + &modulus) % &modulus;
            out[image * outputs + output] = centerd(sum.magnitude(), &turn.modulus)?;
        }
        Ok(out)
    }

    /// Algorithm 2, line 11, and equation 2: the server takes masked gradients.
    fn update(&self, rate: u64, updates: &Residues, turn: &mut PaperTurn) -> Result<(), PrivateError> {
        let modulus = turn.modulus.clone();
        for (masked, update) in turn.masked.iter_mut().zip(updates.decrypt(&self.server)?) {
            let step = update * rate % &modulus;
            *masked = (&*masked + &modulus - step) % &modulus;
        }
        Ok(())
    }
}

/// Prints no secret.
impl std::fmt::Debug for PaperTrainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PaperTrainer").field("server", &self.server).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Forward,
    Backward,
}

/// Algorithm 3: the client's gradients, plus `1/eta` times uniform masks, under the server's key.
fn mask(
    server: &PublicKey,
    encrypted_inverse: &Residues,
    steps: &[i64],
    turn: &mut PaperTurn,
    rng: &mut dyn CryptoRng,
) -> Result<Residues, PrivateError> {
    let numbers: Vec<BigUint> = steps.iter().map(|&step| residue(step, &turn.modulus)).collect();
    let mut updates = Residues::encrypt(server, &numbers, rng)?;
    let mut masks: Option<Residues> = None;
    for mask in &mut turn.masks {
        let fresh = uniform(&turn.modulus, rng);
        let power = encrypted_inverse.power(server, &Exponent::of(server, &fresh)?)?;
        match &mut masks {
            Some(masks) => masks.join(&power)?,
            None => masks = Some(power),
        }
        *mask = (&*mask + fresh) % &turn.modulus;
    }
    if let Some(masks) = &masks {
        updates.multiply(server, masks)?;
    }
    Ok(updates.hide(server, rng)?)
}

/// A dense layer's place among the parameters.
fn dense(segment: &TrainSegment) -> Option<&LayerSpan> {
    match &segment.terms[..] {
        [only] => Some(&only.layer).filter(|layer| layer.shape.dims().len() == 2),
        _ => None,
    }
}

/// Uniform below `modulus`, by rejection.
fn uniform(modulus: &BigUint, rng: &mut dyn CryptoRng) -> BigUint {
    let bytes = modulus.bits().div_ceil(8) as usize;
    loop {
        let mut draw = vec![0; bytes];
        rng.fill_bytes(&mut draw);
        let number = BigUint::from_bytes_le(&draw);
        if &number < modulus {
            return number;
        }
    }
}

/// A signed integer mod n.
fn residue(value: i64, modulus: &BigUint) -> BigUint {
    let magnitude = BigUint::from(value.unsigned_abs());
    if value < 0 { modulus - magnitude } else { magnitude }
}

/// The representative nearest to zero.
fn signed(number: &BigUint, modulus: &BigUint) -> BigInt {
    if number * 2u8 > *modulus {
        BigInt::from(number.clone()) - BigInt::from(modulus.clone())
    } else {
        BigInt::from(number.clone())
    }
}

/// The same as an integer of 64 bits: sums are bounded so that they are.
fn centerd(number: &BigUint, modulus: &BigUint) -> Result<i64, PrivateError> {
    i64::try_from(signed(number, modulus)).map_err(|_| PrivateError::Bug("sums must have at most 64 bits"))
}
