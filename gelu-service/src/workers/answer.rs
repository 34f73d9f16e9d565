//! A worker's side: requests of coordinators, one computed after another.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use gelu_models::infer::ServerModel;
use gelu_models::plan::{Deployment, Preference, Program, Shard};
use gelu_tensor::EncTensor;
use gelu_tensor::paillier::PublicKey;
use gelu_wire::decode_public_key;
use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use tonic::{Request, Response, Status};
use tracing::debug;

use super::digest;
use crate::proto::worker_server::Worker;
use crate::server::{Shared, check_version};
use crate::{Refusal, proto};

/// How many keys, and plans for them, a worker keeps ready.
const MOST_PREPARED: usize = 32;

/// Programs that were asked for lately, each with the key that it is for: the tables of a key take as long as a reply.
#[derive(Debug, Default)]
pub(crate) struct Prepared(VecDeque<Ready>);

#[derive(Clone, Debug)]
struct Ready {
    /// The digest of the program, and the key as it came.
    asked: ([u8; 32], Vec<u8>),
    key: PublicKey,
    program: Program,
}

impl Prepared {
    /// What was asked for, if it is still there: it is the last to go then.
    fn find(&mut self, asked: &([u8; 32], Vec<u8>)) -> Option<Ready> {
        let at = self.0.iter().position(|ready| ready.asked == *asked)?;
        let ready = self.0.remove(at)?;
        self.0.push_back(ready.clone());
        Some(ready)
    }

    fn keep(&mut self, ready: Ready) {
        if self.0.len() >= MOST_PREPARED {
            self.0.pop_front();
        }
        self.0.push_back(ready);
    }
}

#[tonic::async_trait]
impl Worker for Arc<Shared> {
    async fn compute(
        &self,
        request: Request<proto::ComputeRequest>,
    ) -> Result<Response<proto::ComputeResponse>, Status> {
        let request = request.into_inner();
        check_version(request.version)?;
        self.refuse_when_stopping()?;
        let computed = async {
            // Nobody closes the semaphore.
            let turn = Arc::clone(self.computing()).acquire_owned().await;
            let shared = Arc::clone(self);
            let work = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                shared.shard(&request)
            });
            work.await.map_err(|error| Refusal::Other.status(error.to_string()))?
        };
        let ciphertexts = computed.await.inspect_err(|status| self.note_refusal(status))?;
        Ok(Response::new(proto::ComputeResponse { ciphertexts }))
    }
}

impl Shared {
    fn shard(&self, request: &proto::ComputeRequest) -> Result<bytes::Bytes, Status> {
        let start = Instant::now();
        let malformed = |what: &str, problem: &dyn std::fmt::Display| {
            Refusal::Malformed.status(format!("{what}: {problem}"))
        };
        let number = |what, number: u64| {
            usize::try_from(number).map_err(|_| malformed(what, &format!("expected a size, found {number}")))
        };
        let seed: [u8; 32] = request.seed[..]
            .try_into()
            .map_err(|_| malformed("seed", &format!("expected 32 bytes, found {}", request.seed.len())))?;
        let Ready { key, program, .. } = self.ready(request)?;
        let first = number("first unit", request.first_unit)?;
        let shard = Shard {
            segment: number("segment", request.segment)?,
            part: number("part", request.part)?,
            units: first..first.saturating_add(number("units", request.units)?),
        };
        let headers = program.shard_inputs(&shard).map_err(|error| malformed("shard", &error))?;
        let (expected, found) = (headers.len(), request.inputs.len());
        if expected != found {
            return Err(malformed("inputs", &format!("expected {expected} tensors, found {found}")));
        }
        let inputs = headers.into_iter().zip(&request.inputs);
        let inputs = inputs.map(|(header, bytes)| EncTensor::decode(&key, header, bytes));
        let inputs: Vec<EncTensor> =
            inputs.collect::<Result<_, _>>().map_err(|error| malformed("inputs", &error))?;
        let reply = program.reply(&shard, &inputs, &mut ChaCha20Rng::from_seed(seed));
        let reply = reply.map_err(|error| malformed("shard", &error))?;
        debug!(segment = shard.segment, part = shard.part, units = ?shard.units, seconds = start.elapsed().as_secs_f64(), "computed");
        Ok(reply.encode_ciphertexts().into())
    }

    /// The program that is asked for and its key, made ready if they are new.
    fn ready(&self, request: &proto::ComputeRequest) -> Result<Ready, Status> {
        let malformed = |problem: String| Refusal::Malformed.status(problem);
        let digest_asked: [u8; 32] = request.program[..].try_into().map_err(|_| {
            malformed(format!("expected 32 bytes of a program, found {}", request.program.len()))
        })?;
        let asked = (digest_asked, request.key.to_vec());
        let prepared = || self.prepared().lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ready) = prepared().find(&asked) {
            return Ok(ready);
        }
        let key = decode_public_key(&request.key).map_err(|error| malformed(error.to_string()))?;
        let key = key.on(self.backend()).map_err(|error| malformed(error.to_string()))?;
        let prefer = Preference::ALL.into_iter().find(|it| it.to_string() == request.prefer);
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let deployment = Deployment {
            key: key.parameters(),
            batch: size(request.batch),
            lanes: size(request.lanes),
            prefer: prefer
                .ok_or_else(|| malformed(format!("expected a preference, found `{}`", request.prefer)))?,
        };
        let is_it = |model: &Arc<ServerModel>| {
            let program = model.program(&deployment).ok()?;
            (digest(&program).ok()? == digest_asked).then_some(program)
        };
        let program = self.models().find_map(is_it).ok_or_else(|| {
            Refusal::UnknownModel.status(
                "none of the models here is the coordinator's; give both the same file, the same bits and the same release",
            )
        })?;
        let ready = Ready { asked, key, program };
        prepared().keep(ready.clone());
        Ok(ready)
    }
}
