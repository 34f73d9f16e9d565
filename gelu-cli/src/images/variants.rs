//! Drawn digits as scanners, cameras and drawing programs make pictures of them, read by LeNet-5.

use std::f32::consts::PI;
use std::io::Cursor;

use gelu_io::digits::SampleDigits;
use gelu_models::Model;
use image::{
    DynamicImage, GrayImage, ImageBuffer, ImageFormat, Luma, Rgb, RgbImage, Rgba, RgbaImage, imageops,
};
use ndarray::Array2;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use rayon::prelude::*;

use super::*;

/// Height and width of the paper.
const PAPER: u32 = 200;

/// Shades from 0 to 1 by place, and how large the picture is.
struct Scene {
    size: u32,
    shade: Box<dyn Fn(f32, f32) -> f32>,
}

/// Coverage by ink, from 0 to 1, at a place of the unit square.
struct Strokes(GrayImage);

impl Strokes {
    /// A digit of MNIST's form, enlarged. `level` is the brightness at which its strokes end: less is wider.
    fn new(digit: &[u8], level: f32) -> Self {
        const SHARPNESS: f32 = 6.0;
        let small = GrayImage::from_raw(28, 28, digit.to_vec()).unwrap();
        let mut large = imageops::resize(&small, 560, 560, imageops::FilterType::CatmullRom);
        for Luma([pixel]) in large.pixels_mut() {
            let edge = (f32::from(*pixel) / 255.0 - level) * SHARPNESS + 0.5;
            *pixel = (255.0 * edge.clamp(0.0, 1.0)) as u8;
        }
        Self(large)
    }

    fn at(&self, x: f32, y: f32) -> f32 {
        if !(0.0..1.0).contains(&x) || !(0.0..1.0).contains(&y) {
            return 0.0;
        }
        f32::from(self.0.get_pixel((x * 560.0) as u32, (y * 560.0) as u32).0[0]) / 255.0
    }

    /// The part of the square that the ink takes, widened by `margin`: left, top, right, bottom.
    fn bounds(&self, margin: f32) -> [f32; 4] {
        let inked = || self.0.enumerate_pixels().filter(|(_, _, pixel)| pixel.0[0] > 128);
        let xs = || inked().map(|(x, _, _)| x as f32 / 560.0);
        let ys = || inked().map(|(_, y, _)| y as f32 / 560.0);
        [
            xs().fold(1.0, f32::min) - margin,
            ys().fold(1.0, f32::min) - margin,
            xs().fold(0.0, f32::max) + margin,
            ys().fold(0.0, f32::max) + margin,
        ]
    }
}

impl Scene {
    fn new(size: u32, shade: impl Fn(f32, f32) -> f32 + 'static) -> Self {
        Self { size, shade: Box::new(shade) }
    }

    /// Nine places of each pixel are averaged, up to a size where that no longer matters.
    fn pixel(&self, x: u32, y: u32) -> f32 {
        let places: &[f32] = if self.size > 500 { &[0.5] } else { &[1.0 / 6.0, 0.5, 5.0 / 6.0] };
        let mut sum = 0.0;
        for dy in places {
            for dx in places {
                sum += (self.shade)((x as f32 + dx) / self.size as f32, (y as f32 + dy) / self.size as f32);
            }
        }
        sum / (places.len() * places.len()) as f32
    }

    fn draw(&self) -> GrayImage {
        GrayImage::from_fn(self.size, self.size, |x, y| {
            Luma([(255.0 * self.pixel(x, y)).round().clamp(0.0, 255.0) as u8])
        })
    }
}

fn mix(strokes: &Strokes, [ink, paper]: [f32; 2], x: f32, y: f32) -> f32 {
    let part = strokes.at(x, y);
    ink * part + paper * (1.0 - part)
}

fn encode(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(vec![]);
    picture.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn png(picture: impl Into<DynamicImage>) -> Vec<u8> {
    encode(picture, ImageFormat::Png)
}

fn jpeg(picture: &GrayImage, quality: u8) -> Vec<u8> {
    let mut bytes = vec![];
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(picture).unwrap();
    bytes
}

const BLACK: [f32; 2] = [0.0, 1.0];
const WHITE: [f32; 2] = [1.0, 0.0];

/// A digit on a sheet that fills the picture.
fn sheet(digit: &[u8], size: u32, shades: [f32; 2], level: f32) -> GrayImage {
    let strokes = Strokes::new(digit, level);
    Scene::new(size, move |x, y| mix(&strokes, shades, x, y)).draw()
}

fn framed(mut picture: GrayImage, [left, top, right, bottom]: [u32; 4], shade: u8) -> GrayImage {
    let (width, height) = picture.dimensions();
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        if x < left || y < top || x >= width - right || y >= height - bottom {
            *pixel = Luma([shade]);
        }
    }
    picture
}

/// A sheet of `side` (of the picture's) around `center`, turned by `degrees`, on a table.
fn on_table(
    digit: &[u8],
    shades: [f32; 2],
    table: f32,
    side: f32,
    center: [f32; 2],
    degrees: f32,
) -> GrayImage {
    let strokes = Strokes::new(digit, 0.5);
    let (sin, cos) = (degrees * PI / 180.0).sin_cos();
    Scene::new(300, move |x, y| {
        let [dx, dy] = [x - center[0], y - center[1]];
        let place = [(dx * cos + dy * sin) / side + 0.5, (dy * cos - dx * sin) / side + 0.5];
        if place.iter().all(|part| (0.0..1.0).contains(part)) {
            mix(&strokes, shades, place[0], place[1])
        } else {
            table
        }
    })
    .draw()
}

fn lit(mut picture: GrayImage, light: impl Fn(f32, f32) -> f32) -> GrayImage {
    let (width, height) = picture.dimensions();
    for (x, y, Luma([pixel])) in picture.enumerate_pixels_mut() {
        let light = light(x as f32 / width as f32, y as f32 / height as f32);
        *pixel = (f32::from(*pixel) * light) as u8;
    }
    picture
}

fn noisy(mut picture: GrayImage, strength: f32, rng: &mut ChaCha8Rng) -> GrayImage {
    for Luma([pixel]) in picture.pixels_mut() {
        let sum: f32 = (0..12).map(|_| rng.random_range(-0.5..0.5f32)).sum();
        *pixel = (f32::from(*pixel) + strength * sum).clamp(0.0, 255.0) as u8;
    }
    picture
}

fn dusty(mut picture: GrayImage, specks: usize, rng: &mut ChaCha8Rng) -> GrayImage {
    for _ in 0..specks {
        let [left, top] = [(); 2].map(|()| rng.random_range(0..PAPER - 4));
        for (x, y) in (left..left + 3).flat_map(|x| (top..top + 3).map(move |y| (x, y))) {
            picture.put_pixel(x, y, Luma([0]));
        }
    }
    picture
}

/// A picture of 28x28 with a digit of 14 pixels in a corner.
fn off_center(digit: &[u8], shades: [f32; 2], corner: [f32; 2]) -> GrayImage {
    let strokes = Strokes::new(digit, 0.5);
    Scene::new(28, move |x, y| mix(&strokes, shades, (x - corner[0]) / 0.62, (y - corner[1]) / 0.62)).draw()
}

/// The picture cut to the ink, with a margin (in parts of the paper).
fn cut(digit: &[u8], shades: [f32; 2], margin: f32) -> GrayImage {
    let strokes = Strokes::new(digit, 0.5);
    let [left, top, right, bottom] = strokes.bounds(margin);
    let [width, height] = [right - left, bottom - top].map(|extent| ((extent * 200.0) as u32).max(4));
    GrayImage::from_fn(width, height, |x, y| {
        let shade = mix(&strokes, shades, left + (x as f32 + 0.5) / 200.0, top + (y as f32 + 0.5) / 200.0);
        Luma([(255.0 * shade) as u8])
    })
}

fn boxed(digit: &[u8], inset: f32, line: f32) -> GrayImage {
    let strokes = Strokes::new(digit, 0.5);
    Scene::new(PAPER, move |x, y| {
        let depth = x.min(y).min(1.0 - x).min(1.0 - y) - inset;
        if (0.0..line).contains(&depth) {
            0.0
        } else {
            mix(&strokes, BLACK, (x - 0.2) / 0.6, (y - 0.2) / 0.6)
        }
    })
    .draw()
}

fn clear(digit: &[u8], ink: [u8; 3]) -> Vec<u8> {
    let picture = sheet(digit, PAPER, WHITE, 0.5);
    let [r, g, b] = ink;
    png(RgbaImage::from_fn(PAPER, PAPER, |x, y| Rgba([r, g, b, picture.get_pixel(x, y).0[0]])))
}

fn colored(digit: &[u8], [ink, paper]: [[u8; 3]; 2]) -> Vec<u8> {
    let picture = sheet(digit, PAPER, WHITE, 0.5);
    png(RgbImage::from_fn(PAPER, PAPER, |x, y| {
        let part = f32::from(picture.get_pixel(x, y).0[0]) / 255.0;
        let mixed = |at: usize| f32::from(ink[at]) * part + f32::from(paper[at]) * (1.0 - part);
        Rgb([0, 1, 2].map(|at| mixed(at) as u8))
    }))
}

fn deep(digit: &[u8], most: f32, shades: [f32; 2]) -> Vec<u8> {
    let picture = sheet(digit, PAPER, shades, 0.5);
    let values = picture.iter().map(|&pixel| (f32::from(pixel) * most / 255.0) as u16).collect();
    png(ImageBuffer::<Luma<u16>, _>::from_raw(PAPER, PAPER, values).unwrap())
}

type Variant = (&'static str, Box<dyn Fn(&[u8], &mut ChaCha8Rng) -> Vec<u8> + Sync>);

fn variant(name: &'static str, draw: impl Fn(&[u8], &mut ChaCha8Rng) -> Vec<u8> + Sync + 'static) -> Variant {
    (name, Box::new(draw))
}

/// One that needs no random numbers.
fn plain(name: &'static str, draw: impl Fn(&[u8]) -> GrayImage + Sync + 'static) -> Variant {
    variant(name, move |digit, _| png(draw(digit)))
}

fn variants() -> Vec<Variant> {
    let usual = |digit: &[u8]| sheet(digit, PAPER, BLACK, 0.5);
    let shift = |rng: &mut ChaCha8Rng, most: f32| [(); 2].map(|()| 0.5 + rng.random_range(-most..most));
    let mut all = vec![
        plain("dark on light", usual),
        plain("light on dark", |digit| sheet(digit, PAPER, WHITE, 0.5)),
        plain("faint pencil", |digit| sheet(digit, PAPER, [0.7, 0.86], 0.5)),
        plain("thin strokes", |digit| sheet(digit, PAPER, BLACK, 0.85)),
        plain("very thin strokes", |digit| sheet(digit, PAPER, BLACK, 0.97)),
        plain("thick strokes", |digit| sheet(digit, PAPER, BLACK, 0.1)),
        plain("strips left and top", move |digit| framed(usual(digit), [5, 4, 0, 0], 0)),
        plain("strips right and bottom", move |digit| framed(usual(digit), [0, 0, 8, 6], 60)),
        plain("light strips", |digit| framed(sheet(digit, PAPER, WHITE, 0.5), [6, 3, 0, 0], 255)),
        plain("box around, thin", |digit| boxed(digit, 0.1, 0.01)),
        plain("box around, thick", |digit| boxed(digit, 0.1, 0.03)),
        variant("paper on a table, turned", move |digit, rng| {
            let (center, turn) = (shift(rng, 0.15), rng.random_range(-12.0..12.0));
            png(on_table(digit, BLACK, 0.24, 0.5, center, turn))
        }),
        variant("paper on a table, large, cut off", move |digit, rng| {
            let (center, turn) = (shift(rng, 0.12), rng.random_range(-5.0..5.0));
            png(on_table(digit, [0.15, 0.9], 0.4, 0.9, center, turn))
        }),
        variant("white on black paper on a light table", move |digit, rng| {
            let (center, turn) = (shift(rng, 0.15), rng.random_range(-12.0..12.0));
            png(on_table(digit, WHITE, 0.7, 0.55, center, turn))
        }),
        variant("pencil on paper on a black table", move |digit, rng| {
            let (center, turn) = (shift(rng, 0.15), rng.random_range(-8.0..8.0));
            png(on_table(digit, [0.55, 0.8], 0.05, 0.6, center, turn))
        }),
        variant("photograph: table, turned, shaded, noise, JPEG", move |digit, rng| {
            let (center, turn) = (shift(rng, 0.1), rng.random_range(-10.0..10.0));
            let picture = on_table(digit, [0.12, 0.92], 0.3, 0.6, center, turn);
            jpeg(&noisy(lit(picture, |x, y| 1.0 - 0.25 * x - 0.15 * y), 6.0, rng), 60)
        }),
        plain("shaded, weakly", move |digit| lit(usual(digit), |x, y| 0.95 - 0.3 * x - 0.1 * y)),
        plain("shaded, strongly", move |digit| lit(usual(digit), |x, y| 1.0 - 0.5 * x - 0.15 * y)),
        plain("lit from the middle", move |digit| {
            lit(usual(digit), |x, y| 1.0 - 0.9 * ((x - 0.5).powi(2) + (y - 0.5).powi(2)))
        }),
        plain("shaded, in a frame", move |digit| {
            framed(lit(usual(digit), |x, y| 1.0 - 0.4 * x - 0.1 * y), [3; 4], 0)
        }),
        variant("noise", move |digit, rng| png(noisy(sheet(digit, PAPER, [0.1, 0.9], 0.5), 10.0, rng))),
        variant("strong noise", move |digit, rng| {
            png(noisy(sheet(digit, PAPER, [0.1, 0.9], 0.5), 25.0, rng))
        }),
        variant("dust", move |digit, rng| png(dusty(usual(digit), 8, rng))),
        variant("JPEG of quality 20", move |digit, _| jpeg(&sheet(digit, PAPER, [0.1, 0.9], 0.5), 20)),
        plain("cut to the ink", |digit| cut(digit, BLACK, 0.0)),
        plain("cut to the ink, light on dark", |digit| cut(digit, WHITE, 0.005)),
        plain("28x28, in a corner", |digit| off_center(digit, WHITE, [0.0, 0.0])),
        plain("28x28, in a corner, dark", |digit| off_center(digit, BLACK, [0.36, 0.3])),
        plain("28x28 with a frame of 1", |digit| framed(sheet(digit, 28, BLACK, 0.5), [1; 4], 0)),
        variant("black on transparent", |digit, _| clear(digit, [0; 3])),
        variant("white on transparent", |digit, _| clear(digit, [255; 3])),
        variant("12 bits in 16", |digit, _| deep(digit, 4095.0, BLACK)),
        variant("12 bits in 16, light on dark", |digit, _| deep(digit, 4080.0, WHITE)),
        variant("16 bits", |digit, _| deep(digit, 65535.0, BLACK)),
        variant("yellow on white", |digit, _| colored(digit, [[255, 240, 60], [255, 255, 255]])),
        variant("red on green", |digit, _| colored(digit, [[200, 60, 40], [40, 130, 60]])),
    ];
    all.extend([
        plain("28x28 with a frame of 2", |digit| framed(sheet(digit, 28, BLACK, 0.5), [2; 4], 0)),
        plain("28x28 with a light frame of 1", |digit| framed(sheet(digit, 28, WHITE, 0.5), [1; 4], 255)),
        plain("28x28 with a strip", |digit| framed(sheet(digit, 28, BLACK, 0.5), [2, 1, 0, 0], 0)),
        plain("thick, cut to the ink", |digit| {
            let picture = sheet(digit, PAPER, BLACK, 0.1);
            let [left, top, right, bottom] =
                Strokes::new(digit, 0.1).bounds(0.0).map(|part| (part * 200.0) as u32);
            imageops::crop_imm(&picture, left, top, right - left, bottom - top).to_image()
        }),
        plain("touching the left edge", |digit| {
            let left = (Strokes::new(digit, 0.5).bounds(0.0)[0] * 200.0) as u32;
            imageops::crop_imm(&sheet(digit, PAPER, BLACK, 0.5), left, 0, 200 - left, 200).to_image()
        }),
        plain("touching the top edge", |digit| {
            let top = (Strokes::new(digit, 0.5).bounds(0.0)[1] * 200.0) as u32;
            imageops::crop_imm(&sheet(digit, PAPER, BLACK, 0.5), 0, top, 200, 200 - top).to_image()
        }),
        plain("touching the bottom edge, light on dark", |digit| {
            let bottom = (Strokes::new(digit, 0.5).bounds(0.0)[3] * 200.0) as u32;
            imageops::crop_imm(&sheet(digit, PAPER, WHITE, 0.5), 0, 0, 200, bottom).to_image()
        }),
        plain("touching a frame", |digit| {
            let [left, top, right, bottom] =
                Strokes::new(digit, 0.5).bounds(0.0).map(|part| (part * 200.0) as u32);
            framed(
                imageops::crop_imm(
                    &sheet(digit, PAPER, BLACK, 0.5),
                    left - 8,
                    top - 8,
                    right - left + 16,
                    bottom - top + 16,
                )
                .to_image(),
                [3; 4],
                0,
            )
        }),
        plain("small in a corner", |digit| on_table(digit, BLACK, 1.0, 0.2, [0.2, 0.8], 0.0)),
        variant("table on one side", move |digit, rng| {
            let turn = rng.random_range(-6.0..6.0);
            png(on_table(digit, [0.1, 0.95], 0.3, 1.2, [0.75, 0.55], turn))
        }),
        variant("table in one corner", move |digit, rng| {
            let turn = rng.random_range(10.0..14.0);
            png(on_table(digit, [0.1, 0.95], 0.2, 1.2, [0.5, 0.5], turn))
        }),
        variant("table of nearly the ink's shade, shaded", move |digit, rng| {
            let picture =
                on_table(digit, [0.2, 0.9], 0.25, 0.7, shift(rng, 0.1), rng.random_range(-8.0..8.0));
            png(lit(picture, |x, y| 1.0 - 0.3 * x - 0.2 * y))
        }),
        variant("light grey table", move |digit, rng| {
            png(on_table(digit, [0.2, 0.95], 0.75, 0.6, shift(rng, 0.15), rng.random_range(-8.0..8.0)))
        }),
        variant("framed photograph of paper", move |digit, rng| {
            let picture = on_table(digit, [0.1, 0.9], 0.4, 0.6, shift(rng, 0.1), rng.random_range(-8.0..8.0));
            png(framed(noisy(picture, 4.0, rng), [5; 4], 0))
        }),
        variant("paper on a wide table, small", move |digit, rng| {
            png(on_table(digit, BLACK, 0.3, 0.36, shift(rng, 0.25), rng.random_range(-12.0..12.0)))
        }),
        variant("noise and strips", move |digit, rng| {
            png(noisy(framed(sheet(digit, PAPER, [0.1, 0.9], 0.5), [4, 3, 0, 2], 30), 12.0, rng))
        }),
        variant("dusty, faint, thin", move |digit, rng| {
            png(dusty(sheet(digit, PAPER, [0.6, 0.9], 0.9), 5, rng))
        }),
        variant("BMP of 24 bits", move |digit, _| {
            encode(DynamicImage::ImageLuma8(usual(digit)).to_rgb8(), ImageFormat::Bmp)
        }),
    ]);
    for width in [1, 2, 4, 6] {
        all.push(plain("dark frame", move |digit| framed(usual(digit), [width; 4], 0)));
        let white = |digit: &[u8]| sheet(digit, PAPER, WHITE, 0.5);
        all.push(plain("light frame", move |digit| framed(white(digit), [width; 4], 255)));
        all.push(plain("grey frame", move |digit| framed(usual(digit), [width; 4], 130)));
    }
    for (name, size) in
        [("20 pixels", 20), ("28 pixels", 28), ("40 pixels", 40), ("100 pixels", 100), ("2000 pixels", 2000)]
    {
        all.push(plain(name, move |digit| sheet(digit, size, BLACK, 0.5)));
    }
    all
}

fn lenet5() -> Model {
    crate::model::built_in_lenet5().unwrap()
}

/// What LeNet-5 reads in the clear.
fn read(model: &Model, digits: &[[u8; PIXELS]]) -> Vec<usize> {
    let inputs = digits.iter().flatten().map(|&pixel| f32::from(pixel) / 255.0).collect();
    let logits =
        model.logits(Array2::from_shape_vec((digits.len(), PIXELS), inputs).unwrap().view()).unwrap();
    logits.outer_iter().map(crate::infer::largest).collect()
}

#[test]
fn mnists_own_images_are_left_as_they_are_and_read_as_well_when_they_are_photographed() {
    const COUNT: usize = 500;
    let data = gelu_io::data::DataDir::locate(None);
    let Ok(all) = data.mnist(gelu_io::data::Split::Test) else { return };
    let (model, some) = (lenet5(), all.first(COUNT));
    let mut digits = [vec![], vec![]];
    for (pixels, _) in some.iter() {
        let original = <[u8; PIXELS]>::try_from(pixels).unwrap();
        let small = GrayImage::from_raw(28, 28, pixels.to_vec()).unwrap();
        let mut inverted = small.clone();
        imageops::invert(&mut inverted);
        for picture in [&small, &inverted] {
            assert_eq!(
                parse_digit(&png(picture.clone()), Path::new("small"), Invert::Auto).unwrap(),
                original
            );
        }
        let large = imageops::resize(&inverted, 280, 280, imageops::FilterType::Triangle);
        digits[0].push(original);
        digits[1]
            .push(parse_digit(&png(framed(large, [4; 4], 0)), Path::new("large"), Invert::Auto).unwrap());
    }
    let right = digits.map(|digits| {
        let found = read(&model, &digits).into_iter();
        found.zip(some.labels()).filter(|(found, label)| *found == usize::from(**label)).count()
    });
    println!("MNIST {right:?} of {COUNT}");
    // One in a hundred may be read otherwise.
    assert!(right[1] + COUNT / 100 >= right[0], "{right:?}");
}

#[test]
fn digits_are_read_however_they_were_photographed_scanned_or_drawn() {
    let model = lenet5();
    let samples = SampleDigits { seed: 5, per_digit: 1 }.draw();
    let failure = |(name, draw): &Variant| {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (mut right, mut wrong) = (0, vec![]);
        for (at, (pixels, label)) in samples.iter().enumerate() {
            let bytes = draw(pixels, &mut rng);
            match parse_digit(&bytes, Path::new(name), Invert::Auto) {
                Ok(digit) => match read(&model, &[digit])[0] {
                    found if found == usize::from(label) => right += 1,
                    found => wrong.push(format!("{at}: {label}->{found}")),
                },
                Err(error) => wrong.push(format!("{at}: {label} {error}")),
            }
        }
        (right < samples.len()).then(|| format!("{name}: {}", wrong.join("; ")))
    };
    let failures: Vec<String> = variants().par_iter().filter_map(failure).collect();
    assert!(failures.is_empty(), "{failures:#?}");
}
