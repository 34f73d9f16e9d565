use std::collections::BTreeSet;

use image::{ImageFormat, Luma, LumaA, RgbImage};
use proptest::prelude::*;

use super::*;

fn name() -> &'static Path {
    Path::new("digit.png")
}

fn png(picture: impl Into<DynamicImage>) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// A thick L of `ink` on `paper`, away from the middle.
fn letter(ink: u8, paper: u8) -> GrayImage {
    GrayImage::from_fn(200, 150, |x, y| {
        let stem = (20..36).contains(&x) && (30..130).contains(&y);
        let foot = (20..80).contains(&x) && (114..130).contains(&y);
        Luma([if stem || foot { ink } else { paper }])
    })
}

fn center_of_mass(digit: &[u8; PIXELS]) -> [f64; 2] {
    let mass: f64 = digit.iter().map(|&pixel| f64::from(pixel)).sum();
    let moment = |coordinate: fn(usize) -> usize| {
        let terms = digit.iter().enumerate();
        terms.map(|(i, &pixel)| (coordinate(i) as f64 + 0.5) * f64::from(pixel)).sum::<f64>() / mass
    };
    [moment(|i| i % SIDE), moment(|i| i / SIDE)]
}

#[test]
fn ink_is_cut_out_scaled_to_20_pixels_and_centred_by_mass() {
    let digit = parse_digit(&png(letter(0, 255)), name(), Invert::Auto).unwrap();
    let inked =
        digit.iter().enumerate().filter(|(_, pixel)| **pixel > 0).map(|(at, _)| [at % SIDE, at / SIDE]);
    let [columns, rows] =
        [0, 1].map(|axis| inked.clone().map(|place| place[axis]).collect::<BTreeSet<_>>().len());
    assert_eq!([columns, rows], [12, 20]);
    for center in center_of_mass(&digit) {
        assert!((center - 14.0).abs() <= 0.5, "{center}");
    }
    assert_eq!(digit.iter().max(), Some(&255));
}

#[test]
fn paper_and_ink_may_have_any_shade() {
    let expected = parse_digit(&png(letter(0, 255)), name(), Invert::Yes).unwrap();
    for (ink, paper) in [(0, 255), (255, 0), (40, 180), (200, 90)] {
        let digit = parse_digit(&png(letter(ink, paper)), name(), Invert::Auto).unwrap();
        assert_eq!(digit, expected, "{ink} on {paper}");
    }
    let told = parse_digit(&png(letter(255, 0)), name(), Invert::No).unwrap();
    assert_eq!(told, expected);
    assert_ne!(parse_digit(&png(letter(255, 0)), name(), Invert::Yes).ok(), Some(expected));
}

#[test]
fn light_may_fall_from_one_side() {
    let expected = parse_digit(&png(letter(0, 255)), name(), Invert::Auto).unwrap();
    let ink = letter(0, 255);
    let shaded = GrayImage::from_fn(200, 150, |x, y| {
        let paper = 235.0 - 70.0 * x as f32 / 200.0 - 30.0 * y as f32 / 150.0;
        Luma([if ink.get_pixel(x, y).0[0] == 0 { paper - 130.0 } else { paper } as u8])
    });
    let digit = parse_digit(&png(shaded), name(), Invert::Auto).unwrap();
    let furthest = digit.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(furthest < Some(10), "{furthest:?}");
}

#[test]
fn colors_and_transparency_count_by_their_brightness() {
    let grey = letter(0, 255);
    let expected = parse_digit(&png(grey.clone()), name(), Invert::Auto).unwrap();
    let blue = RgbImage::from_fn(200, 150, |x, y| {
        image::Rgb(if grey.get_pixel(x, y).0[0] == 0 { [0, 0, 120] } else { [255, 250, 240] })
    });
    assert_eq!(parse_digit(&png(blue), name(), Invert::Auto).unwrap(), expected);
    let clear = image::GrayAlphaImage::from_fn(200, 150, |x, y| LumaA([0, 255 - grey.get_pixel(x, y).0[0]]));
    assert_eq!(parse_digit(&png(clear), name(), Invert::Auto).unwrap(), expected);
}

#[test]
fn a_picture_in_mnists_form_is_left_alone() {
    let digit = parse_digit(&png(letter(0, 255)), name(), Invert::Auto).unwrap();
    let stored = png(GrayImage::from_raw(28, 28, digit.to_vec()).unwrap());
    assert_eq!(parse_digit(&stored, name(), Invert::Auto).unwrap(), digit);
}

#[test]
fn large_and_tiny_pictures_are_scaled() {
    let large = imageops::resize(&letter(0, 255), 2000, 1500, imageops::FilterType::Triangle);
    let digit = parse_digit(&png(large), name(), Invert::Auto).unwrap();
    let expected = parse_digit(&png(letter(0, 255)), name(), Invert::Auto).unwrap();
    let difference: u32 = digit.iter().zip(&expected).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
    assert!(difference < 784 * 12, "{difference}");
    let mut dot = GrayImage::from_pixel(3, 3, Luma([255]));
    dot.put_pixel(1, 1, Luma([0]));
    assert!(parse_digit(&png(dot), name(), Invert::Auto).is_ok());
}

#[test]
fn what_shows_no_digit_is_refused() {
    let message = |bytes: &[u8]| parse_digit(bytes, name(), Invert::Auto).unwrap_err().to_string();
    for extent in [1, 28, 100] {
        let blank = message(&png(GrayImage::from_pixel(extent, extent, Luma([200]))));
        assert!(blank.contains("one shade"), "{blank}");
    }
    assert!(message(b"no picture at all").contains("a file of another kind"));
    let whole = png(letter(0, 255));
    assert!(message(&whole[..whole.len() / 2]).contains("expected a picture"));
    let wide = png(GrayImage::new(MAX_EXTENT + 1, 1));
    assert!(message(&wide).contains("width in pixels: expected at most 12000, found 12001"));
}

proptest! {
    #[test]
    fn corruption_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        length in any::<prop::sample::Index>(),
    ) {
        let mut bytes = png(letter(10, 240));
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = parse_digit(&bytes, name(), Invert::Auto);
        let _ = parse_digit(&bytes[..length.index(bytes.len())], name(), Invert::Auto);
    }
}
