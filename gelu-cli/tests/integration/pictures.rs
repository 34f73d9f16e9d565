//! `gelu infer --images`, as a user runs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use gelu_net::io::digits::SampleDigits;
use image::{GrayImage, Luma, imageops};
use serde_json::Value;

use crate::common::{gelu, weights_file};

/// A drawn digit, dark on light in a dark frame, of 160 pixels a side.
fn draw(digit: u8) -> GrayImage {
    let samples = SampleDigits { seed: 21, per_digit: 1 }.draw();
    let (pixels, _) = samples.iter().find(|(_, label)| *label == digit).unwrap();
    let small = GrayImage::from_raw(28, 28, pixels.to_vec()).unwrap();
    let mut large = imageops::resize(&small, 160, 160, imageops::FilterType::Triangle);
    imageops::invert(&mut large);
    GrayImage::from_fn(160, 160, |x, y| {
        if [x, y].iter().any(|at| !(2..158).contains(at)) { Luma([0]) } else { *large.get_pixel(x, y) }
    })
}

fn infer(pictures: &[&Path], rest: &[&str]) -> Output {
    let weights = weights_file("lenet5");
    let mut arguments =
        vec!["infer", "--model", "lenet5", "--weights", weights.to_str().unwrap(), "--key-bits", "1024"];
    arguments.extend(rest);
    arguments.push("--images");
    arguments.extend(pictures.iter().map(|path| path.to_str().unwrap()));
    gelu(&arguments, Path::new("/nowhere"))
}

#[test]
fn one_bad_picture_is_named_and_the_others_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    draw(7).save(path("seven.png")).unwrap();
    draw(3).save(path("three.bmp")).unwrap();
    GrayImage::from_pixel(50, 50, Luma([200])).save(path("blank.png")).unwrap();
    let pictures = ["seven.png", "blank.png", "none.png", "three.bmp"].map(path);
    let pictures: Vec<&Path> = pictures.iter().map(PathBuf::as_path).collect();
    let output = infer(&pictures, &["--json", "--batch", "2"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["predictions"], serde_json::json!([7, 3]));
    assert_eq!(report["images"], serde_json::json!([pictures[0], pictures[3]]));
    let unusable = report["unusable"].as_array().unwrap();
    assert_eq!(
        [&unusable[0]["image"], &unusable[1]["image"]],
        [pictures[1], pictures[2]].map(|path| path.to_str().unwrap())
    );
    let text = String::from_utf8(output.stderr).unwrap();
    for part in [
        "blank.png: expected a digit with a contrast",
        "found a contrast of 0",
        "none.png: cannot open",
        "2 of 4 pictures",
    ] {
        assert!(text.contains(part), "`{part}` should be in: {text}");
    }
    let table = infer(&pictures, &[]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(
        table.contains("seven.png") && table.contains("three.bmp") && !table.contains("blank.png"),
        "{table}"
    );

    let none = infer(&[pictures[1], pictures[2]], &["--json"]);
    assert_eq!((none.status.code(), none.stdout.is_empty()), (Some(1), true));
}

#[test]
fn what_the_network_saw_is_written_under_the_pictures_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("other")).unwrap();
    draw(7).save(path("digit.png")).unwrap();
    draw(3).save(path("other/digit.bmp")).unwrap();
    let pictures = [path("digit.png"), path("other/digit.bmp")];
    let pictures: Vec<&Path> = pictures.iter().map(PathBuf::as_path).collect();
    let inputs = path("seen/inputs");
    let output = infer(&pictures, &["--json", "--save-inputs", inputs.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let first: Value = serde_json::from_slice(&output.stdout).unwrap();
    let seen = ["digit.png", "digit-2.png"].map(|name| inputs.join(name));
    for picture in &seen {
        assert_eq!(image::image_dimensions(picture).unwrap(), (28, 28));
    }
    // They are what the network saw: read again, they give the same.
    let again = infer(&[&seen[0], &seen[1]], &["--json", "--logits"]);
    let again: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(again["predictions"], first["predictions"]);
    // A picture is not overwritten by what was seen of it.
    let before = fs::read(pictures[0]).unwrap();
    let here = folder.path().to_str().unwrap();
    assert!(infer(&pictures[..1], &["--save-inputs", here]).status.success());
    assert_eq!(fs::read(pictures[0]).unwrap(), before);
    assert!(path("digit-2.png").is_file());
}
