use super::*;

#[test]
fn the_same_seed_draws_the_same_digits() {
    let draw = |seed| sample_digits(SampleOptions { seed, per_digit: 3 });
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn every_digit_is_there_and_looks_like_mnist() {
    let digits = sample_digits(SampleOptions { seed: 3, per_digit: 6 });
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
    assert!(sample_digits(SampleOptions { seed: 0, per_digit: 0 }).is_empty());
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
