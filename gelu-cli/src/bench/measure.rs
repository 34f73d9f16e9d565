use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use gelu_models::infer::{Client, Server, ServerModel};
use gelu_models::peer::{Idle, Peer};
use gelu_models::plan::{Deployment, Description, Plan};
use gelu_net::LocalInference;
use gelu_tensor::hazmat::Residues;
use gelu_tensor::paillier::{KeyParameters, PublicKey, Randomizer, SecretKey};
use gelu_tensor::{
    Contents, EncTensor, Error, FixedTensor, Format, IntWeights, LinearMap, Operations, Packing, Product,
    Shape, SlotLayout, WeightRange, Workload,
};
use gelu_wire::{decode_message, encode_message};
use indicatif::ProgressBar;
use ndarray::{Array2, ArrayView2, Axis};
use rayon::ThreadPool;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{BenchArgs, Report};
use crate::model::Loaded;
use crate::model_args::{new_key, warn_of_short_key};
use crate::threads;
use gelu_io::machine::Limit;

/// The size of keys that limits are quoted for.
const QUOTED_BITS: usize = 2048;

/// The server's part of one layer: from the bytes that come to the bytes that go.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LayerFigures {
    pub(crate) name: String,
    pub(crate) product_by: Option<String>,
    pub(crate) ciphertexts_up: usize,
    pub(crate) ciphertexts_down: usize,
    pub(crate) bytes_up: usize,
    pub(crate) bytes_down: usize,
    /// Products and squarings mod n^2.
    pub(crate) products: u64,
    pub(crate) seconds_one_thread: f64,
    pub(crate) seconds_all_threads: f64,
    /// What part of the one thread's time the products would take at the limit; a squaring counts 0.7 of a product.
    pub(crate) share_of_limit: f64,
}

/// One operation on ciphertexts, in seconds for each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Operation {
    pub(crate) name: String,
    pub(crate) seconds_one_thread: f64,
    pub(crate) seconds_all_threads: f64,
}

/// Both sides in one process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SessionFigures {
    /// From the hello to the end of the first batch.
    pub(crate) seconds_first: f64,
    /// A later batch, in the mean: while it is in progress, another one is too.
    pub(crate) seconds_per_batch: f64,
    /// The client's part of a batch.
    pub(crate) seconds_client_one_thread: f64,
    pub(crate) seconds_client_all_threads: f64,
}

/// One thread, and all.
struct Pools([ThreadPool; 2]);

impl Pools {
    fn new(threads: usize) -> anyhow::Result<Self> {
        let pool = |threads| threads::builder(threads)?.build().context("threads");
        Ok(Self([pool(1)?, pool(threads)?]))
    }

    /// The median time of `work` in each, in turns, after one run that does not count.
    fn seconds(
        &self,
        runs: usize,
        mut work: impl FnMut() -> anyhow::Result<()> + Send,
    ) -> anyhow::Result<[f64; 2]> {
        let mut times = [vec![], vec![]];
        for run in 0..=runs {
            for (pool, times) in self.0.iter().zip(&mut times) {
                let start = Instant::now();
                pool.install(&mut work)?;
                if run > 0 {
                    times.push(start.elapsed().as_secs_f64());
                }
            }
        }
        Ok(times.map(median))
    }
}

pub(super) fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    match times.len() {
        0 => 0.0,
        n if n.is_multiple_of(2) => (times[middle - 1] + times[middle]) / 2.0,
        _ => times[middle],
    }
}

pub(super) fn measure(args: &BenchArgs, parameters: KeyParameters) -> anyhow::Result<Report> {
    warn_of_short_key(parameters.size);
    let (batch, runs) = (args.batch as usize, args.runs as usize);
    let Loaded { model, name, .. } = args.model.load_or_initialize()?;
    let quantization = args.numbers.quantization(&model);
    let (lanes, prefer) = (crate::model_args::backend()?.lanes(), args.prefer.into());
    let deployment = Deployment { key: parameters, batch, lanes, prefer };
    let program = model.compile(&quantization, &deployment)?;
    let threads = match args.threads {
        Some(threads) => threads as usize,
        None => rayon::current_num_threads(),
    };
    let pools = Pools::new(threads)?;
    let bar = progress(runs + 4);
    bar.set_message("making a key");
    let key = new_key(parameters)?;
    let backend = key.public_key().backend();
    let bits = parameters.size.bits();
    let before = Limit::measure(backend);
    bar.inc(1);

    let (key, model) = (Arc::new(key), Arc::new(ServerModel::new(model, quantization)));
    bar.set_message("layers");
    let (mut layers, [client_one, client_all]) = layers((&model, &key), program.plan(), &pools, runs, &bar)?;
    bar.set_message("operations");
    let operations = operations(&key, &pools, runs)?;
    bar.inc(1);
    bar.set_message("both sides");
    let (seconds_first, seconds_per_batch) = session((model, key), program.plan(), runs)?;
    let session = SessionFigures {
        seconds_first,
        seconds_per_batch,
        seconds_client_one_thread: client_one,
        seconds_client_all_threads: client_all,
    };
    bar.inc(1);
    let after = Limit::measure(backend);
    bar.finish_and_clear();

    let mean = |bits: usize| (before.product_ns(bits) + after.product_ns(bits)) / 2.0;
    for layer in &mut layers {
        layer.share_of_limit *= 1e-9 * mean(bits) / layer.seconds_one_thread;
    }
    Ok(Report {
        model: name,
        key_bits: bits,
        key_type: parameters.key_type,
        backend: backend.name().to_owned(),
        batch,
        prefer,
        runs,
        threads,
        limit_ns: mean(QUOTED_BITS),
        limit_ns_before: before.product_ns(QUOTED_BITS),
        limit_ns_after: after.product_ns(QUOTED_BITS),
        limit_ns_of_key: mean(bits),
        layers,
        operations,
        session,
        peak_memory: peak_memory(),
    })
}

fn progress(steps: usize) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(steps as u64);
    if let Ok(style) = indicatif::ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar
}

/// The two sides, message by message.
struct Sides {
    client: Client,
    server: Server,
}

/// What one step of a batch took: the client's chunks, and the server's part of it.
#[derive(Default)]
struct Step {
    bytes_up: usize,
    bytes_down: usize,
    operations: Operations,
    seconds: f64,
}

impl Sides {
    fn open(model: &Arc<ServerModel>, key: &Arc<SecretKey>, plan: &Plan) -> anyhow::Result<Self> {
        let Description { batch, prefer, .. } = plan.description();
        let client = Client::new(Arc::clone(key), *batch as u32).preferring(*prefer);
        let mut sides =
            Self { client, server: Server::new(Arc::clone(model)).on(key.public_key().backend()) };
        let mut up = sides.answer(&[])?;
        let down = sides.serve(&mut up, &mut Step::default())?;
        if let Idle::Background(work) = sides.server.idle(&mut rand::rng()) {
            work();
        }
        sides.answer(&down)?;
        Ok(sides)
    }

    /// The server's part of a step: from the bytes that come to the bytes that go.
    fn serve(&mut self, up: &mut Vec<Vec<u8>>, step: &mut Step) -> anyhow::Result<Vec<Vec<u8>>> {
        let counted = |server: &Server| server.operations().computing;
        let (start, before, rng) = (Instant::now(), counted(&self.server), &mut rand::rng());
        let mut down = vec![];
        for bytes in up.drain(..) {
            step.bytes_up += bytes.len();
            self.server.handle(decode_message(&bytes, self.server.key())?, rng)?;
        }
        while let Some(message) = self.server.next_message(rng)? {
            down.push(encode_message(&message)?);
        }
        step.bytes_down = down.iter().map(Vec::len).sum();
        step.operations = counted(&self.server) - before;
        step.seconds = start.elapsed().as_secs_f64();
        Ok(down)
    }

    /// The client's next messages; none after the last step of a batch.
    fn answer(&mut self, down: &[Vec<u8>]) -> anyhow::Result<Vec<Vec<u8>>> {
        for bytes in down {
            let message = decode_message(bytes, Some(self.client.key().public_key()))?;
            self.client.handle(message, &mut rand::rng())?;
        }
        let mut up = vec![];
        while let Some(message) = self.client.next_message(&mut rand::rng())? {
            up.push(encode_message(&message)?);
        }
        Ok(up)
    }

    /// One batch: its steps, and the client's seconds.
    fn round(&mut self, images: ArrayView2<'_, f32>) -> anyhow::Result<(Vec<Step>, f64)> {
        let start = Instant::now();
        self.client.start(images)?;
        let mut up = self.answer(&[])?;
        let mut client = start.elapsed().as_secs_f64();
        let mut steps = vec![];
        while !up.is_empty() {
            let mut step = Step::default();
            let down = self.serve(&mut up, &mut step)?;
            steps.push(step);
            let start = Instant::now();
            up = self.answer(&down)?;
            client += start.elapsed().as_secs_f64();
        }
        Ok((steps, client))
    }
}

/// Whole batches by one thread and by all, in turns; the client's seconds of a batch too.
fn layers(
    (model, key): (&Arc<ServerModel>, &Arc<SecretKey>),
    plan: &Plan,
    pools: &Pools,
    runs: usize,
    bar: &ProgressBar,
) -> anyhow::Result<(Vec<LayerFigures>, [f64; 2])> {
    let images = images([plan.description().batch, plan.graph().input().elements()]);
    let open = |pool: &ThreadPool| pool.install(|| Sides::open(model, key, plan));
    let mut sides = [open(&pools.0[0])?, open(&pools.0[1])?];
    let mut times = [0, 1].map(|_| vec![vec![]; plan.segments().len()]);
    let mut clients = [vec![], vec![]];
    let mut last = vec![];
    for run in 0..=runs {
        for (which, pool) in pools.0.iter().enumerate() {
            let (steps, client) = pool.install(|| sides[which].round(images.view()))?;
            // The first batch does not count.
            if run > 0 {
                clients[which].push(client);
                steps.iter().zip(&mut times[which]).for_each(|(step, times)| times.push(step.seconds));
            }
            last = steps;
        }
        bar.inc(1);
    }
    let [one, all] = times;
    let figures = plan.segments().iter().zip(last).zip(one.into_iter().zip(all));
    let figures = figures.map(|((segment, step), (one, all))| LayerFigures {
        name: segment.name.clone(),
        product_by: segment
            .layout
            .parts
            .first()
            .and_then(|part| part.products.first())
            .map(Product::to_string),
        ciphertexts_up: segment.ciphertexts_up(),
        ciphertexts_down: segment.ciphertexts_down(),
        bytes_up: step.bytes_up,
        bytes_down: step.bytes_down,
        products: step.operations.total(),
        seconds_one_thread: median(one),
        seconds_all_threads: median(all),
        // In units of one product so far.
        share_of_limit: step.operations.cost() as f64 / 100.0,
    });
    Ok((figures.collect(), clients.map(median)))
}

/// Images that are not all the same.
pub(super) fn images([count, elements]: [usize; 2]) -> Array2<f32> {
    Array2::from_shape_fn((count, elements), |(image, element)| ((image + element) % 16) as f32 / 16.0)
}

/// The operations that everything is made of.
fn operations(key: &SecretKey, pools: &Pools, runs: usize) -> anyhow::Result<Vec<Operation>> {
    const TOGETHER: usize = 256;
    const OUTPUTS: usize = 120;
    let public = key.public_key();
    let mut list = vec![];
    let mut add = |name: &str, count: usize, times: [f64; 2]| {
        let [seconds_one_thread, seconds_all_threads] = times.map(|time| time / count as f64);
        list.push(Operation { name: name.to_owned(), seconds_one_thread, seconds_all_threads });
    };

    // As many chains as there are threads: an operation of the ring itself runs on one.
    let residues = public_residues(public, TOGETHER)?;
    let on_each_thread = |times: [f64; 2]| {
        let threads = pools.0[1].current_num_threads() as f64;
        [times[0], times[1] / threads]
    };
    let chains = |work: &(dyn Fn(&mut Residues) -> Result<(), Error> + Sync)| {
        let threads = (0..rayon::current_num_threads()).into_par_iter();
        Ok(threads.try_for_each(|_| work(&mut residues.clone()))?)
    };
    let multiply = |x: &mut Residues| (0..8).try_for_each(|_| x.multiply(public, &residues));
    let products = pools.seconds(runs, || chains(&multiply))?;
    add("product mod n^2", 8 * TOGETHER, on_each_thread(products));
    let squarings = pools.seconds(runs, || chains(&|x| x.square(public, 8)))?;
    add("squaring mod n^2", 8 * TOGETHER, on_each_thread(squarings));

    let format = Format::integers(1 << 15)?;
    let values: Vec<i64> = (0..TOGETHER as i64).map(|i| i * 97 % 60_000 - 30_000).collect();
    let plain = FixedTensor::new(Shape::from([1, 16, 16]), format, values)?;
    let layout = one_value(public, 48, format)?;
    let encrypt = |key: &dyn Randomizer| -> anyhow::Result<EncTensor> {
        Ok(plain.encrypt(&layout, key, &mut rand::rng())?)
    };
    add("encryption by the key's owner", TOGETHER, pools.seconds(runs, || encrypt(key).map(drop))?);
    add("encryption with the public key", TOGETHER, pools.seconds(runs, || encrypt(public).map(drop))?);
    let encrypted = encrypt(key)?;
    add("decryption", TOGETHER, pools.seconds(runs, || Ok(encrypted.decrypt(key).map(drop)?))?);
    let sum = pools.seconds(runs, || Ok(encrypted.add(&encrypted).map(drop)?))?;
    add("sum of two ciphertexts", TOGETHER, sum);
    let rerandomize = pools.seconds(runs, || {
        encrypted.clone().rerandomize(&mut rand::rng());
        Ok(())
    })?;
    add("re-randomization", TOGETHER, rerandomize);
    let range = WeightRange::signed(16)?;
    let mut multiply = |name: &str, count: usize, map: LinearMap, weights: Vec<i32>| -> anyhow::Result<()> {
        let (map, weights) = (Arc::new(map), IntWeights::new(range, weights)?);
        let tensor = encrypted.clone().reshape(map.input().clone())?;
        let lanes = public.backend().lanes();
        let product =
            Product::cheapest(&map, &tensor.header().layout, Workload { weights: range, groups: 1, lanes })?;
        let times = pools.seconds(runs, || Ok(tensor.apply(&map, &weights, &product).map(drop)?))?;
        add(name, count, times);
        Ok(())
    };
    let scalar = LinearMap::identity(plain.shape())?;
    multiply("times a signed 16-bit scalar", TOGETHER, scalar, vec![-31_415])?;
    let weights = (0..(TOGETHER * OUTPUTS) as i32).map(|i| i * 7919 % 65_536 - 32_768).collect();
    let dense = LinearMap::dense(&Shape::from([TOGETHER]), OUTPUTS)?;
    multiply("dot product of 256, signed 16-bit weights, one of 120 outputs", OUTPUTS, dense, weights)?;
    Ok(list)
}

/// One value a ciphertext.
fn one_value(key: &PublicKey, slot_bits: usize, format: Format) -> anyhow::Result<SlotLayout> {
    let packing = Packing { batch: 1, slot_bits, key: key.size() };
    Ok(SlotLayout::images(packing, Contents::Integers(format))?)
}

/// Ciphertexts of zeros, as residues.
fn public_residues(public: &PublicKey, count: usize) -> anyhow::Result<Residues> {
    let format = Format::integers(1)?;
    let zeros = FixedTensor::new(Shape::from([count]), format, vec![0; count])?;
    let encrypted = zeros.encrypt(&one_value(public, 8, format)?, public, &mut rand::rng())?;
    Ok(Residues::decode(public, &encrypted.encode_ciphertexts())?)
}

/// Whole sessions: the time of one with a single batch, and the mean of the later batches of one with several.
fn session(
    (model, key): (Arc<ServerModel>, Arc<SecretKey>),
    plan: &Plan,
    runs: usize,
) -> anyhow::Result<(f64, f64)> {
    let local =
        LocalInference::shared(model, key, plan.description().batch).preferring(plan.description().prefer);
    // Two batches are in flight at a time, so that single ones say little, and may end together: as many pairs as there are
    // batches to time, after one pair.
    let pairs = 1 + runs.div_ceil(2);
    let images = images([2 * pairs * plan.description().batch, plan.graph().input().elements()]);
    let first = local
        .run(images.view().split_at(Axis(0), plan.description().batch).0, &mut rand::rng(), |_| ())?
        .seconds;
    let mut ends = vec![];
    local.run(images.view(), &mut rand::rng(), |_| ends.push(Instant::now()))?;
    let [_, start, between @ .., end] = &ends[..] else { bail!("expected three batches or more to end") };
    Ok((first, (*end - *start).as_secs_f64() / (between.len() + 1) as f64))
}

/// Linux says it in kB.
pub(super) fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
