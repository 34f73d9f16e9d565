//! Table 2: how an iteration of training grows with the network, for ours and for the schemes of the paper's rivals.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use gelu_io::session::{Go, TrainingAccount, run_turn};
use gelu_layers::{Activation, Initializer};
use gelu_models::train::private::{
    Client, CoordinatorConfig, DMax, Description, FixedPoint, Leakage, ParticipantConfig, Server, TrainPlan,
};
use gelu_models::train::{Dataset, TrainConfig};
use gelu_models::{Model, ModelBuilder};
use gelu_tensor::hazmat::{Exponent, Residues};
use gelu_tensor::paillier::SecretKey;
use ndarray::Array2;
use num_bigint::BigUint;
use rand::rngs::ChaCha20Rng;
use rand::{Rng, RngExt, SeedableRng};

use super::{Part, SUBGROUP_2048, Setting, median};
use crate::picture::{Axes, Line, Picture};
use crate::report::digits;
use crate::results::{Findings, Row, Table};
use crate::rivals::{BgnKey, ElGamalKey};

/// The paper's C: homomorphic operations of BGN for an activation, at least.
const BGN_OPERATIONS: f64 = 30.0;

/// The most neurons of a layer with which the paper's GELU-Net is faster than BGN-Net, and how much dearer BGN is than Paillier.
const PAPER_NEURONS: f64 = 450.0;
const PAPER_BGN: f64 = 15.0;

/// The layers of a network while neurons grow, and the neurons while layers do.
const LAYERS: usize = 2;
const NEURONS: usize = 32;

/// What an iteration on one input takes.
#[derive(Clone, Copy, Debug)]
struct Iteration {
    /// Layers (n) and neurons of each (m).
    layers: usize,
    neurons: usize,
    /// Products and squarings mod n^2 of the server.
    products: f64,
    /// Ciphertexts that cross, both ways together.
    ciphertexts: f64,
    /// Of both sides, when they are busy.
    seconds: f64,
}

pub(super) fn run(setting: &Setting) -> anyhow::Result<Findings> {
    let (neurons, layers): (&[usize], &[usize]) = match setting.quick {
        true => (&[16, 32, 64], &[1, 2, 4]),
        false => (&[16, 32, 64, 128, 256], &[1, 2, 4, 8]),
    };
    let keys = [(); 2].map(|()| setting.key(SUBGROUP_2048).map(Arc::new));
    let [own, clients] = keys;
    let keys = [own?, clients?];
    let measure = |(layers, neurons)| {
        setting.progress(Part::Table2, &format!("{layers} layers of {neurons} neurons"));
        Iteration::measure((layers, neurons), &keys)
    };
    let by_neurons =
        neurons.iter().map(|&neurons| measure((LAYERS, neurons))).collect::<anyhow::Result<Vec<_>>>()?;
    let by_layers =
        layers.iter().map(|&layers| measure((layers, NEURONS))).collect::<anyhow::Result<Vec<_>>>()?;
    let costs = Costs::measure(setting, &keys[0])?;

    let mut findings = Findings::default();
    let command = setting.command(Part::Table2);
    let mut add = |label: &str, unit: &str, paper: Option<f64>, here: f64| {
        findings.rows.push(Row {
            label: label.to_owned(),
            unit: unit.to_owned(),
            paper: paper.map(Into::into),
            here: Some(here.into()),
            command: command.clone(),
        });
    };
    let ms = |iterations: &[Iteration], of: fn(&Iteration) -> f64| {
        exponent(iterations.iter().map(|it| (it.neurons as f64, of(it))))
    };
    let ns = |iterations: &[Iteration], of: fn(&Iteration) -> f64| {
        exponent(iterations.iter().map(|it| (it.layers as f64, of(it))))
    };
    add("computation: exponent of the neurons m", "", Some(2.0), ms(&by_neurons, |it| it.products));
    add("computation: exponent of the layers n", "", Some(1.0), ns(&by_layers, |it| it.products));
    add("communication: exponent of the neurons m", "", Some(2.0), ms(&by_neurons, |it| it.ciphertexts));
    add("communication: exponent of the layers n", "", Some(1.0), ns(&by_layers, |it| it.ciphertexts));
    let Costs { paillier, bgn, elgamal, .. } = costs;
    add("p: a Paillier ciphertext to a power of full size", "ms", None, 1e3 * paillier);
    add("b: a product of BGN", "ms", None, 1e3 * bgn);
    add("e: an ElGamal ciphertext times a number", "ms", None, 1e3 * elgamal);
    add("b / p", "times", Some(PAPER_BGN), bgn / paillier);
    add("e / p", "times", Some(1.0), elgamal / paillier);
    add(
        "neurons below which O(n m^2 p) is less than O(C n m b), by the costs of single operations",
        "neurons",
        Some(PAPER_NEURONS),
        BGN_OPERATIONS * bgn / paillier,
    );
    // The largest network: what an iteration takes for each weight, packed and all.
    if let Some(largest) = by_neurons.last() {
        let weights = (largest.layers * largest.neurons * largest.neurons) as f64;
        let each = largest.seconds / weights;
        add("ours, packed: an iteration's time for each weight", "ms", None, 1e3 * each);
        add(
            "neurons below which ours, packed, takes less than C n m b",
            "neurons",
            None,
            BGN_OPERATIONS * bgn / each,
        );
    }
    findings.tables = vec![iterations(&by_neurons, &by_layers), costs.table()];
    let line = |label: &str, of: fn(&Iteration) -> f64| Line {
        label: label.to_owned(),
        points: by_neurons.iter().map(|it| (it.neurons as f64, of(it) / of(&by_neurons[0]))).collect(),
        breaks_off: false,
    };
    let squares = Line {
        label: "m^2".to_owned(),
        points: by_neurons
            .iter()
            .map(|it| (it.neurons as f64, (it.neurons as f64 / by_neurons[0].neurons as f64).powi(2)))
            .collect(),
        breaks_off: false,
    };
    findings.pictures.push(Picture::Lines {
        title: format!("An iteration of {LAYERS} layers, in terms of the smallest"),
        axes: Axes {
            x: "neurons of a layer".to_owned(),
            y: "times the smallest".to_owned(),
            is_log_log: true,
            most: None,
        },
        lines: vec![squares, line("products", |it| it.products), line("ciphertexts", |it| it.ciphertexts)],
    });
    findings.notes = notes();
    Ok(findings)
}

impl Iteration {
    /// Measures an iteration on one input, by two runs of which one has two iterations more: what is done once for a key is in
    /// neither's difference.
    fn measure((layers, neurons): (usize, usize), keys: &[Arc<SecretKey>; 2]) -> anyhow::Result<Self> {
        let model = model(layers, neurons)?;
        let [few, many] = [2u32, 4].map(|iterations| train(&model, keys, iterations));
        let (few, many) = (few?, many?);
        let ciphertexts = |account: &TrainingAccount| {
            (account.up().ciphertexts + account.down().ciphertexts + account.steps().ciphertexts) as f64
        };
        let seconds = |account: &TrainingAccount| {
            account.server_seconds() + account.client_seconds() + account.steps_seconds()
        };
        let half = |of: &dyn Fn(&TrainingAccount) -> f64| (of(&many) - of(&few)) / 2.0;
        Ok(Self {
            layers,
            neurons,
            products: half(&|account| account.operations() as f64),
            ciphertexts: half(&ciphertexts),
            seconds: half(&seconds),
        })
    }
}

/// Layers with as many inputs as outputs, sigmoids between them.
fn model(layers: usize, neurons: usize) -> anyhow::Result<Model> {
    let mut builder = ModelBuilder::new([neurons]);
    for layer in 1..=layers {
        builder = builder.dense(&format!("fc{layer}"), neurons);
        if layer < layers {
            builder = builder.activation(Activation::Sigmoid);
        }
    }
    let mut model = builder.softmax().build()?;
    model.initialize(Initializer::KaimingUniform, &mut ChaCha20Rng::seed_from_u64(1));
    Ok(model)
}

/// One turn of a client with one input to an iteration.
fn train(
    model: &Model,
    [own, clients]: &[Arc<SecretKey>; 2],
    iterations: u32,
) -> anyhow::Result<TrainingAccount> {
    let parameters = own.public_key().parameters();
    let description = Description::new(model, 1, FixedPoint::default(), parameters, parameters.size);
    let plan = Arc::new(TrainPlan::new(description)?);
    let neurons = model.input_shape().elements();
    let rng = &mut ChaCha20Rng::seed_from_u64(2);
    let inputs = Array2::from_shape_fn((1, neurons), |_| rng.random_range(0.0..1.0f32));
    let samples = Arc::new(Dataset::new(model.input_shape().clone(), inputs, vec![0], neurons)?);
    let config = CoordinatorConfig {
        train: TrainConfig {
            batch_size: 1,
            epochs: iterations,
            weight_decay: 0.0,
            learning_rate: 0.01,
            ..TrainConfig::default()
        },
        images: 1,
        d_max: DMax::Fixed(iterations),
        leakage: Leakage::Off,
    };
    let weights = plan.quantize(&model.weights())?;
    let mut server = Server::new(plan, Arc::clone(own), config, weights)?;
    let participant = ParticipantConfig { client: 0, seed: 0, momentum: 0.9 };
    let mut client = Client::new(Arc::clone(clients), samples, participant);
    let mut account = TrainingAccount::default();
    let (mut server_rng, mut client_rng) = (rand::rng(), rand::rng());
    let rngs = [&mut server_rng as &mut dyn rand::CryptoRng, &mut client_rng];
    let ended = run_turn(&mut server, &mut client, &mut account, rngs, |_, _, _| anyhow::Ok(Go::On))?;
    ensure!(ended, "the turn did not end; please report this as a bug");
    Ok(account)
}

/// The exponent that fits best: the slope of the logarithms.
fn exponent(points: impl Iterator<Item = (f64, f64)>) -> f64 {
    let points: Vec<(f64, f64)> = points.map(|(x, y)| (x.ln(), y.ln())).collect();
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let covariance: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let variance: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    covariance / variance
}

/// The median seconds of an operation.
fn times<R>(repeats: usize, mut work: impl FnMut() -> R) -> f64 {
    let times = (0..repeats).map(|_| {
        let start = Instant::now();
        black_box(work());
        start.elapsed().as_secs_f64()
    });
    median(times.collect())
}

/// Seconds of single operations on one core, beside each other.
struct Costs {
    paillier: f64,
    bgn: f64,
    elgamal: f64,
    others: Vec<(&'static str, f64)>,
}

impl Costs {
    fn measure(setting: &Setting, key: &SecretKey) -> anyhow::Result<Self> {
        setting.progress(Part::Table2, "single operations of Paillier, BGN and ElGamal");
        let repeats = if setting.quick { 5 } else { 25 };
        let rng = &mut rand::rng();
        let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
        // As many as the vectors of a processor have lanes for.
        const TOGETHER: usize = 64;
        let public = key.public_key();
        let numbers: Vec<BigUint> = (0..TOGETHER as u32).map(BigUint::from).collect();
        let ciphertexts = Residues::encrypt(key, &numbers, rng)?;
        let mut bytes = vec![0; public.size().bits() / 8];
        rng.fill_bytes(&mut bytes);
        bytes[0] = 0x7f;
        let exponent = Exponent::of(public, &BigUint::from_bytes_be(&bytes))?;
        let power = || ciphertexts.power(public, &exponent);
        power()?;
        let paillier = one_thread.install(|| times(repeats, power));
        let bgn = BgnKey::generate(rng);
        let (left, right) = (bgn.encrypt_left(3, rng), bgn.encrypt_right(5, rng));
        let products = left.multiply(&right);
        ensure!(
            bgn.decrypt(&products, 15) == Some(15),
            "BGN's product is wrong; please report this as a bug"
        );
        let elgamal = ElGamalKey::generate(rng);
        let ciphertext = elgamal.encrypt(3, rng);
        let product = ciphertext.multiply(-5);
        ensure!(
            elgamal.decrypt(&product, 15) == Some(-15),
            "ElGamal's product is wrong; please report this as a bug"
        );
        Ok(Self {
            paillier: paillier / TOGETHER as f64,
            bgn: times(repeats, || left.multiply(&right)),
            // It takes as long for every number, as for the paper's masked weights.
            elgamal: times(repeats, || ciphertext.multiply(-5)),
            others: vec![
                ("BGN: a sum of ciphertexts before a product", times(repeats, || left.add(&left))),
                ("BGN: a sum of products", times(repeats, || products.add(&products))),
                ("ElGamal: a sum", times(repeats, || ciphertext.add(&product))),
            ],
        })
    }

    fn table(&self) -> Table {
        let rows = [
            ("Paillier: to a power of 2,047 bits, of 64 together", self.paillier),
            ("BGN: a product, four pairings", self.bgn),
            ("ElGamal: times a number", self.elgamal),
        ];
        let rows = rows.iter().chain(&self.others);
        Table {
            title: "Single operations on one core".to_owned(),
            header: ["operation", "us"].map(str::to_owned).to_vec(),
            rows: rows.map(|(name, seconds)| vec![(*name).to_owned(), digits(1e6 * seconds)]).collect(),
        }
    }
}

fn iterations(by_neurons: &[Iteration], by_layers: &[Iteration]) -> Table {
    let header = ["layers n", "neurons m", "products mod n^2", "ciphertexts", "ms", "products / (n m^2)"];
    let row = |it: &Iteration| {
        let weights = (it.layers * it.neurons * it.neurons) as f64;
        let figures = [it.products, it.ciphertexts, 1e3 * it.seconds, it.products / weights];
        let mut row = vec![it.layers.to_string(), it.neurons.to_string()];
        row.extend(figures.map(digits));
        row
    };
    Table {
        title: "An iteration of private training on one input, layers of m inputs and m neurons".to_owned(),
        header: header.map(str::to_owned).to_vec(),
        rows: by_neurons.iter().chain(by_layers).map(row).collect(),
    }
}

fn notes() -> Vec<String> {
    vec![
        format!(
            "Ours: private training as `gelu train` runs it, both sides in this process, subgroup keys of 2048 bits, one input to an iteration. \
             The exponents are slopes of logarithms: of the neurons with {LAYERS} layers, of the layers with {NEURONS} neurons. What grows with \
             m alone (inputs, sums, errors) and what is rounded up to whole ciphertexts keeps those of m below the formula's for small \
             networks; those of n are above 1, since the first layer passes no errors on."
        ),
        "The paper counts a ciphertext for each number and an exponentiation for each weight. Ours packs many numbers into a ciphertext and \
         multiplies by weights of some 20 bits, so that an iteration takes far less than n m^2 p; how it grows is what can be compared."
            .to_owned(),
        "Costs of the rivals' schemes are those of their central operation at 112 to 128 bits of security: Paillier's power with a \
         scalar of full size (a masked weight of the paper's), BGN's product of ciphertexts in Freeman's form over BLS12-381 (the crate \
         `bls12_381`; BGN's own groups of composite order are many times slower), exponential ElGamal over ristretto255 (the crate \
         `curve25519-dalek`). The paper measures BGN as at least 15 times Paillier, and concludes that GELU-Net is faster for m < 450, with C = 30; \
         whole BGN-Nets and ElGamal-Nets are run neither there nor here."
            .to_owned(),
        "ElGamal-Net's computation is O(Z^2 m^3 n e) for Z parties: with e as here, two parties and m neurons take 4 m e / p times GELU-Net's \
         by the formulae."
            .to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_are_slopes_of_logarithms() {
        let points =
            |power: f64| [2.0_f64, 3.0, 5.0, 11.0].into_iter().map(move |x| (x, 7.0 * x.powf(power)));
        assert!((exponent(points(2.0)) - 2.0).abs() < 1e-12);
        assert!((exponent(points(-0.5)) + 0.5).abs() < 1e-12);
    }

    #[test]
    fn networks_have_as_many_layers_as_were_asked_for() {
        for layers in 1..4 {
            let model = model(layers, 5).unwrap();
            assert_eq!(model.parameter_count(), layers * 30);
        }
    }
}
