//! What crosses between client and server: ciphertexts and public facts, never the same ciphertext twice.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;

use common::{KEY, digits, options, shipped};
use gelu_net::io::session::{ClientSession, serve};
use gelu_net::io::transport::InProcess;
use gelu_net::io::wire::{Limits, decode_message};
use gelu_net::prelude::*;
use gelu_net::tensor::paillier::SecretKeyBytes;
use ndarray::ArrayView2;

/// All messages of a session of one batch each, as bytes: up, down.
struct Tapped {
    up: Vec<Vec<u8>>,
    down: Vec<Vec<u8>>,
}

/// Runs batches of images with a tap between the two ends that copies every byte.
fn tapped(name: &str, batches: &[ArrayView2<'_, f32>]) -> Tapped {
    let (client_end, tap_up) = InProcess::pair();
    let (tap_down, server_end) = InProcess::pair();
    let (model, ranges) = shipped(name);
    let server = Server::new(Arc::new(ServerModel::new(model, options(ranges))));
    thread::scope(|scope| {
        let serving = scope.spawn(move || serve(&server_end, server, &mut rand::rng()).1);
        let tapping = scope.spawn(move || {
            let mut tapped = Tapped { up: vec![], down: vec![] };
            while let Ok(message) = tap_up.receive() {
                tapped.up.push(message.clone());
                tap_down.send(message).unwrap();
                // One reply to each message but the last.
                let Ok(reply) = tap_down.receive() else { break };
                tapped.down.push(reply.clone());
                tap_up.send(reply).unwrap();
            }
            tapped
        });
        let rng = &mut rand::rng();
        let client = Client::new(Arc::clone(&KEY), batches[0].nrows() as u32);
        let mut session = ClientSession::open(&client_end, client, rng).unwrap();
        for &images in batches {
            session.infer(images, rng).unwrap();
        }
        session.finish().unwrap();
        serving.join().unwrap().unwrap();
        tapping.join().unwrap()
    })
}

fn tensor(bytes: &[u8]) -> Option<EncTensor> {
    match decode_message(bytes, Some(KEY.public_key()), Limits::default()).unwrap() {
        Message::Activations { tensor, .. } | Message::Sums { tensor, .. } => Some(tensor),
        _ => None,
    }
}

fn ciphertexts(messages: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let width = KEY.public_key().ciphertext_bytes();
    let tensors = messages.iter().filter_map(|message| tensor(message));
    tensors
        .flat_map(|tensor| tensor.encode_ciphertexts().chunks(width).map(<[u8]>::to_vec).collect::<Vec<_>>())
        .collect()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// Runs of at least eight different neighbours in the bytes of `whole`: enough not to be met by chance.
fn telling_runs(whole: &[u8], length: usize) -> Vec<&[u8]> {
    let telling = |run: &&[u8]| run.iter().collect::<HashSet<_>>().len() >= length / 2;
    whole.chunks_exact(length).filter(telling).collect()
}

#[test]
fn neither_primes_nor_pixels_nor_weights_cross() {
    let images = digits(8, 2);
    let tapped = tapped("conv1", &[images.view()]);
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
    let (model, ranges) = shipped("conv1");
    let program = model.plan(&options(ranges)).unwrap();
    let weights: Vec<u8> =
        model.weights().tensors["conv1.weight"].data().iter().flat_map(|w| w.to_le_bytes()).collect();
    private.extend(telling_runs(&weights, 16));
    assert!(private.len() > 20, "the test looks for something: {}", private.len());
    assert_eq!(tapped.up.len(), program.layers().len() + 2);
    for message in tapped.up.iter().chain(&tapped.down) {
        for secret in secrets.iter().map(Vec::as_slice).chain(private.iter().copied()) {
            assert!(!contains(message, secret));
        }
    }
    // The search itself works.
    assert!(contains(&tapped.up[0], &KEY.public_key().n_le_bytes()));
    assert!(contains(&p, &secrets[0]));
}

/// The client gets no more than sums that its own step needs: one tensor for each segment, of the declared outputs.
#[test]
fn the_client_gets_the_plans_sums_and_nothing_else() {
    let images = digits(9, 1);
    let tapped = tapped("lenet5", &[images.view()]);
    let Message::Accept { plan, .. } = decode_message(&tapped.down[0], None, Limits::default()).unwrap()
    else {
        panic!("not accepted")
    };
    assert_eq!(tapped.down.len(), plan.segments.len() + 1);
    for (bytes, segment) in tapped.down[1..].iter().zip(&plan.segments) {
        let tensor = tensor(bytes).unwrap();
        assert_eq!(tensor.header(), segment.down_header(1));
        // Every slot that is not an output is zero, or decryption would refuse it.
        assert_eq!(tensor.decrypt(&KEY).unwrap().values().len(), segment.output.elements());
        let bytes_of_ciphertexts = tensor.ciphertext_count() * KEY.public_key().ciphertext_bytes();
        assert!(bytes.len() - bytes_of_ciphertexts < 1000, "nothing but a header besides");
    }
}

#[test]
fn no_ciphertext_is_sent_twice() {
    let images = digits(10, 1);
    let tapped = tapped("conv1", &[images.view(), images.view()]);
    let all = ciphertexts(&[tapped.up, tapped.down].concat());
    assert!(all.len() > 100);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
}

/// The same activations twice: other replies, and neither is what the bare product gives.
#[test]
fn every_reply_is_randomised_afresh() {
    let (model, ranges) = shipped("conv1");
    let model = Arc::new(ServerModel::new(model, options(ranges)));
    let images = digits(11, 1);
    let program = model.program(KeyBits::Bits1024, 1).unwrap();
    let run = |activations: Option<EncTensor>| {
        let rng = &mut rand::rng();
        let mut server = Server::new(Arc::clone(&model));
        let (mut client, hello) = Client::new(Arc::clone(&KEY), 1);
        client.handle(server.handle(hello, rng).unwrap().unwrap(), rng).unwrap();
        let start = client.start(images.view(), rng).unwrap();
        let Message::Activations { position, tensor } = start else { panic!("no activations") };
        let tensor = activations.unwrap_or(tensor);
        let reply = server.handle(Message::Activations { position, tensor: tensor.clone() }, rng);
        let Some(Message::Sums { tensor: sums, .. }) = reply.unwrap() else { panic!("no sums") };
        (tensor, sums)
    };
    let (activations, first) = run(None);
    let (_, second) = run(Some(activations.clone()));
    let bare = program.layers()[0].forward_encrypted(&activations).unwrap();
    let bare = bare.repack(program.plan().segments[0].down.stacked).unwrap();
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
    let (again, _) = run(None);
    let encoded = [&activations, &again].map(|tensor| {
        let bytes = tensor.encode_ciphertexts();
        bytes.chunks(width).map(<[u8]>::to_vec).collect::<HashSet<_>>()
    });
    assert!(encoded[0].is_disjoint(&encoded[1]));
}
