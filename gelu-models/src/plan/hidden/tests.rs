//! Hidden networks: what they take, and, with the linear part in the clear, that shares and garbled circuits give the integers
//! of the run in the clear.

use gelu_garble::{Choices, Delta, Evaluator, Garbler, LabelSender, Labels, Opening};
use gelu_layers::{Activation, Conv2dConfig, StepWires};
use gelu_tensor::Window;
use gelu_tensor::paillier::KeyBits;
use ndarray::Array2;
use proptest::prelude::*;
use rand::{Rng, RngExt, SeedableRng, rngs::ChaCha20Rng};

use super::*;
use crate::plan::{Need, Program, Quantization, Run};
use crate::tests::{calibrated, images};
use crate::{Model, ModelBuilder, zoo};

fn program(model: &Model, quantization: &Quantization, batch: usize) -> Program {
    let deployment = Deployment { key: KeyBits::Bits2048.into(), batch, lanes: 8, ..Deployment::default() };
    model.compile(quantization, &deployment).unwrap()
}

fn lenet5() -> Model {
    let mut model = zoo::lenet5().unwrap();
    crate::tests::fill(&mut model, 5);
    let images = images(&model, 3, 7);
    model.calibrate(images.view()).unwrap();
    model
}

fn residues(ring: Ring, values: &[i64]) -> Vec<u64> {
    values.iter().map(|&value| ring.wrap(value as u64)).collect()
}

/// One image by both parties, who are one function here. What Paillier does ahead, a client's masks times the server's weights
/// plus the server's masks, is done in the clear. Returns the last sums, or the class.
fn run_on_shares(
    program: &Program,
    hidden: &HiddenPlan,
    image: &Array2<f32>,
    rng: &mut ChaCha20Rng,
) -> Vec<i64> {
    let plan = program.plan();
    let (opening, delta) = (Opening::new(rng), Delta::random(rng));
    let (mut sender, answer) = LabelSender::new(&delta, &opening.message(), rng).unwrap();
    let mut receiver = opening.finish(&answer).unwrap();
    // The client quantizes its image as ever.
    let (_, need) = Run::start(plan.clone(), Default::default(), image.view()).unwrap();
    let Need::Sums { inputs, .. } = need else { panic!("a segment") };
    let ring = |index: usize| Ring::new(hidden.segments[index].ring.bits()).unwrap();
    // What the server has of each segment's inputs: x - r, and what the client has: r.
    let mut client: Vec<Vec<u64>> = vec![];
    let mut server: Vec<Vec<u64>> = vec![];
    for input in &inputs {
        let masks: Vec<u64> = input.values().iter().map(|_| ring(0).wrap(rng.random())).collect();
        let shares = residues(ring(0), input.values());
        server.push(shares.iter().zip(&masks).map(|(x, r)| ring(0).wrap(x.wrapping_sub(*r))).collect());
        client.push(masks);
    }
    for (index, (segment, own)) in plan.segments().iter().zip(&hidden.segments).enumerate() {
        let ring = ring(index);
        assert_eq!(segment.terms.len(), 1, "chains only");
        let weights: Vec<u64> =
            program.weights(index)[0].values().iter().map(|&weight| i64::from(weight) as u64).collect();
        assert_eq!(ring.pack(&server[0]).len(), own.shares);
        let multiplied = |x: &[u64]| {
            let x: Vec<i64> = x.iter().map(|&x| x as i64).collect();
            segment.terms[0].map.apply_wrapping(&weights, &x).unwrap()
        };
        let bias = segment.bias(&program.lowered.segments[index].bias).unwrap();
        let bias: Vec<i64> = bias.map_or(vec![0; segment.shape.elements()], |bias| bias.values().to_vec());
        let step = super::step(plan, index);
        let offset = step.map_or(0, IntegerStep::offset);
        // Ahead: c = W r + s. With the image: d = W (x - r) + b - s, and what rounding adds.
        let masks: Vec<u64> = bias.iter().map(|_| rng.next_u64()).collect();
        let sums = multiplied(&client[0]).into_iter().zip(&masks);
        let c: Vec<u64> = sums.map(|(sum, mask)| ring.wrap(sum.wrapping_add(*mask))).collect();
        let sums = multiplied(&server[0]).into_iter().zip(&masks).zip(&bias);
        let d: Vec<u64> = sums
            .map(|((sum, mask), bias)| {
                ring.wrap(sum.wrapping_sub(*mask).wrapping_add((bias + offset) as u64))
            })
            .collect();
        if step.is_none() && hidden.reveal == Reveal::Logits {
            assert_eq!(ring.pack(&d).len(), own.answer);
            return c.iter().zip(&d).map(|(c, d)| ring.signed(ring.wrap(c.wrapping_add(*d)))).collect();
        }
        let values = d.len();
        let width = if step.is_some() { values } else { 1 };
        // Of the class, one circuit has all sums: bits of the first, then of the next.
        let order = |shares: &[u64]| match step {
            Some(_) => Choices::of_numbers(shares, ring.bits()).unwrap(),
            None => {
                let bits = shares.iter().flat_map(|share| (0..ring.bits()).map(move |bit| share >> bit & 1));
                Choices::of_numbers(&bits.collect::<Vec<_>>(), 1).unwrap()
            }
        };
        let choices = order(&c);
        let (message, own_labels) = receiver.extend(&choices).unwrap();
        assert_eq!(message.len(), own.transfers);
        let zeros = [sender.extend(&message, choices.len()).unwrap(), Labels::random(choices.len(), rng)];
        let mut garbler = Garbler::new(&delta, width, rng).unwrap();
        let [a, b] = zeros.each_ref().map(|zeros| garbler.input(zeros).unwrap());
        let result = circuit(&mut garbler, (step, ring), &a, &b);
        let next = (index + 1 < hidden.segments.len()).then(|| self::ring_of(hidden, index + 1));
        let share = match next {
            Some(next) => garbler.project(&result.wires, result.signed, next).to_vec(),
            None => {
                garbler.reveal(&result.wires);
                vec![]
            }
        };
        assert_eq!(garbler.ands() * width, own.ands);
        let tables = garbler.finish().unwrap();
        assert_eq!(tables.len(), own.tables, "segment {index}");
        let labels = delta.active(&zeros[1], &order(&d)).unwrap();
        assert_eq!(labels.to_le_bytes().len(), own.answer);
        let mut evaluator = Evaluator::new(&tables, width).unwrap();
        let [a, b] = [&own_labels, &labels].map(|labels| evaluator.input(labels).unwrap());
        let result = circuit(&mut evaluator, (step, ring), &a, &b);
        let Some(next) = next else {
            let class = evaluator.reveal(&result.wires)[0];
            evaluator.finish().unwrap();
            return vec![class as i64];
        };
        let other = evaluator.project(&result.wires, next);
        evaluator.finish().unwrap();
        // The client hides its share by the next mask; the server adds its own.
        let term = &plan.segments()[index + 1].terms[0];
        let summed = |shares: &[u64]| match term.sums.as_deref() {
            None => shares.to_vec(),
            Some(sums) => {
                let shares: Vec<i64> = shares.iter().map(|&share| share as i64).collect();
                sums.apply_wrapping(&[1], &shares).unwrap()
            }
        };
        let share: Vec<u64> = share.iter().map(|share| share.wrapping_add(result.base as u64)).collect();
        let (share, other) = (summed(&share), summed(&other));
        let masks: Vec<u64> = other.iter().map(|_| next.wrap(rng.next_u64())).collect();
        let sent = other.iter().zip(&masks).map(|(share, mask)| share.wrapping_sub(*mask));
        server = vec![sent.zip(&share).map(|(sent, share)| next.wrap(sent.wrapping_add(*share))).collect()];
        client = vec![masks];
    }
    panic!("no end")
}

fn ring_of(hidden: &HiddenPlan, index: usize) -> Ring {
    Ring::new(hidden.segments[index].ring.bits()).unwrap()
}

/// What is behind the sums of a segment, on shares.
fn circuit<B: Bits>(
    bits: &mut B,
    (step, ring): (Option<&IntegerStep>, Ring),
    a: &[B::Wire],
    b: &[B::Wire],
) -> StepWires<B::Wire> {
    let numbers = a.chunks(ring.bits() as usize).zip(b.chunks(ring.bits() as usize));
    let sums: Vec<Vec<B::Wire>> = numbers.map(|(a, b)| circuits::add(bits, a, b)).collect();
    match step {
        Some(step) => step.circuit(bits, &sums[0]),
        None => StepWires { wires: circuits::argmax(bits, &sums), signed: false, base: 0 },
    }
}

fn check(program: &Program, model: &Model, seed: u64) {
    let rng = &mut ChaCha20Rng::seed_from_u64(seed);
    let images = images(model, 2, seed);
    for image in images.outer_iter() {
        let image = image.to_owned().insert_axis(ndarray::Axis(0));
        let outcome = program.run_clear(image.view()).unwrap();
        let hidden = HiddenPlan::new(program.plan(), Reveal::Logits, 40).unwrap();
        assert_eq!(run_on_shares(program, &hidden, &image, rng), outcome.integers.values());
        if let Ok(hidden) = HiddenPlan::new(program.plan(), Reveal::Class, 40) {
            let class = run_on_shares(program, &hidden, &image, rng);
            assert_eq!(class, [outcome.predictions()[0] as i64]);
        }
    }
}

#[test]
fn lenet5_on_shares_gives_the_integers_of_the_clear_run() {
    let model = lenet5();
    check(&program(&model, &Quantization::default(), 1), &model, 1);
}

#[test]
fn a_hidden_lenet5_takes_what_its_numbers_say() {
    let model = lenet5();
    let program = program(&model, &Quantization::default(), 25);
    let hidden = HiddenPlan::new(program.plan(), Reveal::Logits, 40).unwrap();
    assert_eq!((hidden.round_trips(), hidden.reveal()), (5, Reveal::Logits));
    for (own, segment) in hidden.segments().iter().zip(program.plan().segments()) {
        let bits = segment.format.slot_bits();
        assert!((bits..bits + 2).contains(&(own.ring.bits() as usize)), "{}", own.name);
        assert!((60..100).contains(&own.flood.slot_bits()), "{}", own.flood.slot_bits());
        // Slots are images and columns of all of them.
        assert!(own.layout.down.slot_bits() >= own.flood.slot_bits());
        assert!(own.layout.ups[0].width() > 1);
    }
    let sum = |each: fn(&HiddenSegment) -> usize| hidden.segments().iter().map(each).sum::<usize>();
    let ands = sum(|segment| segment.ands);
    // 1,324 activations of about 45 ANDs, 32 bytes each, and 31 bytes of a projection.
    assert!((50_000..75_000).contains(&ands), "{ands}");
    let tables = sum(|segment| segment.tables);
    assert!((ands * 32..ands * 32 + 1324 * 40).contains(&tables), "{tables}");
    assert!((400_000..700_000).contains(&sum(|segment| segment.answer)));
    assert!(sum(|segment| segment.shares) < 12_000);
    let class = HiddenPlan::new(program.plan(), Reveal::Class, 40).unwrap();
    let [last, of_class] = [&hidden, &class].map(|plan| &plan.segments()[4]);
    assert!(last.ands == 0 && last.tables == 0 && last.transfers == 0);
    assert!(of_class.ands > 300 && of_class.answer == 10 * of_class.ring.bits() as usize * 16);
}

#[test]
fn nodes_that_cannot_be_computed_on_shares_are_named() {
    let same = || Conv2dConfig::new(2, [3, 3]).with_padding([1, 1]);
    let refused = |builder: ModelBuilder| {
        let program = program(&calibrated(builder), &Quantization::default(), 1);
        match HiddenPlan::new(program.plan(), Reveal::Class, 40) {
            Err(PlanError::Hidden { node }) => node,
            other => panic!("{other:?}"),
        }
    };
    let start = || ModelBuilder::new([1, 4, 4]).conv2d("a", same());
    assert_eq!(refused(start().activation(Activation::Gelu).flatten().dense("b", 3)), "gelu1");
    let pooled = start().relu().max_pool2d_with(Window::new([2, 2])).flatten().dense("b", 3);
    assert_eq!(refused(pooled), "relu1");
    let residual = start().residual(|main| main.relu().conv2d("c", same())).relu().flatten().dense("b", 3);
    let node = refused(residual);
    assert!(["relu1", "add1"].contains(&&*node), "{node}");
    // A class is that of the last sums.
    assert_eq!(refused(start().relu().flatten().dense("b", 3).tanh()), "tanh1");
    let large = program(&calibrated(start().relu().flatten().dense("b", 3)), &Quantization::default(), 1);
    let error = HiddenPlan::new(large.plan(), Reveal::Logits, 65).unwrap_err();
    assert!(matches!(error, PlanError::Numbers { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn random_chains_on_shares_give_the_integers_of_the_clear_run(
        seed: u64, which in 0..6usize, weight_bits in 2u32..12, activation_bits in 2u32..12, pool: bool, padded: bool,
        margin in 0.3f64..1.5,
    ) {
        let activation = [
            Activation::Relu,
            Activation::Relu6,
            Activation::Clip { min: -0.4, max: 0.9 },
            Activation::LeakyRelu { slope: 0.25 },
            Activation::Sigmoid,
            Activation::Tanh,
        ][which];
        let padding = usize::from(padded);
        let conv = Conv2dConfig::new(3, [3, 3]).with_padding([padding, padding]);
        let builder = ModelBuilder::new([2, 6, 6]).conv2d("a", conv).activation(activation);
        let builder = if pool { builder.conv2d("b", Conv2dConfig::new(2, [3, 3])).avg_pool2d("pool", [2, 2]) } else { builder };
        let builder = if pool { builder.activation(activation) } else { builder };
        let mut model = builder.flatten().dense("c", 5).relu().dense("d", 4).softmax().build().unwrap();
        crate::tests::fill(&mut model, seed);
        let inputs = images(&model, 4, seed ^ 1);
        model.calibrate(inputs.view()).unwrap();
        let quantization =
            Quantization { weight_bits, activation_bits, range_margin: margin, ..Quantization::default() };
        let program = program(&model, &quantization, 1);
        // Sigmoid and tanh of too many steps are refused.
        let refused = HiddenPlan::new(program.plan(), Reveal::Logits, 40).is_err();
        prop_assume!(!refused);
        check(&program, &model, seed);
    }
}
