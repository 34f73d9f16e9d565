//! A coordinator's side: shards to idle machines, and those of a lost machine to another.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use gelu_models::infer::Workers;
use gelu_models::plan::{Plan, Program, Shard};
use gelu_tensor::paillier::PublicKey;
use gelu_tensor::{EncTensor, EncTensorHeader, Error};
use gelu_wire::encode_public_key;
use rand::rngs::ChaCha20Rng;
use rand::{CryptoRng, SeedableRng};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tracing::{info, warn};

use super::{WORK_BYTES, digest};
use crate::client::Dialer;
use crate::proto::worker_client::WorkerClient;
use crate::{ClientSecurity, Patience, Refusal, SERVICE_VERSION, ServiceError, proto};

/// Shards that a machine is given at a time: one travels while another is computed.
const AT_ONCE: usize = 2;

/// Programs whose digests are kept, of the conversations that were served last.
const MOST_DIGESTS: usize = 64;

/// Machines that compute a server's replies: each runs `gelu worker` with the same model. A machine that cannot be reached,
/// or answers with what is no reply, gets no work until it can be reached again, and its work is done by another; where
/// there is none, by the server itself.
#[derive(Debug)]
pub struct WorkerPool {
    runtime: Runtime,
    machines: Arc<Machines>,
    digests: Mutex<Vec<(Weak<Plan>, [u8; 32])>>,
}

#[derive(Debug)]
struct Machines {
    all: Vec<Arc<Machine>>,
    /// Something was given back, found again or lost.
    changed: Notify,
}

#[derive(Debug)]
struct Machine {
    dialer: Arc<Dialer>,
    client: Mutex<Option<WorkerClient<Channel>>>,
    is_lost: AtomicBool,
    busy: AtomicUsize,
    computed: AtomicUsize,
}

/// A place at a machine, until it is dropped.
struct Held {
    machine: Arc<Machine>,
    machines: Arc<Machines>,
}

/// What a shard of a reply takes, whoever computes it.
#[derive(Clone)]
struct Work {
    request: proto::ComputeRequest,
    key: PublicKey,
    header: EncTensorHeader,
}

impl WorkerPool {
    /// Returns the machines at these addresses, such as `https://host:7443`, which are connected to when there is work.
    ///
    /// # Errors
    /// [`ServiceError`] as [`Remote::new`](crate::Remote::new).
    pub fn new<S: AsRef<str>>(
        addresses: &[S],
        security: &ClientSecurity,
        patience: Patience,
    ) -> Result<Self, ServiceError> {
        let machine = |address: &S| {
            Ok(Arc::new(Machine {
                dialer: Arc::new(Dialer::new(address.as_ref(), security, patience)?),
                client: Mutex::new(None),
                is_lost: AtomicBool::new(false),
                busy: AtomicUsize::new(0),
                computed: AtomicUsize::new(0),
            }))
        };
        let all = addresses.iter().map(machine).collect::<Result<Vec<_>, ServiceError>>()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("gelu-workers")
            .enable_all()
            .build()
            .map_err(|error| ServiceError::Unreachable {
                server: "the workers".to_owned(),
                problem: error.to_string(),
            })?;
        let machines = Arc::new(Machines { all, changed: Notify::new() });
        Ok(Self { runtime, machines, digests: Mutex::default() })
    }

    /// Returns how many machines there are, lost ones as well.
    pub fn machines(&self) -> usize {
        self.machines.all.len()
    }

    /// Returns the address of each machine and how many shards it has computed.
    pub fn computed(&self) -> Vec<(String, usize)> {
        let machines = self.machines.all.iter();
        machines
            .map(|machine| (machine.dialer.server().to_owned(), machine.computed.load(Ordering::Relaxed)))
            .collect()
    }

    fn digest(&self, program: &Program) -> Result<[u8; 32], String> {
        let mut known = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(plan, _)| plan.strong_count() > 0);
        let of_program = |(plan, _): &&(Weak<Plan>, _)| {
            plan.upgrade().is_some_and(|plan| Arc::ptr_eq(&plan, program.plan()))
        };
        if let Some((_, digest)) = known.iter().find(of_program) {
            return Ok(*digest);
        }
        let made = digest(program)?;
        if known.len() >= MOST_DIGESTS {
            known.remove(0);
        }
        known.push((Arc::downgrade(program.plan()), made));
        Ok(made)
    }
}

impl Workers for WorkerPool {
    fn reply(
        &self,
        program: &Program,
        segment: usize,
        part: usize,
        inputs: &[EncTensor],
        rng: &mut dyn CryptoRng,
    ) -> Result<EncTensor, Error> {
        let shards = program.shards(segment, part, self.machines.idle().max(1))?;
        let seeds: Vec<[u8; 32]> = shards
            .iter()
            .map(|_| {
                let mut seed = [0; 32];
                rng.fill_bytes(&mut seed);
                seed
            })
            .collect();
        let mut replies: Vec<Option<EncTensor>> = vec![None; shards.len()];
        if let (Some(input), true) = (inputs.first(), self.machines.has_any()) {
            match self.request(program, (segment, part), input.key(), inputs) {
                Ok(request) => {
                    let mut tasks = JoinSet::new();
                    for (at, (shard, seed)) in shards.iter().zip(&seeds).enumerate() {
                        let Shard { units, .. } = shard;
                        let request = proto::ComputeRequest {
                            first_unit: units.start as u64,
                            units: units.len() as u64,
                            seed: Bytes::copy_from_slice(seed),
                            ..request.clone()
                        };
                        let (key, header) = (input.key().clone(), program.shard_reply(shard)?);
                        let machines = Arc::clone(&self.machines);
                        let work = Work { request, key, header };
                        tasks.spawn_on(
                            async move { (at, machines.compute(work).await) },
                            self.runtime.handle(),
                        );
                    }
                    self.runtime.block_on(async {
                        while let Some(done) = tasks.join_next().await {
                            if let Ok((at, reply)) = done {
                                replies[at] = reply;
                            }
                        }
                    });
                }
                Err(problem) => warn!(problem, "no worker can be asked; computing here"),
            }
        }
        let here = shards.iter().zip(&seeds).zip(replies);
        let replies = here.map(|((shard, seed), reply)| match reply {
            Some(reply) => Ok(reply),
            None => program.reply(shard, inputs, &mut ChaCha20Rng::from_seed(*seed)),
        });
        program.join(segment, part, &replies.collect::<Result<Vec<_>, Error>>()?)
    }
}

impl WorkerPool {
    /// What all shards of a part have in common.
    pub(super) fn request(
        &self,
        program: &Program,
        (segment, part): (usize, usize),
        key: &PublicKey,
        inputs: &[EncTensor],
    ) -> Result<proto::ComputeRequest, String> {
        let description = program.plan().description();
        let bytes: usize =
            inputs.iter().map(|input| input.header().ciphertexts()).sum::<usize>() * key.ciphertext_bytes();
        if bytes > WORK_BYTES - (1 << 16) {
            return Err(format!("a part has {bytes} bytes, and workers take {WORK_BYTES}"));
        }
        Ok(proto::ComputeRequest {
            version: SERVICE_VERSION,
            key: encode_public_key(key).map_err(|error| error.to_string())?.into(),
            batch: description.batch as u64,
            lanes: description.lanes as u64,
            prefer: description.prefer.to_string(),
            program: Bytes::copy_from_slice(&self.digest(program)?),
            segment: segment as u64,
            part: part as u64,
            first_unit: 0,
            units: 0,
            seed: Bytes::new(),
            inputs: inputs.iter().map(|input| input.encode_ciphertexts().into()).collect(),
        })
    }
}

impl Machines {
    fn at_hand(&self) -> impl Iterator<Item = &Arc<Machine>> {
        self.all.iter().filter(|machine| !machine.is_lost.load(Ordering::SeqCst))
    }

    fn has_any(&self) -> bool {
        self.at_hand().next().is_some()
    }

    /// How many machines have nothing to do.
    fn idle(&self) -> usize {
        self.at_hand().filter(|machine| machine.busy.load(Ordering::SeqCst) == 0).count()
    }

    /// The machine with the least to do, once one has a place; `None` when all are lost.
    async fn hold(self: &Arc<Self>) -> Option<Held> {
        loop {
            let changed = self.changed.notified();
            let least = self.at_hand().min_by_key(|machine| machine.busy.load(Ordering::SeqCst))?;
            let place = least.busy.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |busy| {
                (busy < AT_ONCE).then_some(busy + 1)
            });
            if place.is_ok() {
                return Some(Held { machine: Arc::clone(least), machines: Arc::clone(self) });
            }
            changed.await;
        }
    }

    /// The reply, from whichever machine has it first; `None` when all are lost.
    async fn compute(self: Arc<Self>, work: Work) -> Option<EncTensor> {
        loop {
            let held = self.hold().await?;
            match held.machine.compute(&work).await {
                Ok(reply) => return Some(reply),
                Err(error) => {
                    warn!(%error, "a worker is lost; its work is done elsewhere");
                    held.machine.is_lost.store(true, Ordering::SeqCst);
                    *held.machine.client() = None;
                    let (machine, machines) = (Arc::clone(&held.machine), Arc::clone(&self));
                    tokio::spawn(async move { machine.look_for(&machines, error).await });
                }
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.machine.busy.fetch_sub(1, Ordering::SeqCst);
        self.machines.changed.notify_waiters();
    }
}

impl Machine {
    fn client(&self) -> std::sync::MutexGuard<'_, Option<WorkerClient<Channel>>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connected(&self) -> Result<WorkerClient<Channel>, ServiceError> {
        if let Some(client) = self.client().clone() {
            return Ok(client);
        }
        let client = WorkerClient::new(self.dialer.channel().await?)
            .max_decoding_message_size(WORK_BYTES)
            .max_encoding_message_size(WORK_BYTES);
        *self.client() = Some(client.clone());
        Ok(client)
    }

    async fn compute(&self, work: &Work) -> Result<EncTensor, ServiceError> {
        let mut client = self.connected().await?;
        let answer = client.compute(work.request.clone());
        let answer = self.dialer.within(self.dialer.patience().answer, answer).await?;
        let answer = answer.map_err(|status| self.dialer.failure(&status))?.into_inner();
        let reply = EncTensor::decode(&work.key, work.header.clone(), &answer.ciphertexts);
        let reply = reply.map_err(|error| ServiceError::Stream {
            expected: "the ciphertexts of a shard",
            found: error.to_string(),
        })?;
        self.computed.fetch_add(1, Ordering::Relaxed);
        Ok(reply)
    }

    /// Tries until the machine can be reached again. One that answered without being able to help is left alone for longer.
    async fn look_for(&self, machines: &Machines, why: ServiceError) {
        let refused = matches!(why, ServiceError::Stream { .. })
            || matches!(&why, ServiceError::Refused { refusal, .. } if *refusal != Refusal::Stopping);
        let mut pause = Duration::from_millis(if refused { 30_000 } else { 100 });
        loop {
            tokio::time::sleep(pause).await;
            if self.connected().await.is_ok() {
                info!(worker = self.dialer.server(), "a worker is there again");
                self.is_lost.store(false, Ordering::SeqCst);
                machines.changed.notify_waiters();
                return;
            }
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }
}
