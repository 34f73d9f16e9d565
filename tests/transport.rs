//! What crosses between client and server: ciphertexts and public facts, never the same ciphertext twice.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;

use common::{KEY, digits, options, shipped};
use gelu_net::io::session::{ClientSession, serve};
use gelu_net::io::transport::{Disconnected, InProcess};
use gelu_net::io::wire::{Limits, decode_message};
use gelu_net::prelude::*;
use gelu_net::tensor::paillier::SecretKeyBytes;
use gelu_net::tensor::{Decryption, EncTensorBuilder};
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
        session.finish().unwrap();
        drop(client_end);
        serving.join().unwrap().unwrap();
        tapping.join().unwrap()
    })
}

fn decoded(messages: &[Vec<u8>]) -> Vec<Message> {
    let decode = |bytes| decode_message(bytes, Some(KEY.public_key()), Limits::default()).unwrap();
    messages.iter().map(|bytes| decode(bytes)).collect()
}

fn ciphertexts(messages: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let width = KEY.public_key().ciphertext_bytes();
    let chunks = decoded(messages).into_iter().filter_map(|message| match message {
        Message::Chunk { ciphertexts, .. } => Some(ciphertexts.encode()),
        _ => None,
    });
    chunks.flat_map(|bytes| bytes.chunks(width).map(<[u8]>::to_vec).collect::<Vec<_>>()).collect()
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
    let begun = decoded(&tapped.up).iter().filter(|m| matches!(m, Message::Activations { .. })).count();
    assert_eq!(begun, program.layers().len());
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
    let mut messages = decoded(&tapped.down).into_iter();
    let Some(Message::Accept { plan, .. }) = messages.next() else { panic!("not accepted") };
    let bytes: usize = tapped.down[1..].iter().map(Vec::len).sum();
    let (mut count, mut ciphertext_bytes) = (1, 0);
    for (step, segment) in plan.segments.iter().enumerate() {
        let Some(Message::Sums { position, header }) = messages.next() else { panic!("no sums") };
        assert_eq!((position.step as usize, &header), (step, &segment.down_header(1)));
        let mut sums = Decryption::new(KEY.public_key(), header, segment.ciphertexts_down(1)).unwrap();
        count += 1;
        while !sums.is_complete() {
            let Some(Message::Chunk { index, ciphertexts, .. }) = messages.next() else { panic!("no chunk") };
            // Every slot that is not an output is zero, or decryption would refuse it.
            sums.push(index, &ciphertexts, &KEY).unwrap();
            ciphertext_bytes += ciphertexts.encode().len();
            count += 1;
        }
        assert_eq!(sums.finish().unwrap().values().len(), segment.output.elements());
    }
    assert!(messages.next().is_none());
    assert!(bytes - ciphertext_bytes < 1000 * count, "nothing but headers besides");
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
        server.handle(hello, rng).unwrap();
        client.handle(server.next_message(rng).unwrap().unwrap()).unwrap();
        client.start(images.view()).unwrap();
        let start = client.next_message(rng).unwrap().unwrap();
        let Message::Activations { position, header } = start.clone() else { panic!("no activations") };
        let most = program.plan().segments[0].ciphertexts_up(1);
        let mut sent = EncTensorBuilder::new(KEY.public_key(), header, 1, most).unwrap();
        server.handle(start, rng).unwrap();
        while let Some(Message::Chunk { index, ciphertexts, .. }) = client.next_message(rng).unwrap() {
            let chunk = activations.as_ref().and_then(|tensor| tensor.chunks().nth(index as usize));
            let ciphertexts = chunk.unwrap_or(ciphertexts);
            sent.push(index, &ciphertexts).unwrap();
            server.handle(Message::Chunk { position, index, ciphertexts }, rng).unwrap();
        }
        let Some(Message::Sums { header, .. }) = server.next_message(rng).unwrap() else { panic!("no sums") };
        let most = program.plan().segments[0].ciphertexts_down(1);
        let mut sums = EncTensorBuilder::new(KEY.public_key(), header, 1, most).unwrap();
        while let Some(Message::Chunk { index, ciphertexts, .. }) = server.next_message(rng).unwrap() {
            sums.push(index, &ciphertexts).unwrap();
        }
        (sent.next_part().unwrap().unwrap(), sums.next_part().unwrap().unwrap())
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
