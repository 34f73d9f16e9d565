use super::*;

#[test]
fn the_same_seed_draws_the_same_digits() {
    let draw = |seed| SampleDigits { seed, per_digit: 3 }.draw();
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn every_digit_is_there_and_looks_like_mnist() {
    let digits = SampleDigits { seed: 3, per_digit: 6 }.draw();
    assert_eq!(digits.len(), 60);
    assert_eq!(digits.labels()[..12], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]);
    for (i, (image, label)) in digits.iter().enumerate() {
        assert_eq!(image.iter().max(), Some(&255));
        // MNIST's mean brightness is 33, from about 10 for a thin 1 to about 80 for a bold 0.
        let mean = image.iter().map(|&pixel| u32::from(pixel)).sum::<u32>() / PIXELS as u32;
        assert!((8..80).contains(&mean), "digit {i} ({label}): {mean}");
    }
}

#[test]
fn none_is_none() {
    assert!(SampleDigits { seed: 0, per_digit: 0 }.draw().is_empty());
}

#[test]
fn ink_fills_20_pixels_and_what_has_none_is_refused() {
    let mut ink = vec![0; 60 * 80];
    (10..50).for_each(|y| ink[y * 80 + 30..][..20].fill(9));
    let digit = normalize_digit([60, 80], &ink).unwrap();
    for (at, &pixel) in digit.iter().enumerate() {
        let inside = (4..24).contains(&(at / SIDE)) && (9..19).contains(&(at % SIDE));
        assert_eq!(pixel, if inside { 255 } else { 0 }, "{at}");
    }
    assert!(normalize_digit([60, 80], &[0; 60 * 80]).is_none());
    for size in [[60, 79], [0, 0], [0, 4800], [usize::MAX, 2]] {
        assert!(normalize_digit(size, &ink).is_none());
    }
    assert!(normalize_digit([0, 0], &[]).is_none());
}

/// Bytes as hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file that the page in `gelu-web` has is what this project makes; `UPDATE_SAMPLES=1` makes it anew.
fn is_kept(path: &str, made: &serde_json::Value) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../gelu-web").join(path);
    let text = format!("{made:#}\n");
    if std::env::var_os("UPDATE_SAMPLES").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{}", path.display());
}

#[test]
fn the_page_has_samples_of_this_projects_own() {
    let samples = SampleDigits { seed: 7, per_digit: 1 }.draw();
    let samples: Vec<_> = samples
        .iter()
        .map(|(image, label)| serde_json::json!({ "label": label, "pixels": hex(image) }))
        .collect();
    is_kept("page/samples.json", &samples.into());
}

/// The page makes the same of drawings (`gelu-web/tests/digit.test.js`).
#[test]
fn the_page_is_held_to_these_normalized_digits() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let digits: Vec<_> = [[60, 40], [28, 28], [7, 90], [45, 45], [1, 1], [200, 150]]
        .into_iter()
        .map(|[height, width]| {
            // Strokes of random squares, grey at random.
            let mut ink = vec![0; height * width];
            for _ in 0..12 {
                let (top, left, grey) =
                    (rng.random_range(0..height), rng.random_range(0..width), rng.random_range(1..=255));
                for y in top..(top + height / 6 + 1).min(height) {
                    ink[y * width + left..y * width + (left + width / 6 + 1).min(width)].fill(grey);
                }
            }
            let digit = normalize_digit([height, width], &ink).unwrap();
            serde_json::json!({ "size": [height, width], "ink": hex(&ink), "digit": hex(&digit) })
        })
        .collect();
    is_kept("tests/digits.json", &digits.into());
}
