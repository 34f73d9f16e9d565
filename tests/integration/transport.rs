//! What crosses between client and server: ciphertexts and public facts, never the same ciphertext twice.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;

use gelu_net::io::session::{ClientSession, serve};
use gelu_net::io::transport::{Disconnected, InProcess, Transport};
use gelu_net::models::infer::Position;
use gelu_net::models::infer::{Client, Message, Server};
use gelu_net::models::peer::Part;
use gelu_net::models::peer::Peer;
use gelu_net::models::plan::Plan;
use gelu_net::prelude::*;
use gelu_net::tensor::EncTensor;
use gelu_net::tensor::hazmat::Residues;
use gelu_net::tensor::paillier::SecretKeyBytes;
use gelu_net::tensor::{Decryption, EncTensorBuilder, EncTensorHeader};
use gelu_net::wire::decode_message;
use ndarray::{Array2, ArrayView2};
use num_bigint::BigUint;

use crate::common::networks::{inputs, randomize, small_resnet};
use crate::common::{KEY, backend, deployment, digits, quantization, shipped};

/// All messages of a session of one batch each, as bytes: up, down.
struct Tapped {
    up: Vec<Vec<u8>>,
    down: Vec<Vec<u8>>,
}

/// Runs batches of images with a tap between the two ends that copies every byte.
fn tapped(model: Model, batches: &[ArrayView2<'_, f32>]) -> Tapped {
    let (client_end, tap_up) = InProcess::pair();
    let (tap_down, server_end) = InProcess::pair();
    let server = Server::new(Arc::new(ServerModel::new(model, quantization())));
    thread::scope(|scope| {
        let serving = scope.spawn(move || serve(&server_end, server, &mut rand::rng()).1);
        let tapping = scope.spawn(move || {
            let mut tapped = Tapped { up: vec![], down: vec![] };
            let pass = |from: &InProcess, to: &InProcess, copies: &mut Vec<Vec<u8>>| {
                while let Some(message) = from.try_receive()? {
                    copies.push(message.clone());
                    to.send(message)?;
                }
                Ok::<_, Disconnected>(())
            };
            // Either end hangs up when it is done.
            while pass(&tap_up, &tap_down, &mut tapped.up).is_ok()
                && pass(&tap_down, &tap_up, &mut tapped.down).is_ok()
            {
                thread::yield_now();
            }
            tapped
        });
        let rng = &mut rand::rng();
        let client = Client::new(Arc::clone(&KEY), batches[0].nrows() as u32);
        let mut session = ClientSession::open(&client_end, client, rng).unwrap();
        session.infer_all(batches.iter().copied(), rng, |_| ()).unwrap();
        session.finish(rng).unwrap();
        drop(client_end);
        serving.join().unwrap().unwrap();
        tapping.join().unwrap()
    })
}

fn decoded(messages: &[Vec<u8>]) -> Vec<Message> {
    let decode = |bytes| decode_message(bytes, Some(KEY.public_key())).unwrap();
    messages.iter().map(|bytes| decode(bytes)).collect()
}

fn ciphertexts(messages: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let width = KEY.public_key().ciphertext_bytes();
    let chunks = decoded(messages).into_iter().filter_map(|message| match message {
        Message::Tensor { ciphertexts, .. } => Some(ciphertexts.encode()),
        _ => None,
    });
    chunks.flat_map(|bytes| bytes.chunks(width).map(<[u8]>::to_vec).collect::<Vec<_>>()).collect()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// Runs of at least eight different neighbors in the bytes of `whole`: enough not to be met by chance.
fn telling_runs(whole: &[u8], length: usize) -> Vec<&[u8]> {
    let telling = |run: &&[u8]| run.iter().collect::<HashSet<_>>().len() >= length / 2;
    whole.chunks_exact(length).filter(telling).collect()
}

/// The networks that are listened to, with two images for each: one is a chain, one has branches.
fn networks() -> [(Model, Array2<f32>); 2] {
    let resnet = small_resnet();
    let images = inputs(&resnet, 2, 14);
    [(shipped("conv1"), digits(8, 2)), (resnet, images)]
}

#[test]
fn neither_primes_nor_pixels_nor_weights_cross() {
    for (model, images) in networks() {
        let tapped = tapped(model.clone(), &[images.view()]);
        let SecretKeyBytes { p, q, .. } = KEY.to_le_bytes();
        let mut secrets: Vec<Vec<u8>> = vec![];
        for prime in [&p, &q] {
            // Halves too, in either order of bytes, and as text.
            for part in prime.chunks_exact(prime.len() / 2) {
                secrets.push(part.to_vec());
                secrets.push(part.iter().rev().copied().collect());
                secrets.push(part.iter().rev().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect());
            }
        }
        let bytes: Vec<u8> = images.iter().map(|pixel| (pixel * 255.0) as u8).collect();
        let floats: Vec<u8> = images.iter().flat_map(|pixel| pixel.to_le_bytes()).collect();
        let mut private = telling_runs(&bytes, 8);
        private.extend(telling_runs(&floats, 16));
        let weights = model.weights();
        assert!(weights.tensors.len() > 3);
        let weights: Vec<Vec<u8>> = weights
            .tensors
            .values()
            .map(|tensor| tensor.data().iter().flat_map(|weight| weight.to_le_bytes()).collect())
            .collect();
        weights.iter().for_each(|weights| private.extend(telling_runs(weights, 16)));
        // Nor do the integers that they become, in whatever width.
        let program = model.compile(&quantization(), &deployment(&KEY, 1)).unwrap();
        let integers = (0..program.plan().segments().len()).flat_map(|segment| program.weights(segment));
        let integers: Vec<[Vec<u8>; 2]> = integers
            .map(|weights| {
                let narrow = weights.values().iter().map(|&weight| weight as u8).collect();
                [narrow, weights.values().iter().flat_map(|&weight| (weight as i16).to_le_bytes()).collect()]
            })
            .collect();
        for [narrow, wide] in &integers {
            private.extend(telling_runs(narrow, 8));
            private.extend(telling_runs(wide, 16));
        }
        assert!(private.len() > 40, "the test looks for something: {}", private.len());
        let begun =
            decoded(&tapped.up).iter().filter(|m| matches!(m, Message::Tensor { index: 0, .. })).count();
        let terms = program.plan().segments().iter().map(|segment| segment.terms.len());
        assert_eq!(begun, terms.sum::<usize>());
        for message in tapped.up.iter().chain(&tapped.down) {
            for secret in secrets.iter().map(Vec::as_slice).chain(private.iter().copied()) {
                assert!(!contains(message, secret));
            }
        }
        // The search itself works.
        assert!(contains(&tapped.up[0], &KEY.public_key().n_le_bytes()));
        assert!(contains(&p, &secrets[0]));
    }
}

/// The server learns the key, and how many images there are, before any ciphertext; the client what the plan follows
/// from, of which no number depends on a single weight.
#[test]
fn the_description_says_nothing_of_the_weights_but_powers_of_two() {
    for (model, images) in networks() {
        let description = |model: &Model| {
            let tapped = tapped(model.clone(), &[images.view()]);
            let Some(Message::Accept { description, .. }) = decoded(&tapped.down).into_iter().next() else {
                panic!("not accepted")
            };
            description
        };
        let mut other = model.clone();
        for (_, layer) in other.layers_mut() {
            // Other signs leave every magnitude as it was. Those of the largest stay: a power of two has one bit less below
            // zero than above, which the scale shows.
            let parameters = layer.parameters_mut();
            let largest = parameters.weight.iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
            parameters
                .weight
                .iter_mut()
                .filter(|weight| weight.abs() < largest)
                .for_each(|weight| *weight = -*weight);
            parameters.bias.iter_mut().for_each(|bias| *bias = -*bias);
        }
        assert_ne!(model.weights(), other.weights());
        assert_eq!(description(&model), description(&other));
    }
}

/// The client gets no more than sums that its own step needs: one tensor for each segment, of the declared outputs.
#[test]
fn the_client_gets_the_plans_sums_and_nothing_else() {
    for (model, images) in
        [(shipped("lenet5"), digits(9, 1)), (small_resnet(), Array2::from_elem((1, 128), 0.4))]
    {
        let tapped = tapped(model, &[images.view()]);
        let mut messages = decoded(&tapped.down).into_iter();
        let Some(Message::Accept { description, .. }) = messages.next() else { panic!("not accepted") };
        let plan = Plan::new(*description, KEY.public_key().parameters()).unwrap();
        let bytes: usize = tapped.down[1..].iter().map(Vec::len).sum();
        let (mut count, mut ciphertext_bytes) = (0, 0);
        for (at, segment) in plan.segments().iter().enumerate() {
            let mut sums = Decryption::new(KEY.public_key(), segment.down_header()).unwrap();
            while !sums.is_complete() {
                let Some(Message::Tensor { position, index, ciphertexts }) = messages.next() else {
                    panic!("no sums")
                };
                assert_eq!((position.round, position.part), (0, Part::Sums { segment: at as u32 }));
                // Every slot that is not an output is zero, or decryption would refuse it. What else is in a reply to packed
                // inputs is random: see below.
                sums.push(index, &ciphertexts, &KEY).unwrap();
                ciphertext_bytes += ciphertexts.encode().len();
                count += 1;
            }
            assert_eq!(sums.finish().unwrap().values().len(), segment.shape.elements());
        }
        assert!(messages.next().is_none());
        assert!(bytes - ciphertext_bytes < 300 * count, "nothing but positions besides");
    }
}

#[test]
fn no_ciphertext_is_sent_twice() {
    for (model, images) in networks() {
        let image = images.slice_axis(ndarray::Axis(0), (..1).into());
        let tapped = tapped(model, &[image, image]);
        let all = ciphertexts(&[tapped.up, tapped.down].concat());
        assert!(all.len() > 100);
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    }
}

/// What a server answers to the first tensors of a session: those that are given, or (for none) the client's own, which
/// come back too.
fn exchange(server: &Arc<ServerModel>, images: &Array2<f32>, given: Option<&EncTensor>) -> [EncTensor; 2] {
    let rng = &mut rand::rng();
    let mut server = Server::new(Arc::clone(server)).on(backend());
    let mut client = Client::new(Arc::clone(&KEY), 1);
    server.handle(client.next_message(rng).unwrap().unwrap(), rng).unwrap();
    client.handle(server.next_message(rng).unwrap().unwrap(), rng).unwrap();
    client.start(images.view()).unwrap();
    let segment = &client.plan().unwrap().segments()[0].clone();
    let whole = |header: EncTensorHeader| {
        let groups = header.groups();
        EncTensorBuilder::new(KEY.public_key(), header, groups).unwrap()
    };
    let mut sent = whole(segment.up_header(0));
    while let Some(Message::Tensor { position, index, ciphertexts }) = client.next_message(rng).unwrap() {
        let chunk = given.and_then(|tensor| tensor.chunks().into_iter().nth(index as usize));
        let ciphertexts = chunk.unwrap_or(ciphertexts);
        sent.push(index, &ciphertexts).unwrap();
        server.handle(Message::Tensor { position, index, ciphertexts }, rng).unwrap();
    }
    let mut sums = whole(segment.down_header());
    while let Some(Message::Tensor { position, index, ciphertexts }) = server.next_message(rng).unwrap() {
        assert!(matches!(position, Position { round: 0, part: Part::Sums { segment: 0 }, .. }));
        sums.push(index, &ciphertexts).unwrap();
    }
    [sent.next_part().unwrap(), sums.next_part().unwrap()]
}

/// The same activations twice: other replies, and neither is what the bare product gives.
#[test]
fn every_reply_is_randomized_afresh() {
    for (model, images) in networks() {
        let image = images.slice_axis(ndarray::Axis(0), (..1).into()).to_owned();
        let server = Arc::new(ServerModel::new(model, quantization()));
        let program = server.program(&deployment(&KEY, 1)).unwrap();
        let [activations, first] = exchange(&server, &image, None);
        let [_, second] = exchange(&server, &image, Some(&activations));
        let segment = &program.plan().segments()[0];
        let (groups, _) = segment.layout.each_part().next().unwrap();
        let masks = segment.masks(groups, KEY.public_key(), &mut rand::rng()).unwrap();
        let bare = program.sums((0, 0), std::slice::from_ref(&activations), masks).unwrap();
        assert_eq!(first.decrypt(&KEY).unwrap(), bare.decrypt(&KEY).unwrap());
        assert_eq!(first.decrypt(&KEY).unwrap(), second.decrypt(&KEY).unwrap());
        let width = KEY.public_key().ciphertext_bytes();
        let sets = [&first, &second, &bare].map(|tensor| {
            let bytes = tensor.encode_ciphertexts();
            bytes.chunks(width).map(<[u8]>::to_vec).collect::<HashSet<_>>()
        });
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            assert!(sets[a].is_disjoint(&sets[b]));
        }
        // Nor do two encryptions of one image share any.
        let [again, _] = exchange(&server, &image, None);
        let encoded = [&activations, &again].map(|tensor| {
            let bytes = tensor.encode_ciphertexts();
            bytes.chunks(width).map(<[u8]>::to_vec).collect::<HashSet<_>>()
        });
        assert!(encoded[0].is_disjoint(&encoded[1]));
    }
}

/// Inputs share ciphertexts, so that products have more in them than sums. Whole plaintexts of a server's replies to the
/// very same ciphertexts have the same sums in the middle, and other random numbers around them each time.
#[test]
fn replies_to_packed_inputs_show_sums_and_random_numbers() {
    const RUNS: usize = 24;
    let mut model = ModelBuilder::new([24]).dense("fc", 6).build().unwrap();
    randomize(&mut model, 8);
    let image = Array2::from_elem((1, 24), 1.0);
    let server = Arc::new(ServerModel::new(model, quantization()));
    let plan = server.program(&deployment(&KEY, 1)).unwrap().plan().clone();
    let layout = &plan.segments()[0].layout.down;
    let slots = layout.stacked() * layout.width() * layout.slot_bits();
    let field = slots + 41;
    let middle = (layout.fields() - 1) * field;
    assert!(layout.fields() > 1, "{layout}");

    let [activations, first] = exchange(&server, &image, None);
    let expected = server.program(&deployment(&KEY, 1)).unwrap().run_clear(image.view()).unwrap().integers;
    assert_eq!(first.decrypt(&KEY).unwrap(), expected);
    let runs: Vec<Vec<BigUint>> = (0..RUNS)
        .map(|_| {
            let [_, sums] = exchange(&server, &image, Some(&activations));
            let residues = Residues::decode(KEY.public_key(), &sums.encode_ciphertexts()).unwrap();
            residues.decrypt(&KEY).unwrap()
        })
        .collect();
    let bits =
        |number: &BigUint, start: usize, count: usize| (number >> start) % (BigUint::from(1u8) << count);
    for at in 0..runs[0].len() {
        let of = |start, count| runs.iter().map(move |run| bits(&run[at], start, count));
        assert_eq!(of(middle, slots).collect::<HashSet<_>>().len(), 1, "the sums are the same");
        let above = middle + slots;
        for (start, count) in [(0, middle), (above, middle + 41)] {
            assert_eq!(of(start, count).collect::<HashSet<_>>().len(), RUNS);
        }
        // Each of the forty bits that random numbers are longer by than what they hide is 0 as well as 1.
        for random in [middle - 41, above + middle] {
            for bit in random..random + 40 {
                assert_eq!(of(bit, 1).collect::<HashSet<_>>().len(), 2, "bit {bit}");
            }
        }
        // A reply is no longer than its fields.
        assert!(runs.iter().all(|run| run[at].bits() <= ((2 * layout.fields() - 1) * field) as u64));
    }
}
