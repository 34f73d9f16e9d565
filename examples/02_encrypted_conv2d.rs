//! Lesson 2: a convolution on ciphertexts. The image is packed tap by tap (im2col), so that one product on a
//! ciphertext serves every position of the window.
//!
//!     cargo run --release --example 02_encrypted_conv2d

use std::sync::Arc;

use gelu_net::prelude::*;
use gelu_net::tensor::{Backend, Contents, Filters, Packing, Product, Workload};
use gelu_net::tensor::{FixedTensor, Format, IntWeights, LinearMap, Shape, SlotLayout, WeightRange, Window};

const SIDE: usize = 10;
const OUTPUT: usize = SIDE - 2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rng = &mut rand::rng();
    let key = SecretKey::generate(KeyBits::Bits2048, rng)?;

    // The client's image: a bright square on black, 4 bits a pixel.
    let inside = |x: usize| (3..7).contains(&x);
    let pixels = (0..SIDE * SIDE).map(|i| if inside(i / SIDE) && inside(i % SIDE) { 9 } else { 0 }).collect();
    let image = FixedTensor::new(Shape::from([1, SIDE, SIDE]), Format::integers(15)?, pixels)?;

    // The layer is a linear map: which weight takes which pixel to which output. Its weights, Sobel's edge detectors, are
    // the server's; public of them is only their range.
    let windows = Window::new([3, 3]).over([1, SIDE, SIDE])?;
    let map = Arc::new(LinearMap::convolution(&windows, Filters { count: 2, groups: 1 })?);
    let range = WeightRange::signed(3)?;
    let kernels = IntWeights::new(
        range,
        vec![
            -1, 0, 1, -2, 0, 2, -1, 0, 1, // left to right
            -1, -2, -1, 0, 0, 0, 1, 2, 1, // top to bottom
        ],
    )?;

    // im2col: ciphertext t holds what tap t of the kernel sees at each of the 8 x 8 positions, one slot a position.
    let slot_bits = image.format().weighted_sum(range, map.most_terms())?.slot_bits();
    let packing = Packing { batch: 1, slot_bits, key: key.public_key().size() };
    let layout = SlotLayout::patches(&map, packing, Contents::Integers(image.format()))?;
    let encrypted = image.encrypt(&layout, &key, rng)?;
    println!("client sends   {} ciphertexts: {layout}", encrypted.header().ciphertexts());

    // The server multiplies in the cheapest way, moves both channels next to each other into as few ciphertexts as they
    // fit, and re-randomizes, so that the randomness of the reply says nothing about the kernels either.
    let lanes = Backend::detect().lanes();
    let product =
        Product::cheapest(&map, &layout, Workload { weights: range, groups: layout.groups(1), lanes })?;
    let sums = encrypted.apply(&map, &kernels, &product)?;
    let products = product.operations().total();
    println!(
        "server has     {} ciphertexts of sums, by {product}: {products} products",
        sums.header().ciphertexts()
    );
    let stacked = sums.header().layout.most_stacked(key.public_key().size());
    let reply = sums.repack(stacked)?.rerandomize(rng);
    println!("server replies {} ciphertexts: {}", reply.header().ciphertexts(), reply.header().layout);

    // The client decrypts. The integers are those of the convolution in the clear.
    let edges = reply.decrypt(&key)?;
    assert_eq!(edges, image.apply(&map, &kernels)?);
    println!("\nimage, then |left to right| + |top to bottom|, equal to the convolution in the clear:\n");
    let shade = |value: i64| [' ', '.', ':', '+', '#'][usize::try_from(value / 9).unwrap_or(4).min(4)];
    let edge = |at: usize| edges.values()[at].abs() + edges.values()[OUTPUT * OUTPUT + at].abs();
    for row in 0..SIDE {
        let before: String = (0..SIDE).map(|x| shade(4 * image.values()[row * SIDE + x])).collect();
        let columns = if row < OUTPUT { OUTPUT } else { 0 };
        let after: String = (0..columns).map(|x| shade(edge(row * OUTPUT + x))).collect();
        println!("  {before}   {after}");
    }
    Ok(())
}
