//! The operations that a plan states are those that a server does, for every network and every size and type of key.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use gelu_net::io::session::Role;
use gelu_net::models::plan::Plan;
use gelu_net::prelude::*;
use gelu_net::tensor::Operations;
use gelu_net::tensor::paillier::KeyParameters;
use gelu_net::tensor::{Arrangement, EncTensor, EncTensorBuilder, FixedTensor};
use ndarray::Array2;
use proptest::prelude::*;
use rand::{SeedableRng, rngs::ChaCha20Rng};

use crate::common::networks::{network, randomize, small_resnet};
use crate::common::{deployment, digits, key_of, quantization, shipped};

/// A key of each size and type.
static KEYS: LazyLock<Vec<Arc<SecretKey>>> = LazyLock::new(|| {
    let types = KeyBits::ALL.into_iter().flat_map(|size| KeyType::ALL.map(|key_type| (size, key_type)));
    types.map(|(size, key_type)| key_of(KeyParameters { size, key_type }, 3)).collect()
});

fn convolution() -> Model {
    let mut model = ModelBuilder::new([1, 6, 6])
        .conv2d("conv1", Conv2dConfig::new(2, [3, 3]))
        .avg_pool2d("pool1", [2, 2])
        .relu()
        .flatten()
        .dense("fc1", 9)
        .relu()
        .dense("fc2", 3)
        .build()
        .unwrap();
    randomize(&mut model, 3);
    model.set_ranges(Some([("input", 1.0), ("relu1", 2.0), ("relu2", 2.0)].into_iter().collect()));
    model
}

/// So much work that a large batch comes in parts.
fn wide() -> Model {
    let mut model = ModelBuilder::new([160]).dense("fc1", 120).relu().dense("fc2", 2).build().unwrap();
    randomize(&mut model, 4);
    model.set_ranges(Some([("input", 1.0), ("relu1", 2.0)].into_iter().collect()));
    model
}

/// So many columns that one image comes in parts.
fn large_image() -> Model {
    let mut model = ModelBuilder::new([16, 31, 31])
        .conv2d("conv1", Conv2dConfig::new(16, [3, 3]).with_padding([1, 1]))
        .relu()
        .flatten()
        .dense("fc1", 2)
        .build()
        .unwrap();
    randomize(&mut model, 1);
    model.set_ranges(Some([("input", 1.0), ("relu1", 2.0)].into_iter().collect()));
    model
}

/// Squarings and products apart, segment by segment and part by part. A single image's replies are stacked, those of a
/// full batch are not; a batch of many images is worked on in several parts.
#[test]
fn a_plan_states_what_a_server_does() {
    let rng = &mut ChaCha20Rng::seed_from_u64(3);
    let (mut stacked, mut packed, mut cut, mut ragged) = ([false; 2], false, false, false);
    let networks = [
        (convolution(), vec![1, 24]),
        (small_resnet(), vec![1, 3]),
        (wide(), vec![100]),
        (large_image(), vec![1]),
    ];
    for (model, batches) in networks {
        let server = ServerModel::new(model, quantization());
        for key in KEYS.iter() {
            let public = key.public_key();
            // The large batches once for each type is enough.
            let batches = batches.iter().filter(|&&batch| batch < 100 || public.size() == KeyBits::Bits1024);
            for (&batch, prefer) in batches.flat_map(|batch| Preference::ALL.map(|prefer| (batch, prefer))) {
                let program = server.program(&Deployment { prefer, ..deployment(key, batch) }).unwrap();
                let mut whole = Operations::default();
                for (index, segment) in program.plan().segments().iter().enumerate() {
                    let mut all = Operations::default();
                    let terms = segment.terms.iter().zip(&segment.layout.ups);
                    let mut inputs: Vec<EncTensorBuilder> = terms
                        .map(|(term, up)| {
                            let shape = term.map.input().clone();
                            let zeros = vec![0; batch * shape.elements()];
                            let zeros = FixedTensor::new(shape, term.format, zeros).unwrap();
                            let zeros = zeros.encrypt(up, &**key, rng).unwrap();
                            let (header, groups) = (zeros.header().clone(), segment.layout.groups_of_part());
                            let mut builder = EncTensorBuilder::new(public, header, groups).unwrap();
                            let chunks = (0..).zip(zeros.chunks());
                            chunks.for_each(|(index, chunk)| builder.push(index, &chunk).unwrap());
                            builder
                        })
                        .collect();
                    for (at, (groups, part)) in segment.layout.each_part().enumerate() {
                        let inputs: Vec<EncTensor> =
                            inputs.iter_mut().map(|input| input.next_part().unwrap()).collect();
                        public.prepare_rerandomization(part.hiding);
                        let before = public.operations();
                        let masks = segment.masks(groups, public, rng).unwrap();
                        let sums = program.sums((index, at), &inputs, masks).unwrap();
                        let fresh = public.hiding_exponents(rng, part.hiding).powers();
                        assert_eq!(
                            sums.rerandomize_with(fresh, rng).header().ciphertexts(),
                            part.hiding.ciphertexts
                        );
                        let counted = public.operations() - before;
                        assert_eq!(counted, part.operations, "{} of {batch}, {public:?}", segment.name);
                        all = all + counted;
                    }
                    assert_eq!(all, segment.layout.operations, "{} of {batch}, {public:?}", segment.name);
                    whole = whole + all;
                    stacked[usize::from(segment.layout.down.stacked() > 1)] = true;
                    packed |= segment.layout.down.fields() > 1;
                    cut |= segment.layout.parts[0].times > 1;
                    ragged |= segment.layout.parts.len() > 1;
                }
                assert_eq!(whole, program.plan().operations());
            }
        }
    }
    assert_eq!(stacked, [true, true], "both kinds of replies");
    assert!(packed, "inputs of which several share a ciphertext");
    assert!(cut && ragged, "batches in several parts, equal and not");
}

fn total(plan: &Plan) -> u64 {
    plan.operations().total()
}

/// Whole sessions of `batches` full batches and one of `rest` images: the report's products are the plans', batch by
/// batch and segment by segment, and checks are listed beside them.
fn check_report(
    server: Arc<ServerModel>,
    key: &Arc<SecretKey>,
    images: &Array2<f32>,
    prefer: Preference,
    [batch, batches, rest]: [usize; 3],
) {
    assert_eq!(images.nrows(), batch * batches + rest);
    let deployment = |batch| Deployment { prefer, ..deployment(key, batch) };
    let plan = |batch| server.program(&deployment(batch)).unwrap().plan().clone();
    let full = plan(batch);
    let ragged = (rest > 0).then(|| plan(rest));
    let report = LocalInference::shared(server.clone(), Arc::clone(key), batch)
        .preferring(prefer)
        .run(images.view(), &mut rand::rng(), |_| ())
        .unwrap();
    let expected = total(&full) * batches as u64 + ragged.as_ref().map_or(0, |plan| total(plan));
    assert_eq!(report.server.unwrap().products, expected, "{batches} of {batch}, one of {rest}");

    let of = |role| report.steps.iter().filter(move |step| step.party == role);
    let mut checks = 0;
    let mut seen: BTreeMap<String, Vec<(u64, usize)>> = BTreeMap::new();
    for step in of(Role::Server) {
        // Every ciphertext that comes in is brought into the ring, which is checked.
        assert!(step.checks >= step.ciphertexts_in as u64, "{}: {} checks", step.step, step.checks);
        checks += step.checks;
        if step.batch.is_some() {
            seen.entry(step.step.clone()).or_default().push((step.products, step.ciphertexts_out));
        }
    }
    assert_eq!(report.server.unwrap().checks, checks);
    assert!(checks > 0 && of(Role::Client).all(|step| step.products == 0 && step.checks == 0));
    for (index, segment) in full.segments().iter().enumerate() {
        let stated = |plan: &Plan| {
            let segment = &plan.segments()[index];
            (segment.layout.operations.total(), segment.ciphertexts_down())
        };
        let mut stated_all = vec![stated(&full); batches];
        stated_all.extend(ragged.as_ref().map(|plan| stated(plan)));
        assert_eq!(seen[&segment.name], stated_all, "{}", segment.name);
    }
    // The client encrypts and decrypts as many as the plan says.
    let plans = || std::iter::repeat_n(&full, batches).chain(&ragged);
    let up = |plan: &Arc<Plan>| plan.segments().iter().map(|segment| segment.ciphertexts_up()).sum::<usize>();
    let down =
        |plan: &Arc<Plan>| plan.segments().iter().map(|segment| segment.ciphertexts_down()).sum::<usize>();
    assert_eq!(report.client.encryptions, plans().map(up).sum::<usize>());
    assert_eq!(report.client.decryptions, plans().map(down).sum::<usize>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sessions_of_any_network_take_the_products_that_plans_state(
        network in network(),
        // Most are of 1,024 bits, whose numbers are soon computed with.
        key in prop::sample::select(vec![0usize, 0, 0, 1, 1, 1, 2, 3, 4, 5, 6, 7]),
        batch in prop_oneof![4 => 1usize..=3, 1 => 30usize..=60],
        batches in 1usize..=3,
        rest in 0usize..=2,
        prefer in prop::sample::select(Preference::ALL.to_vec()),
    ) {
        let rest = rest.min(batch - 1);
        let key = &KEYS[key];
        // Large keys hold more images than these.
        let batches = if key.public_key().size() == KeyBits::Bits1024 { batches } else { 1 };
        let (model, images) = network.calibrated(batch * batches + rest);
        check_report(Arc::new(ServerModel::new(model, quantization())), key, &images, prefer, [batch, batches, rest]);
    }
}

#[test]
fn sessions_of_shipped_networks_take_the_products_that_plans_state() {
    let images = digits(5, 7);
    for name in ["conv1", "lenet5"] {
        let server = Arc::new(ServerModel::new(shipped(name), Quantization::default()));
        for key in &KEYS[..4] {
            check_report(server.clone(), key, &images, Preference::default(), [3, 2, 1]);
        }
    }
}

/// Two batches that the server works on in parts.
#[test]
fn sessions_of_batches_in_parts_take_the_products_that_plans_state() {
    let server = Arc::new(ServerModel::new(wide(), quantization()));
    let images = Array2::from_shape_fn((301, 160), |(i, j)| ((i * 7 + j * 13) % 32) as f32 / 32.0);
    for key in &KEYS[..2] {
        let plan = server.program(&deployment(key, 100)).unwrap().plan().clone();
        assert!(plan.segments()[0].layout.parts[0].times > 1);
        check_report(server.clone(), key, &images, Preference::default(), [100, 3, 1]);
    }
}

/// Of one image, too, the server works on some columns while others are on their way.
#[test]
fn columns_of_one_image_come_in_parts() {
    let model = large_image();
    let server = ServerModel::new(model, quantization());
    let program = server.program(&deployment(&KEYS[2], 1)).unwrap();
    let layout = &program.plan().segments()[0].layout;
    assert!(matches!(layout.ups[0].arrangement(), Arrangement::Patches(_)), "{}", layout.ups[0]);
    assert!(layout.parts[0].times > 3, "{:?}", layout.parts);
}

/// Parts share no ciphertext, and together they are the batch.
#[test]
fn parts_cover_a_batch() {
    let server = ServerModel::new(wide(), quantization());
    for batch in [1, 2, 37, 38, 39, 100, 101, 400, 1024] {
        let program = server.program(&deployment(&KEYS[0], batch)).unwrap();
        for segment in program.plan().segments() {
            let groups = segment.layout.down.groups(batch);
            let (mut next, mut ciphertexts) = (0, 0);
            for (range, part) in segment.layout.each_part() {
                assert_eq!((range.start, range.len()), (next, part.groups));
                (next, ciphertexts) = (range.end, ciphertexts + part.hiding.ciphertexts);
            }
            assert_eq!((next, ciphertexts), (groups, segment.ciphertexts_down()), "{batch}");
        }
    }
}
