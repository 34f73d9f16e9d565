//! Machines that compute for a server: the coordinator's pool of them, and what each of them answers.

mod answer;
mod pool;
#[cfg(test)]
mod tests;

use gelu_models::plan::Program;
use hmac_sha256::Hash;

pub(crate) use self::answer::Prepared;
pub use self::pool::WorkerPool;

/// The most bytes of a request or a reply between a coordinator and a worker: the ciphertexts of one part of a batch.
pub(crate) const WORK_BYTES: usize = 1 << 26;

/// Tells programs apart by what they compute: the plan's description, and the integer weights and biases.
pub(crate) fn digest(program: &Program) -> Result<[u8; 32], String> {
    let mut hash = Hash::new();
    let description = serde_json::to_vec(program.plan().description()).map_err(|error| error.to_string())?;
    hash.update((description.len() as u64).to_le_bytes());
    hash.update(description);
    for segment in 0..program.plan().segments().len() {
        for weights in program.weights(segment) {
            hash.update((weights.values().len() as u64).to_le_bytes());
            weights.values().iter().for_each(|weight| hash.update(weight.to_le_bytes()));
        }
        let bias = program.bias(segment).map_err(|error| error.to_string())?;
        let values = bias.as_ref().map_or(&[][..], |bias| bias.values());
        hash.update((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| hash.update(value.to_le_bytes()));
    }
    Ok(hash.finalize())
}
