use std::collections::BTreeSet;
use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Luma, LumaA, RgbImage, imageops};
use proptest::prelude::*;

use super::decode::MAX_EXTENT;
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
    let tiny = imageops::resize(&letter(0, 255), 24, 18, imageops::FilterType::Triangle);
    assert!(parse_digit(&png(tiny), name(), Invert::Auto).is_ok());
}

fn message(bytes: &[u8]) -> String {
    parse_digit(bytes, name(), Invert::Auto).unwrap_err().to_string()
}

#[test]
fn what_shows_no_digit_is_refused() {
    for extent in [1, 2, 28, 100] {
        let blank = message(&png(GrayImage::from_pixel(extent, extent, Luma([200]))));
        assert!(blank.contains("at least 24 of 255, found a contrast of 0"), "{blank}");
    }
    let faint = message(&png(letter(230, 250)));
    assert!(faint.contains("at least 24 of 255, found a contrast of 20"), "{faint}");
    assert!(message(b"no picture at all").contains("a file of another kind"));
    let wide = png(GrayImage::new(MAX_EXTENT + 1, 1));
    assert!(message(&wide).contains("width in pixels: expected at most 12000, found 12001"));
}

#[test]
fn dust_blots_and_empty_frames_are_no_digits() {
    let draw = |is_ink: &dyn Fn(u32, u32) -> bool| {
        png(GrayImage::from_fn(200, 200, |x, y| Luma([if is_ink(x, y) { 10 } else { 245 }])))
    };
    for (specks, size) in
        [(vec![[12, 20]], 3), (vec![[12, 20], [150, 70], [80, 180]], 4), (vec![[90, 90]], 9)]
    {
        let text = message(&draw(&|x, y| {
            specks
                .iter()
                .any(|&[left, top]| (left..left + size).contains(&x) && (top..top + size).contains(&y))
        }));
        assert!(text.contains("expected a digit, found specks only"), "{text}");
    }
    let blot = message(&draw(&|x, y| (f64::from(x) - 90.0).hypot(f64::from(y) - 110.0) < 14.0));
    assert!(blot.contains("specks only"), "{blot}");
    let sheet = message(&draw(&|x, y| (40..150).contains(&x) && (50..160).contains(&y)));
    assert!(sheet.contains("an area of 110 x 110 pixels in 200 x 200 pixels without any"), "{sheet}");
    let empty = message(&draw(&|x, y| x < 4 || y < 4 || x > 195 || y > 195));
    assert!(empty.contains("expected a digit"), "{empty}");
}

#[test]
fn a_cut_off_picture_is_refused_wherever_it_is_cut() {
    let picture = DynamicImage::ImageLuma8(letter(10, 240)).to_rgb8();
    for format in [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::Bmp,
        ImageFormat::Gif,
        ImageFormat::WebP,
        ImageFormat::Tiff,
    ] {
        let mut whole = Cursor::new(Vec::new());
        picture.write_to(&mut whole, format).unwrap();
        let whole = whole.into_inner();
        assert!(parse_digit(&whole, name(), Invert::Auto).is_ok(), "{format:?}");
        // What comes after a picture, as some cameras write, does not matter.
        let longer = [&whole[..], b"more"].concat();
        assert!(parse_digit(&longer, name(), Invert::Auto).is_ok(), "{format:?}");
        let step = (whole.len() / 97).max(1);
        let cuts = (0..whole.len()).step_by(step).chain(whole.len().saturating_sub(20)..whole.len());
        for length in cuts {
            let text = parse_digit(&whole[..length], name(), Invert::Auto).map_err(|error| error.to_string());
            let is_refused = text.as_ref().is_err_and(|text| text.starts_with("digit.png: expected"));
            assert!(is_refused, "{format:?} cut to {length} of {}: {text:?}", whole.len());
        }
    }
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
