//! What the server sees does not depend on the image: another image under other masks gives the very same numbers.

use std::collections::VecDeque;
use std::convert::Infallible;

use gelu_tensor::Decryption;
use rand::{Rng, TryCryptoRng, TryRng};

use super::*;
use crate::peer::Part;

/// Says first what it was given, and then random numbers.
struct Scripted {
    script: VecDeque<u64>,
    rng: ChaCha20Rng,
}

impl TryRng for Scripted {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.rng.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.script.pop_front().unwrap_or_else(|| self.rng.next_u64()))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.rng.fill_bytes(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Scripted {}

/// The numbers that cross with an image, segment by segment and term by term, and the masks that were drawn for them.
#[derive(PartialEq, Debug)]
struct View {
    shares: Vec<Vec<u64>>,
    masks: Vec<Vec<u64>>,
}

/// Sends an image through a network by a client whose first random numbers are those of the script.
fn view(model: &Model, image: &Array2<f32>, script: Vec<u64>) -> View {
    let mut conversation = Conversation::new(model.clone(), 1, Reveal::Logits);
    let Conversation { client, server, rng, .. } = &mut conversation;
    let plan = Arc::clone(client.plan().unwrap());
    let hidden = client.hidden_plan().unwrap().clone();
    let mut scripted = Scripted { script: script.into(), rng: ChaCha20Rng::seed_from_u64(6) };
    client.prepare().unwrap();
    client.start(image.view()).unwrap();
    let mut view = View { shares: vec![], masks: vec![] };
    let mut masks: Option<Decryption> = None;
    'done: loop {
        while let Some(message) = client.next_message(&mut scripted).unwrap() {
            match &message {
                Message::Tensor { position, index, ciphertexts } => {
                    let Part::Inputs { segment, term } = position.part else { panic!("{message}") };
                    let (own, planned) =
                        (&hidden.segments()[segment as usize], &plan.segments()[segment as usize]);
                    let at = own.multiplied.iter().position(|&it| it == term as usize).unwrap();
                    let header = || own.up_header(planned, at, 1);
                    let mut own_masks =
                        masks.take().unwrap_or_else(|| Decryption::new(KEY.public_key(), header()).unwrap());
                    own_masks.push(*index, ciphertexts, &KEY).unwrap();
                    if own_masks.is_complete() {
                        let signed = own_masks.finish().unwrap();
                        let wrapped = signed.values().iter().map(|&mask| own.shared.wrap(mask as u64));
                        view.masks.push(wrapped.collect());
                    } else {
                        masks = Some(own_masks);
                    }
                }
                Message::Shares { segment, shares, .. } => {
                    let (own, planned) =
                        (&hidden.segments()[*segment as usize], &plan.segments()[*segment as usize]);
                    let mut rest = &shares[..];
                    for term in &planned.terms {
                        let elements = term.map.input().elements();
                        let (this, behind) = rest.split_at(own.shared.packed_bytes(elements));
                        view.shares.push(own.shared.unpack(this, elements).unwrap());
                        rest = behind;
                    }
                }
                _ => {}
            }
            server.handle(message, rng).unwrap();
        }
        while let Some(message) = server.next_message(rng).unwrap() {
            if let Some(Event::Done(_)) = client.handle(message, rng).unwrap() {
                break 'done;
            }
        }
    }
    view
}

/// For every two images there are masks under which the server is sent the same of both: as masks are uniform, it cannot tell
/// one from the other. What it is sent of later layers has a share in place of an activation besides, which is uniform by the
/// circuits' own randomness.
#[test]
fn another_image_under_other_masks_looks_the_same() {
    for model in
        [small(), calibrated(ModelBuilder::new([5]).dense("a", 7).relu().dense("b", 4).tanh().dense("c", 2))]
    {
        let hidden = HiddenPlan::new(program(&model, 1).plan(), Reveal::Logits, FLOOD_BITS).unwrap();
        let ring = hidden.segments()[0].shared;
        let images = images(&model, 2, 8);
        let [first, second] = [0, 1].map(|at| images.select(ndarray::Axis(0), &[at]));
        let [one, other] = [&first, &second].map(|image| view(&model, image, vec![]));
        assert_eq!(one.masks, other.masks);
        assert_ne!(one.shares[0], other.shares[0]);
        // The other image's numbers are the first one's, moved by the same as its masks are.
        let moved = one.masks[0].iter().zip(&one.shares[0]).zip(&other.shares[0]);
        let script: Vec<u64> = moved
            .map(|((mask, of_one), of_other)| ring.wrap(mask.wrapping_add(*of_other).wrapping_sub(*of_one)))
            .collect();
        let same = view(&model, &second, script.clone());
        assert_eq!((&same.shares[0], &same.masks[0]), (&one.shares[0], &script));
        assert_ne!(same.masks[0], one.masks[0]);
    }
}
