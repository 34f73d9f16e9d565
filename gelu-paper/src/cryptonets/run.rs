use std::time::Instant;

use anyhow::ensure;
use fhe::bfv::Ciphertext;
use fhe_traits::Serialize;
use ndarray::Array2;
use rayon::prelude::*;

use super::{Network, Plan};
use crate::bfv::Channel;

/// What one step of a pass took, all channels together.
#[derive(Clone, Debug, PartialEq)]
pub struct PassStep {
    /// What was done.
    pub name: String,
    /// Ciphertexts that it gave.
    pub ciphertexts: usize,
    /// By all threads together.
    pub seconds: f64,
}

/// A pass of images through a network on ciphertexts.
#[derive(Clone, Debug, PartialEq)]
pub struct Pass {
    /// The outputs, `[outputs, images]`.
    pub outputs: Array2<i128>,
    /// From encryption to decryption; keys are made before.
    pub steps: Vec<PassStep>,
    /// The least noise budget that was left at the end, in bits.
    pub headroom: u32,
    /// Bytes of the ciphertexts that cross, there and back, as the crate encodes them.
    pub bytes: usize,
}

impl Pass {
    /// Returns what all steps took.
    pub fn seconds(&self) -> f64 {
        self.steps.iter().map(|step| step.seconds).sum()
    }

    /// Times a step, which every channel has.
    fn time<T>(&mut self, name: String, work: impl FnOnce() -> fhe::Result<(T, usize)>) -> fhe::Result<T> {
        let start = Instant::now();
        let (value, ciphertexts) = work()?;
        let seconds = start.elapsed().as_secs_f64();
        match self.steps.iter_mut().find(|step| step.name == name) {
            Some(step) => {
                step.seconds += seconds;
                step.ciphertexts += ciphertexts;
            }
            None => self.steps.push(PassStep { name, ciphertexts, seconds }),
        }
        Ok(value)
    }
}

/// Runs a network on integers, `[elements, images]` with at most as many images as slots, encrypted: channel after channel,
/// with all threads at each step.
///
/// # Errors
/// The crate's; when there are too many images.
pub fn run(
    network: &Network,
    plan: &Plan,
    integers: &Array2<i128>,
    mut progress: impl FnMut(&str),
) -> anyhow::Result<Pass> {
    let parameters = &plan.parameters;
    ensure!(
        integers.ncols() <= parameters.degree,
        "expected at most {} images, found {}",
        parameters.degree,
        integers.ncols()
    );
    let mut pass = Pass { outputs: Array2::zeros((0, 0)), steps: vec![], headroom: u32::MAX, bytes: 0 };
    let mut residues = vec![];
    for (number, &modulus) in parameters.plaintext_moduli.iter().enumerate() {
        progress(&format!("plaintext modulus {} of {}", number + 1, parameters.plaintext_moduli.len()));
        // Ciphertexts are relinearized between two squares: at the level of fresh ones, or one below.
        let channel = Channel::new(parameters, modulus, 2, &mut rand_fhe::rng())?;
        let outputs = through((network, plan), &channel, integers, &mut pass)?;
        let decrypt =
            || Ok((outputs.par_iter().map(|c| channel.decrypt(c)).collect::<fhe::Result<Vec<_>>>()?, 0));
        residues.push(pass.time("decrypt".to_owned(), decrypt)?);
        pass.bytes += encoded_bytes(&outputs);
        for output in &outputs {
            pass.headroom = pass.headroom.min(channel.headroom(output)?);
        }
    }
    let start = Instant::now();
    let classes = residues.first().map_or(0, Vec::len);
    pass.outputs = Array2::from_shape_fn((classes, integers.ncols()), |(class, image)| {
        parameters.combine(residues.iter().map(|channel| channel[class][image]))
    });
    let seconds = start.elapsed().as_secs_f64();
    pass.steps.push(PassStep { name: "combine the moduli".to_owned(), ciphertexts: 0, seconds });
    Ok(pass)
}

/// The bytes of ciphertexts that are all of a kind.
fn encoded_bytes(ciphertexts: &[Ciphertext]) -> usize {
    ciphertexts.first().map_or(0, |first| first.to_bytes().len() * ciphertexts.len())
}

/// The encrypted outputs of one channel.
fn through(
    (network, plan): (&Network, &Plan),
    channel: &Channel,
    integers: &Array2<i128>,
    pass: &mut Pass,
) -> fhe::Result<Vec<Ciphertext>> {
    let counted = |values: Vec<Ciphertext>| {
        let count = values.len();
        Ok((values, count))
    };
    let mut values = pass.time("encrypt".to_owned(), || {
        let rows: Vec<Vec<i128>> = integers.outer_iter().map(|row| row.to_vec()).collect();
        let encrypt = |row: &Vec<i128>| channel.encrypt(row, &mut rand_fhe::rng());
        counted(rows.par_iter().map(encrypt).collect::<fhe::Result<_>>()?)
    })?;
    pass.bytes += encoded_bytes(&values);
    let last = network.layers().len() - 1;
    for (place, layer) in network.layers().iter().enumerate() {
        values = pass.time(format!("affine map {}", place + 1), || {
            let mut sums = layer.apply(channel, &values)?;
            // After the sums there are fewer to relinearize than before.
            if place > 0 && place < last {
                sums.par_iter_mut().try_for_each(|sum| channel.relinearize(sum))?;
            }
            counted(sums)
        })?;
        if place < last {
            values = pass.time(format!("square {}", place + 1), || {
                let square = |x: Ciphertext| {
                    let mut square = &x * &x;
                    if place == 0 && plan.switches_down {
                        square.switch_down()?;
                    }
                    Ok(square)
                };
                counted(std::mem::take(&mut values).into_par_iter().map(square).collect::<fhe::Result<_>>()?)
            })?;
        }
    }
    Ok(values)
}
