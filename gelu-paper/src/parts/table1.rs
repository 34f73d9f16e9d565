//! Table 1: the time of one activation, as a polynomial on ciphertexts and by ours.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use fhe::bfv::Ciphertext;
use gelu_layers::Activation;
use gelu_tensor::paillier::SecretKey;
use gelu_tensor::{Contents, FixedTensor, Format, Packing, Shape, SlotLayout};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::{KEYS, KEYS_NOTE, Part, Setting, median};
use crate::bfv::{Channel, Parameters, Step, SumRow, Sums, Term};
use crate::link::Link;
use crate::picture::{Bar, Picture, Who};
use crate::report::digits;
use crate::results::{Figure, Findings, Row, Table};

/// The sums that activations are of: those of LeNet-5's first layer in Table 4, of pixels of 4 bits and weights of 6.
const SUM_BITS: u32 = 12;
/// Bits of such a sum that are its fraction: it stands for reals up to 8 in absolute value.
const FRACTION_BITS: u32 = 9;
/// What noise grows by in such a sum.
const GROWTH_BITS: u32 = 8;
/// What LeNet-5's results take in Table 4.
const NETWORK_BITS: u32 = 70;
/// What the Taylor polynomial of such a sum takes.
const TAYLOR_BITS: u32 = 61;
/// Slots of ours in LeNet-5's first layer.
const SLOT_BITS: usize = 20;
/// Ciphertexts of ours in a batch.
const TOGETHER: usize = 64;
/// The paper's network, with a delay that such networks have.
const LINK: Link = Link { rate: 1e9, delay: Duration::from_micros(100) };

pub(super) fn run(setting: &Setting) -> anyhow::Result<Findings> {
    let runs = if setting.quick { 5 } else { 15 };
    let mut findings = Findings::default();
    let command = setting.command(Part::Table1);
    let mut add = |label: String, unit: &str, paper: Option<f64>, here: f64| {
        let (unit, paper, here) = (unit.to_owned(), paper.map(Figure::from), Some(here.into()));
        findings.rows.push(Row { label, unit, paper, here, command: command.clone() });
    };
    let mut bars: Vec<Bar> = [("square", 90.6), ("5th order", 1619.6), ("GELU-Net", 8.9)]
        .map(|(label, value)| Bar { label: format!("{label}, the paper's"), value, who: Who::Paper })
        .to_vec();
    let mut rows = vec![];
    let sums = Step::Sums { growth_bits: GROWTH_BITS, products: 0 };
    let product = Step::Products(1);
    // Two squares, as in LeNet-5; and three products in a row.
    let network = vec![sums, product, sums, Step::Relinearize, product, sums];
    let order_5 = [&[sums], &[product, Step::Relinearize].repeat(3)[..]].concat();
    for (polynomial, paper, bits, steps) in [
        (Polynomial::Square, 90.6, NETWORK_BITS, network),
        (Polynomial::Taylor5, 1619.6, TAYLOR_BITS, order_5),
    ] {
        setting.progress(Part::Table1, &format!("{} under BFV", polynomial.name()));
        let parameters = Parameters::choose(bits, &steps)?;
        let Measured { one, batch, headroom } = rival(polynomial, &parameters, runs)?;
        add(format!("{}, one value", polynomial.name()), "ms", Some(paper), 1e3 * one);
        add(format!("{}, a value of a full batch", polynomial.name()), "us", None, 1e6 * batch);
        bars.push(Bar { label: format!("{}, here", polynomial.name()), value: 1e3 * one, who: Who::Rival });
        rows.push(vec![
            polynomial.name().to_owned(),
            bits.to_string(),
            parameters.degree.to_string(),
            parameters.modulus_bits().to_string(),
            parameters.plaintext_moduli.len().to_string(),
            headroom.to_string(),
        ]);
    }
    let header = [
        "polynomial",
        "bits of results",
        "degree and slots",
        "bits of the ciphertext modulus",
        "plaintext moduli",
        "bits of noise budget left",
    ];
    let title = "Parameters under BFV, of 128-bit security".to_owned();
    findings.tables.push(Table { title, header: header.map(str::to_owned).to_vec(), rows });

    let one_thread = ThreadPoolBuilder::new().num_threads(1).build().context("threads")?;
    let activation = activation_seconds(runs);
    for (keys, parameters) in KEYS {
        setting.progress(Part::Table1, &format!("ours, {keys}"));
        let ours = ours(&setting.key(parameters)?, &one_thread, runs)?;
        let parts = [
            ("transfer", 5.0, ours.transfer),
            ("transfer over an emulated link", 5.0, ours.emulated),
            ("encrypt and decrypt", 3.7, ours.crypto),
            ("activation", 0.2, activation),
        ];
        for (part, paper, seconds) in parts {
            add(format!("ours, one value, {part}, {keys}"), "ms", Some(paper), 1e3 * seconds);
        }
        let total = ours.transfer + ours.crypto + activation;
        add(format!("ours, one value, all, {keys}"), "ms", Some(8.9), 1e3 * total);
        add(format!("ours, a value of a full batch, {keys}"), "us", None, 1e6 * (ours.of_batch + activation));
        bars.push(Bar { label: format!("ours, {keys}"), value: 1e3 * total, who: Who::Ours });
    }
    let title = "Time of one activation of one value".to_owned();
    findings.pictures.push(Picture::Bars { title, unit: "ms".to_owned(), bars });
    findings.notes = notes();
    Ok(findings)
}

/// An activation that ciphertexts can compute.
#[derive(Clone, Copy, Debug)]
enum Polynomial {
    Square,
    /// The sigmoid's Taylor polynomial at 0: 1/2 + x/4 - x^3/48 + x^5/480.
    Taylor5,
}

impl Polynomial {
    fn name(self) -> &'static str {
        match self {
            Self::Square => "square",
            Self::Taylor5 => "5th-order Taylor",
        }
    }

    /// The integer that an integer becomes: of the Taylor polynomial, 480 times it at one to the fifth.
    fn of(self, x: i128) -> i128 {
        let one = 1_i128 << FRACTION_BITS;
        match self {
            Self::Square => x * x,
            Self::Taylor5 => 240 * one.pow(5) + 120 * one.pow(4) * x - 10 * one.pow(2) * x.pow(3) + x.pow(5),
        }
    }

    /// The same of all slots. The Taylor polynomial takes three products: x^2 (x^2 - 10 one^2), and x (that + 120 one^4).
    fn encrypted(self, channel: &Channel, x: &Ciphertext) -> fhe::Result<Ciphertext> {
        let product = |a: &Ciphertext, b: &Ciphertext| {
            let mut product = a * b;
            channel.relinearize(&mut product)?;
            Ok::<_, fhe::Error>(product)
        };
        let plus = |x: Ciphertext, bias: i128| {
            let rows = vec![SumRow { terms: vec![Term { input: 0, weight: 1 }], bias }];
            Ok::<_, fhe::Error>(Sums { rows }.apply(channel, &[x])?.remove(0))
        };
        let square = product(x, x)?;
        let one = 1_i128 << FRACTION_BITS;
        match self {
            Self::Square => Ok(square),
            Self::Taylor5 => {
                let inner = plus(square.clone(), -10 * one.pow(2))?;
                let inner = plus(product(&square, &inner)?, 120 * one.pow(4))?;
                plus(product(x, &inner)?, 240 * one.pow(5))
            }
        }
    }
}

/// What a rival's activation takes.
struct Measured {
    /// Seconds of a ciphertext modulo all plaintext moduli, on one thread.
    one: f64,
    /// Seconds of a slot, where every thread has a ciphertext.
    batch: f64,
    headroom: u32,
}

fn rival(polynomial: Polynomial, parameters: &Parameters, runs: usize) -> anyhow::Result<Measured> {
    let channel = |&modulus: &u64| Channel::new(parameters, modulus, 1, &mut rand_fhe::rng());
    let channels = parameters.plaintext_moduli.iter().map(channel).collect::<fhe::Result<Vec<_>>>()?;
    let largest = 1_i128 << SUM_BITS;
    let values: Vec<i128> =
        (0..parameters.degree as i128).map(|slot| slot * 4099 % (2 * largest) - largest).collect();
    let encrypted = channels.iter().map(|channel| channel.encrypt(&values, &mut rand_fhe::rng()));
    let encrypted = encrypted.collect::<fhe::Result<Vec<_>>>()?;
    let all = || -> fhe::Result<Vec<Ciphertext>> {
        channels.iter().zip(&encrypted).map(|(channel, x)| polynomial.encrypted(channel, x)).collect()
    };
    let results = all()?;
    let residues = channels
        .iter()
        .zip(&results)
        .map(|(channel, x)| channel.decrypt(x))
        .collect::<fhe::Result<Vec<_>>>()?;
    for (slot, &value) in values.iter().enumerate() {
        let found = parameters.combine(residues.iter().map(|channel| channel[slot]));
        let expected = polynomial.of(value);
        ensure!(found == expected, "{}({value}): expected {expected}, found {found}", polynomial.name());
    }
    let headroom = channels.iter().zip(&results).map(|(channel, x)| channel.headroom(x));
    let headroom = headroom.collect::<fhe::Result<Vec<_>>>()?.into_iter().min().unwrap_or(0);
    let one_thread = ThreadPoolBuilder::new().num_threads(1).build().context("threads")?;
    let (mut one, mut batch) = (vec![], vec![]);
    for _ in 0..runs {
        one.push(one_thread.install(|| timed(&all))?);
        let threads = rayon::current_num_threads();
        let together = || (0..threads).into_par_iter().map(|_| all()).collect::<fhe::Result<Vec<_>>>();
        batch.push(timed(&together)? / (threads * parameters.degree) as f64);
    }
    Ok(Measured { one: median(one), batch: median(batch), headroom })
}

/// The seconds that work takes.
fn timed<T, E>(work: &(impl Fn() -> Result<T, E> + ?Sized)) -> Result<f64, E> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

/// What encryption, decryption and the way between them take for ours, in seconds.
struct Ours {
    /// One value there and back, by the rate and delay of the paper's network.
    transfer: f64,
    /// The same over a link that is emulated.
    emulated: f64,
    /// One value, on one thread.
    crypto: f64,
    /// A value of a batch of full ciphertexts, on all threads, with the transfer.
    of_batch: f64,
}

fn ours(key: &SecretKey, one_thread: &ThreadPool, runs: usize) -> anyhow::Result<Ours> {
    let format = Format::integers(1 << SUM_BITS)?.with_scale_bits(FRACTION_BITS as i32)?;
    let slots = key.public_key().size().bits() / SLOT_BITS;
    let values =
        |count: usize| (0..count as i64).map(|i| i * 97 % (2 << SUM_BITS) - (1 << SUM_BITS)).collect();
    let layout = |batch: usize| {
        let packing = Packing { batch, slot_bits: SLOT_BITS, key: key.public_key().size() };
        SlotLayout::images(packing, Contents::Integers(format))
    };
    let there_and_back = |tensor: &FixedTensor, layout: &SlotLayout| -> anyhow::Result<usize> {
        let encrypted = tensor.encrypt(layout, key, &mut rand::rng())?;
        let bytes = encrypted.encode_ciphertexts().len();
        ensure!(
            encrypted.decrypt(key)? == *tensor,
            "decryption gives other values; please report this as a bug"
        );
        Ok(bytes)
    };
    let one = FixedTensor::new(Shape::from([1]), format, values(1))?;
    let full = FixedTensor::new(Shape::from([TOGETHER]), format, values(TOGETHER * slots))?;
    let (one_layout, full_layout) = (layout(1)?, layout(slots)?);
    // The first makes the key's tables.
    let (one_bytes, full_bytes) = (there_and_back(&one, &one_layout)?, there_and_back(&full, &full_layout)?);
    let (mut times, mut of_batch) = (vec![], vec![]);
    for _ in 0..runs {
        times.push(one_thread.install(|| timed(&|| there_and_back(&one, &one_layout)))?);
        of_batch.push(timed(&|| there_and_back(&full, &full_layout))?);
    }
    let transfer = |bytes: usize| 2.0 * (LINK.seconds(bytes) + LINK.delay.as_secs_f64());
    let emulated = median(LINK.there_and_back(one_bytes, 10 * runs)?);
    let of_batch = (median(of_batch) + transfer(full_bytes)) / (TOGETHER * slots) as f64;
    Ok(Ours { transfer: transfer(one_bytes), emulated, crypto: median(times), of_batch })
}

/// The seconds that a sigmoid of a real takes, with rounding to the integer that is encrypted.
fn activation_seconds(runs: usize) -> f64 {
    let inputs: Vec<f32> = (0..4096).map(|i| (i - 2048) as f32 / 256.0).collect();
    let one = f64::from(1 << FRACTION_BITS) as f32;
    let once = || {
        let start = Instant::now();
        let sum: i64 = inputs.iter().map(|&x| (Activation::Sigmoid.apply(x) * one).round() as i64).sum();
        std::hint::black_box(sum);
        start.elapsed().as_secs_f64() / inputs.len() as f64
    };
    median((0..runs).map(|_| once()).collect())
}

fn notes() -> Vec<String> {
    vec![
        format!(
            "Transfer is the bytes of the ciphertexts there and back at {} Gbit/s, headers of packets included, with {} ms each way: a model, \
             which the sums take. Beside it stands what they take over TCP with a proxy between that lets through as much, as late; its threads \
             wake late by some ten microseconds each. All else is measured: one value on one thread, full batches on all threads, medians.",
            digits(LINK.rate / 1e9),
            digits(1e3 * LINK.delay.as_secs_f64())
        ),
        format!(
            "One value takes a ciphertext of its own in either scheme. A full batch fills all slots: those of the degree under BFV, and \
             {} slots of {SLOT_BITS} bits under a key of 2048 bits, in {TOGETHER} ciphertexts.",
            2048 / SLOT_BITS
        ),
        format!(
            "Squares have the parameters that LeNet-5 takes in Table 4 (results of {NETWORK_BITS} bits, two squares). The Taylor polynomial is \
             the sigmoid's, 1/2 + x/4 - x^3/48 + x^5/480, of a first layer's sums ({SUM_BITS} bits and a sign), in integers and with three \
             products; its parameters are for that one activation. A network with two of them would need far larger ones. Either is computed \
             modulo all its plaintext moduli, with relinearization, and all slots are checked."
        ),
        KEYS_NOTE.to_owned(),
        "Ours computes the sigmoid itself, in floats, and rounds it. The paper does not say which activation it timed, nor with which \
         parameters; its total of 8.9 ms is what its parts add up to."
            .to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType};

    use super::*;

    #[test]
    fn polynomials_are_what_they_are_called() {
        let one = f64::from(1 << FRACTION_BITS);
        let x = 0.75_f64;
        let expected = 0.5 + x / 4.0 - x.powi(3) / 48.0 + x.powi(5) / 480.0;
        let found = Polynomial::Taylor5.of((x * one) as i128) as f64 / (480.0 * one.powi(5));
        assert!((found - expected).abs() < 1e-12);
        assert!((found - Activation::Sigmoid.apply(0.75)).abs() < 1e-3);
        assert!(
            Polynomial::Taylor5.of(1 << SUM_BITS) < 1 << TAYLOR_BITS
                && Polynomial::Taylor5.of(-(1 << SUM_BITS)) > -(1 << TAYLOR_BITS)
        );
        assert_eq!(Polynomial::Square.of(-7), 49);
    }

    #[test]
    fn ciphertexts_give_the_polynomial() {
        // Few and short primes: quick, and not secure.
        let chosen = Parameters::choose(TAYLOR_BITS, &[Step::Products(1); 3]).unwrap();
        let parameters = Parameters { degree: 1024, limb_bits: vec![62; 4], ..chosen };
        for polynomial in [Polynomial::Square, Polynomial::Taylor5] {
            let measured = rival(polynomial, &parameters, 1).unwrap();
            assert!(measured.headroom > 0 && measured.one > 0.0 && measured.batch > 0.0);
        }
    }

    #[test]
    fn ours_comes_back() {
        let parameters = KeyParameters { size: KeyBits::Bits1024, key_type: KeyType::Subgroup };
        let key = SecretKey::generate(parameters, &mut rand::rng()).unwrap();
        let pool = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let ours = ours(&key, &pool, 1).unwrap();
        // 256 bytes there and back at 1 Gbit/s.
        let modelled = 2.0 * (256.0 * 8e-9 * 1514.0 / 1448.0 + 1e-4);
        assert!((ours.transfer - modelled).abs() < 1e-9, "{}", ours.transfer);
        // A link that is emulated is late, and never early.
        assert!(ours.emulated > 0.9 * ours.transfer, "{}", ours.emulated);
        assert!(ours.of_batch < ours.crypto + ours.transfer);
    }
}
