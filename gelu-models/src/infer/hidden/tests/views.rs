//! What the server sees does not depend on the image, and what the client sees ahead not on the weights: others under other
//! masks give the very same numbers.

use std::collections::VecDeque;
use std::convert::Infallible;

use gelu_tensor::Decryption;
use rand::{Rng, TryCryptoRng, TryRng};

use super::*;
use crate::peer::Part;

/// Says first what it was given, and then random numbers; keeps all of them.
struct Scripted {
    script: VecDeque<u64>,
    rng: ChaCha20Rng,
    said: Vec<u64>,
}

impl Scripted {
    fn new(script: Vec<u64>, seed: u64) -> Self {
        Self { script: script.into(), rng: ChaCha20Rng::seed_from_u64(seed), said: vec![] }
    }
}

impl TryRng for Scripted {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.rng.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let said = self.script.pop_front().unwrap_or_else(|| self.rng.next_u64());
        self.said.push(said);
        Ok(said)
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
    let mut scripted = Scripted::new(script, 6);
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
        let hidden = HiddenPlan::new(program(&model, 1).plan(), Reveal::Logits).unwrap();
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

/// What crosses ahead of a client that draws the same masks again.
struct Ahead {
    /// The client's shares of each segment's sums.
    sums: Vec<Vec<u64>>,
    /// The server's masks in them.
    servers: Vec<Vec<u64>>,
    /// All random numbers of the server.
    said: Vec<u64>,
}

fn ahead(model: &Model, script: Vec<u64>) -> Ahead {
    let mut conversation = Conversation::new(model.clone(), 1, Reveal::Logits);
    let Conversation { client, server, .. } = &mut conversation;
    let (plan, program) = (Arc::clone(client.plan().unwrap()), program(model, 1));
    let hidden = client.hidden_plan().unwrap().clone();
    let [mut of_client, mut of_server] = [Scripted::new(vec![], 6), Scripted::new(script, 7)];
    client.prepare().unwrap();
    let (mut sums, mut partly): (Vec<Vec<u64>>, Option<Decryption>) = (vec![], None);
    'prepared: loop {
        while let Some(message) = client.next_message(&mut of_client).unwrap() {
            server.handle(message, &mut of_server).unwrap();
        }
        while let Some(message) = server.next_message(&mut of_server).unwrap() {
            if let Message::Tensor { index, ciphertexts, .. } = &message {
                let at = sums.len();
                let header = || hidden.segments()[at].down_header(&plan.segments()[at], 1);
                let mut own =
                    partly.take().unwrap_or_else(|| Decryption::new(KEY.public_key(), header()).unwrap());
                own.push(*index, ciphertexts, &KEY).unwrap();
                match own.is_complete() {
                    true => sums.push(own.finish_residues().unwrap().to_vec()),
                    false => partly = Some(own),
                }
            }
            if let Some(Event::Prepared) = client.handle(message, &mut of_client).unwrap() {
                break 'prepared;
            }
        }
    }
    // The client's masks are what it draws first, and the server's what is left of the sums without their products.
    let (mut drawn, mut servers) = (&of_client.said[..], vec![]);
    for (segment, (own, planned)) in hidden.segments().iter().zip(plan.segments()).enumerate() {
        let map = &planned.terms[0].map;
        let (masks, rest) = drawn.split_at(map.input().elements());
        drawn = rest;
        let weights = program.weights(segment)[0].values().iter().map(|&weight| i64::from(weight) as u64);
        let masks: Vec<i64> = masks.iter().map(|&mask| own.shared.signed(own.shared.wrap(mask))).collect();
        let products = map.apply_wrapping(&weights.collect::<Vec<_>>(), &masks).unwrap();
        let left = sums[segment].iter().zip(products);
        servers.push(left.map(|(sum, product)| own.shared.wrap(sum.wrapping_sub(product))).collect());
    }
    Ahead { sums, servers, said: of_server.said }
}

/// For every two models with one plan there are masks of the server under which the client is sent the same of both: as masks
/// are uniform, sums cannot tell it one from the other.
#[test]
fn another_model_under_other_masks_looks_the_same() {
    let model = small();
    let mut other = model.clone();
    for (_, layer) in other.layers_mut() {
        layer.parameters_mut().weight.reverse();
        layer.parameters_mut().weight.iter_mut().for_each(|weight| *weight = -*weight);
    }
    let [one, another] = [&model, &other].map(|model| ahead(model, vec![]));
    let descriptions = [&model, &other].map(|model| program(model, 1).plan().description().clone());
    assert_eq!(descriptions[0], descriptions[1]);
    let hidden = HiddenPlan::new(program(&model, 1).plan(), Reveal::Logits).unwrap();
    // The server's masks, where it drew them, moved by as much as the sums of both differ.
    let mut script = another.said.clone();
    for (segment, own) in hidden.segments().iter().enumerate() {
        let (servers, ring) = (&another.servers[segment], own.shared);
        let drawn =
            |numbers: &[u64]| numbers.iter().map(|number| ring.wrap(*number)).eq(servers.iter().copied());
        let at = another.said.windows(servers.len()).position(drawn).unwrap();
        let sums = one.sums[segment].iter().zip(&another.sums[segment]);
        for (said, (of_one, of_another)) in script[at..].iter_mut().zip(sums) {
            *said = said.wrapping_add(*of_one).wrapping_sub(*of_another);
        }
        assert_ne!(one.sums[segment], another.sums[segment]);
    }
    let same = ahead(&other, script);
    assert_eq!(same.sums, one.sums);
    assert_ne!(same.servers, one.servers);
}
