//! `gelu demo`, `plan`, `keygen` and `infer`, as a user runs them.

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use gelu_net::io::digits::SampleDigits;
use gelu_net::io::weights::{Dtype, WeightsFile};
use gelu_net::models::{WeightTensor, Weights};
use gelu_net::tensor::Shape;
use gelu_net::wire::{decode_public_key, decode_secret_key};
use image::{GrayImage, Luma, RgbImage, imageops};
use serde_json::Value;

use crate::common::{Folder, weights_file};

fn gelu(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("gelu").unwrap();
    command.args(arguments).env_remove("GELU_DATA");
    command
}

/// The one JSON object on standard output.
fn json(arguments: &[&str]) -> Value {
    let output = gelu(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(value.is_object());
    value
}

/// Standard error of a command that fails with `code`. Nothing comes on standard output, and nothing panics.
fn failure(arguments: &[&str], code: i32) -> String {
    let output = gelu(arguments).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(output.stdout.is_empty() && !text.contains("panicked"), "{text}");
    text
}

fn expect(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` should be in: {message}");
    }
}

impl Folder {
    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Digits 0 to 9 in files of their own: large, in color, dark ink on light paper.
    fn draw_digits(&self) -> Vec<String> {
        let samples = SampleDigits { seed: 21, per_digit: 1 }.draw();
        let draw = |(i, (pixels, _)): (usize, (&[u8], u8))| {
            let small = GrayImage::from_raw(28, 28, pixels.to_vec()).unwrap();
            let large = imageops::resize(&small, 140, 140, imageops::FilterType::Triangle);
            let mut paper = RgbImage::from_pixel(180, 200, image::Rgb([250, 245, 225]));
            for (x, y, Luma([ink])) in large.enumerate_pixels() {
                let shade = |paper: u8, pen: u8| {
                    let ink = u32::from(*ink);
                    ((u32::from(paper) * (255 - ink) + u32::from(pen) * ink) / 255) as u8
                };
                paper.put_pixel(x + 20, y + 30, image::Rgb([shade(250, 20), shade(245, 25), shade(225, 90)]));
            }
            let name = self.text(&format!("digit-{i}.png"));
            paper.save(&name).unwrap();
            name
        };
        samples.iter().enumerate().map(draw).collect()
    }

    fn keygen(&self, name: &str) -> Value {
        json(&["keygen", "--out", &self.text(name), "--key-bits", "1024", "--json"])
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_demo_is_right_and_accounts_for_every_step() {
    let folder = Folder::new();
    let report = json(&["demo", "--key-bits", "1024", "--json", "--out", &folder.text("out")]);
    assert_eq!(report["count"], 30);
    assert!(report["correct"].as_u64().unwrap() >= 29, "{report}");
    let steps = report["steps"].as_array().unwrap();
    // Hello and plan, then for each of five segments one step of the server and one of the client, after the first
    // encryption, while which the server makes its tables. The client makes random factors when it has to wait.
    let ahead = steps.iter().filter(|step| step["step"] == "meanwhile: random factors").count();
    assert!(ahead <= 1);
    assert_eq!(steps.len() - ahead, 2 + 1 + 1 + 2 * 5);
    let of_the_batch: Vec<_> = steps.iter().filter(|step| step["batch"] == 0).collect();
    assert_eq!(of_the_batch.len(), 1 + 2 * 5);
    for (at, step) in of_the_batch.iter().enumerate() {
        assert_eq!(step["party"], ["client", "server"][at % 2], "{steps:?}");
    }
    assert_eq!(
        (&of_the_batch[0]["step"], &of_the_batch[1]["step"]),
        (&"quantize, encrypt".into(), &"conv1+pool1".into())
    );
    for step in steps {
        let server = step["party"] == "server";
        assert_eq!(step["saw"], if server { "ciphertext" } else { "plaintext" }, "{step}");
        assert!(step["seconds"].as_f64().unwrap() >= 0.0);
        for count in ["ciphertexts_in", "ciphertexts_out", "bytes_out", "products"] {
            assert!(step[count].is_u64(), "{step}");
        }
    }
    let sum = |field: &str, party: &str| -> u64 {
        steps.iter().filter(|step| step["party"] == party).map(|step| step[field].as_u64().unwrap()).sum()
    };
    assert_eq!(report["bytes_up"], sum("bytes_out", "client"));
    assert_eq!(report["bytes_down"], sum("bytes_out", "server"));
    assert_eq!(sum("ciphertexts_out", "client"), sum("ciphertexts_in", "server"));
    // As the plan counts them: tables are made once for a key, not for a batch.
    let products = of_the_batch.iter().map(|step| step["products"].as_u64().unwrap());
    assert_eq!(report["server"]["products"], products.sum::<u64>());
    let picture = image::open(folder.path("out").join("digits.png")).unwrap();
    assert!(picture.width() > 28 * 5);
    assert!(fs::read_to_string(folder.path("out").join("steps.svg")).unwrap().contains("</svg>"));
}

#[test]
fn the_demo_shows_digits_and_table_in_the_terminal() {
    let folder = Folder::new();
    let arguments = ["demo", "--key-bits", "1024", "--per-digit", "1", "--out", &folder.text("out")];
    let output = gelu(&arguments).output().unwrap();
    assert!(output.status.success());
    let shown = String::from_utf8(output.stdout).unwrap();
    expect(
        &shown,
        &["conv1+pool1", "fc3", "ciphertext", "plaintext", "products", "of 10 correct", "digits.png"],
    );
    // A row for each of four layers between two segments.
    assert_eq!(shown.matches("decrypt, relu, encrypt").count(), 4, "{shown}");
    expect(&String::from_utf8(output.stderr).unwrap(), &["keys of 1024 bits are for tests"]);
}

#[test]
fn the_plan_adds_up() {
    let weights = weights_file("lenet5");
    let plan =
        json(&["plan", "--model", "lenet5", "--key-bits", "2048", "--weights", text(&weights), "--json"]);
    let segments = plan["segments"].as_array().unwrap();
    let names: Vec<_> = segments.iter().map(|segment| segment["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["conv1+pool1", "conv2+pool2", "fc1", "fc2", "fc3"]);
    for field in ["ciphertexts_up", "ciphertexts_down", "bytes_up", "bytes_down", "products", "squarings"] {
        let sum: u64 = segments.iter().map(|segment| segment[field].as_u64().unwrap()).sum();
        assert_eq!(plan[field], sum, "{field}");
    }
    assert_eq!(plan["bytes_up"].as_u64().unwrap(), plan["ciphertexts_up"].as_u64().unwrap() * 512);
    assert!(plan["logit_error_bound"].as_f64().unwrap() > 0.0);
    assert!(json(&["plan", "--model", "dense12", "--json"])["logit_error_bound"].is_null());
    assert!(json(&["plan", "--model", "conv1", "--json"])["logit_error_bound"].is_number());

    let output = gelu(&["plan", "--model", "conv1", "--key-bits", "2048"]).output().unwrap();
    expect(&String::from_utf8(output.stdout).unwrap(), &["conv1", "im2col", "subsets of", "all", "relu"]);
    let refused = ["plan", "--model", "lenet5", "--weight-bits", "25", "--json"];
    expect(&failure(&refused, 1), &["weight bits", "expected 2 to 24", "found 25"]);
    expect(&failure(&["plan", "--layer-bits", "fc9=8"], 1), &["fc9", "no linear layer of that name"]);
    expect(&failure(&["plan", "--model", "lenet6"], 1), &["lenet6", "expected conv1, lenet5, mlp:WIDTHS"]);
}

#[test]
fn subgroup_keys_are_opt_in_and_runs_can_be_calibrated() {
    let folder = Folder::new();
    let name = folder.text("phone");
    let made = json(&["keygen", "--out", &name, "--key-bits", "1024", "--key-type", "subgroup", "--json"]);
    assert_eq!(made["key_type"], "subgroup");
    let pictures = folder.draw_digits();
    let (weights, key) = (weights_file("conv1"), folder.text("phone.key"));
    let infer = ["infer", "--model", "conv1", "--weights", text(&weights), "--key", &key, "--calibrate"];
    let report = json(&[&infer[..], &["--json", "--images", &pictures[0]]].concat());
    assert_eq!((report["key_type"].as_str(), report["agree_fixed"].as_f64()), (Some("subgroup"), Some(1.0)));
    for field in ["limit_ns", "limit_ns_before", "limit_ns_after", "share_of_limit"] {
        assert!(report[field].as_f64().unwrap() > 0.0, "{field}");
    }
    assert!(report["steps"].as_array().unwrap().iter().any(|step| step["overlaps"] == true));
    let output = gelu(&[&infer[..], &["--images", &pictures[0]]].concat()).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    expect(&printed, &["1024 bits, subgroup", "limit_ns", "before", "after"]);
}

#[test]
fn keys_are_written_once_and_for_their_owner_alone() {
    let folder = Folder::new();
    let report = folder.keygen("clinic");
    assert_eq!((report["key_bits"].as_u64(), report["key_type"].as_str()), (Some(1024), Some("djn")));
    assert_eq!(folder.names(), ["clinic.key", "clinic.pub"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(folder.path("clinic.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let read = |name| fs::read(folder.path(name)).unwrap();
    let secret = decode_secret_key(&read("clinic.key")).unwrap();
    assert_eq!(&decode_public_key(&read("clinic.pub")).unwrap(), secret.public_key());
    let fingerprint: String =
        secret.public_key().fingerprint().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(report["fingerprint"], fingerprint);

    let before = [read("clinic.key"), read("clinic.pub")];
    let arguments = ["keygen", "--out", &folder.text("clinic"), "--key-bits", "1024"];
    expect(&failure(&arguments, 1), &["clinic.key", "is there already", "--force"]);
    // Half a pair counts too.
    fs::remove_file(folder.path("clinic.key")).unwrap();
    expect(&failure(&arguments, 1), &["clinic.pub", "is there already"]);
    fs::write(folder.path("clinic.key"), &before[0]).unwrap();
    assert_eq!([read("clinic.key"), read("clinic.pub")], before);
    assert!(gelu(&[&arguments[..], &["--force"]].concat()).output().unwrap().status.success());
    assert_ne!(read("clinic.key"), before[0]);
    assert_eq!(folder.names(), ["clinic.key", "clinic.pub"]);
    expect(&failure(&["keygen", "--out", &folder.text("nowhere/x"), "--key-bits", "1024"], 1), &["nowhere"]);
}

/// A preference changes what is sent, and nothing else.
#[test]
fn a_preference_saves_bytes_or_time() {
    let kilobytes = |prefer: &str| {
        let plan = ["plan", "--key-bits", "2048", "--key-type", "subgroup", "--prefer", prefer, "--json"];
        let plan = json(&plan);
        assert_eq!(plan["prefer"], prefer);
        ["bytes_up", "bytes_down"].map(|field| plan[field].as_u64().unwrap() / 1000)
    };
    let [bytes, balance, time] = ["bytes", "balance", "time"].map(kilobytes);
    assert!(bytes[0] < 150 && balance[0] < 200, "{bytes:?} {balance:?}");
    let sums = [bytes, balance, time].map(|kilobytes| kilobytes.iter().sum::<u64>());
    assert!(sums.is_sorted(), "{sums:?}");
    let default = json(&["plan", "--key-bits", "2048", "--json"]);
    assert_eq!(default["prefer"], "balance");

    let folder = Folder::new();
    let pictures = folder.draw_digits();
    let reports = ["bytes", "balance", "time"].map(|prefer| {
        let infer = ["infer", "--key-bits", "1024", "--prefer", prefer, "--logits", "--json", "--images"];
        json(&[&infer[..], &[&*pictures[3], &*pictures[7]]].concat())
    });
    for report in &reports[1..] {
        assert_eq!(report["logits"], reports[0]["logits"]);
        let bytes = [report, &reports[0]].map(|report| report["bytes_up"].as_u64().unwrap());
        assert!(bytes[0] >= bytes[1], "{bytes:?}");
    }
    expect(&failure(&["plan", "--prefer", "bits"], 2), &["--prefer", "balance, bytes, time"]);
}

#[test]
fn pictures_are_classified_under_a_key_of_a_file() {
    let folder = Folder::new();
    folder.keygen("me");
    let pictures = folder.draw_digits();
    let (weights, key) = (weights_file("lenet5"), folder.text("me.key"));
    let mut arguments = vec!["infer", "--model", "lenet5", "--weights", text(&weights), "--key", &key];
    arguments.extend(["--logits", "--json", "--batch", "10", "--images"]);
    arguments.extend(pictures.iter().map(String::as_str));
    let report = json(&arguments);
    assert_eq!(report["model"], "lenet5");
    assert_eq!((report["count"].as_u64(), report["key_bits"].as_u64()), (Some(10), Some(1024)));
    assert_eq!((report["key_type"].as_str(), report["backend"].is_string()), (Some("djn"), true));
    assert_eq!(report["agree_fixed"], 1.0);
    assert!(report["agree_float"].as_f64().unwrap() >= 0.9);
    // Pictures have no labels.
    assert!(report["correct"].is_null() && report["accuracy"].is_null());
    for field in ["seconds_total", "seconds_per_image"] {
        assert!(report[field].as_f64().unwrap() > 0.0, "{field}");
    }
    for (side, fields) in [
        ("server", ["seconds", "products", "ns_per_product"]),
        ("client", ["seconds", "encryptions", "decryptions"]),
    ] {
        assert!(fields.iter().all(|field| report[side][field].as_f64().unwrap() > 0.0), "{report}");
    }
    assert!(report["bytes_up"].as_u64() > report["bytes_down"].as_u64());
    assert!(report["saturations"].is_u64());
    let predictions = report["predictions"].as_array().unwrap();
    let right = predictions.iter().enumerate().filter(|(i, found)| found.as_u64() == Some(*i as u64)).count();
    assert!(right >= 9, "{predictions:?}");
    for (i, image) in report["logits"].as_array().unwrap().iter().enumerate() {
        let logits: Vec<f64> =
            image["logits"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        let largest = (0..10).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
        assert_eq!((image["index"].as_u64(), &image["prediction"]), (Some(i as u64), &predictions[i]));
        assert_eq!(image["prediction"], largest);
        assert!(image["label"].is_null());
    }
}

#[test]
fn the_table_of_infer_is_for_people() {
    let folder = Folder::new();
    let pictures = folder.draw_digits();
    let weights = weights_file("conv1");
    let arguments =
        ["infer", "--model", "conv1", "--weights", text(&weights), "--key-bits", "1024", "--images"];
    let output = gelu(&[&arguments[..], &[&pictures[3]]].concat()).output().unwrap();
    assert!(output.status.success());
    let table = String::from_utf8(output.stdout).unwrap();
    expect(
        &table,
        &["digit-3.png", "prediction", "confidence", "1024 bits, djn", "products mod n^2", "kB up"],
    );
}

/// Conv-1's weights with a change, in a file.
fn changed(folder: &Folder, change: impl FnOnce(&mut Weights)) -> String {
    let mut weights = Weights::read(weights_file("conv1")).unwrap();
    change(&mut weights);
    weights.write(folder.path("changed.safetensors"), Dtype::F32).unwrap();
    folder.text("changed.safetensors")
}

#[test]
fn bad_weights_are_named() {
    let folder = Folder::new();
    let picture = folder.draw_digits().remove(0);
    let infer = |weights: &str| {
        let arguments = ["infer", "--model", "conv1", "--weights", weights, "--key-bits", "1024", "--json"];
        failure(&[&arguments[..], &["--images", &picture]].concat(), 1)
    };
    let whole = fs::read(weights_file("conv1")).unwrap();
    fs::write(folder.path("cut.safetensors"), &whole[..whole.len() - 100]).unwrap();
    expect(&infer(&folder.text("cut.safetensors")), &["cut.safetensors", "expected", "found"]);
    expect(&infer(&folder.text("none.safetensors")), &["none.safetensors"]);
    let zeros =
        |dims: [usize; 2]| WeightTensor::new(Shape::from(dims), vec![0.0; dims[0] * dims[1]]).unwrap();
    let shape =
        changed(&folder, |weights| drop(weights.tensors.insert("fc1.weight".into(), zeros([180, 10]))));
    expect(&infer(&shape), &["fc1.weight", "expected 10x180", "found 180x10"]);
    // Numbers come last in such a file.
    let mut nan = whole.clone();
    nan[whole.len() - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(folder.path("nan.safetensors"), &nan).unwrap();
    expect(&infer(&folder.text("nan.safetensors")), &["weight", "expected", "finite", "found"]);
    let missing = changed(&folder, |weights| drop(weights.tensors.remove("conv1.weight")));
    expect(&infer(&missing), &["conv1.weight", "expected 5x1x5x5", "found no such tensor"]);
    // A model file says what network it is; weights alone are compared name by name.
    let other = weights_file("lenet5");
    expect(&infer(text(&other)), &["lenet5.safetensors", "another network than `conv1`"]);
    let mut alone = Weights::read(&other).unwrap();
    alone.metadata.clear();
    alone.write(folder.path("alone.safetensors"), Dtype::F32).unwrap();
    expect(&infer(&folder.text("alone.safetensors")), &["fc3.weight", "expected", "found"]);
}

#[test]
fn bad_images_and_missing_data_are_named() {
    let folder = Folder::new();
    fs::write(folder.path("notes.png"), "no picture").unwrap();
    let weights = weights_file("conv1");
    let common = ["infer", "--model", "conv1", "--weights", text(&weights), "--key-bits", "1024", "--json"];
    let infer = |rest: &[&str]| failure(&[&common[..], rest].concat(), 1);
    expect(&infer(&["--images", &folder.text("notes.png")]), &["notes.png", "expected", "found"]);
    expect(&infer(&["--images", &folder.text("none.png")]), &["none.png"]);
    GrayImage::from_pixel(40, 40, Luma([200])).save(folder.path("blank.png")).unwrap();
    expect(&infer(&["--images", &folder.text("blank.png")]), &["blank.png", "expected", "found"]);
    let empty = folder.0.path().to_str().unwrap();
    expect(&infer(&["--dataset", "mnist", "--data", empty]), &["MNIST", empty, "--data"]);
}

#[test]
fn bad_key_files_are_named() {
    let folder = Folder::new();
    folder.keygen("me");
    let picture = folder.draw_digits().remove(0);
    let weights = weights_file("conv1");
    let infer = |key: &str| {
        let key = folder.text(key);
        let arguments = ["infer", "--model", "conv1", "--weights", text(&weights), "--key", &key];
        failure(&[&arguments[..], &["--images", &picture]].concat(), 1)
    };
    expect(&infer("me.pub"), &["me.pub", "expected a secret key", "found a public key"]);
    expect(&infer("none.key"), &["none.key"]);
    let good = fs::read(folder.path("me.key")).unwrap();
    fs::write(folder.path("cut.key"), &good[..good.len() - 1]).unwrap();
    expect(&infer("cut.key"), &["cut.key", "expected", "found"]);
    // The payload begins with p; a multiple of 3 that is 3 mod 4 is no prime.
    let mut composite = good.clone();
    let p = composite.len() - 6 * 64;
    composite[p..p + 63].fill(0);
    composite[p] = 3;
    composite[p + 63] = 0xc0;
    fs::write(folder.path("composite.key"), &composite).unwrap();
    expect(&infer("composite.key"), &["composite.key", "p must be a prime"]);
    fs::write(folder.path("text.key"), "-----BEGIN RSA PRIVATE KEY-----").unwrap();
    expect(&infer("text.key"), &["text.key", "expected bytes that begin with \"GELU\""]);
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let weights = weights_file("conv1");
    for wrong in [
        &["fly"][..],
        &["infer", "--model", "conv1"],
        &["infer", "--model", "conv1", "--weights", text(&weights)],
        &[
            "infer",
            "--model",
            "conv1",
            "--weights",
            text(&weights),
            "--images",
            "a.png",
            "--dataset",
            "mnist",
        ],
        &["infer", "--model", "conv1", "--weights", text(&weights), "--images", "a.png", "--batch", "0"],
        &[
            "infer",
            "--model",
            "conv1",
            "--weights",
            text(&weights),
            "--images",
            "a",
            "--key",
            "k",
            "--key-bits",
            "1024",
        ],
        &["demo", "--key-bits", "1000"],
        &["plan", "--layer-bits", "fc1"],
        &["keygen"],
    ] {
        expect(&failure(wrong, 2), &["--help"]);
    }
}

#[test]
fn tuning_says_what_it_needs() {
    let weights = weights_file("conv1");
    expect(&failure(&["plan", "--model", "dense12", "--tune"], 1), &["dense12", "--weights"]);
    let tune = ["plan", "--model", "conv1", "--tune"];
    let folder = Folder::new();
    let (weights, data) = (weights.to_str().unwrap(), folder.path("none"));
    let message =
        failure(&[&tune[..], &["--weights", weights, "--data", data.to_str().unwrap()]].concat(), 1);
    expect(&message, &["none", "mnist"]);
}

#[test]
fn a_pool_is_reported_as_prepared() {
    let weights = weights_file("conv1");
    let folder = Folder::new();
    let picture = folder.path("one.png");
    let stroke = |x: u32, y: u32| Luma([if (12..16).contains(&x) && (4..24).contains(&y) { 0 } else { 255 }]);
    GrayImage::from_fn(28, 28, stroke).save(&picture).unwrap();
    let report = json(&[
        "infer",
        "--model",
        "conv1",
        "--weights",
        weights.to_str().unwrap(),
        "--images",
        picture.to_str().unwrap(),
        "--key-bits",
        "1024",
        "--pool",
        "30",
        "--json",
    ]);
    assert_eq!(report["pool"]["factors"], 24);
    assert!(report["pool"]["bytes"].as_u64().unwrap() >= 24 * 256);
    assert!(report["agree_fixed"].as_f64().unwrap() == 1.0);
}

#[test]
fn a_backend_that_is_not_known_is_refused() {
    let output = gelu(&["plan"]).env("GELU_BACKEND", "avx9").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    expect(&text, &["GELU_BACKEND", "avx9", "portable"]);
}
