//! Data sets of one's own with `gelu data inspect`, `train` and `infer`, as a user runs them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::{Folder, data, fail, gelu, succeed};

impl Folder {
    fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), contents).unwrap();
        self.text(name)
    }

    fn data(&self) -> &Path {
        self.0.path()
    }
}

/// Patients whose diagnosis follows from what is measured. Every tenth pressure is missing.
fn patients(rows: usize) -> String {
    let mut text = "diagnosis_label;pressure;smoker\n".to_owned();
    for i in 0..rows {
        let is_ill = i % 3 == 0;
        let pressure =
            if i % 10 == 9 { "?".to_owned() } else { (i % 7 + if is_ill { 150 } else { 90 }).to_string() };
        writeln!(
            text,
            "{};{pressure};{}",
            if is_ill { "ill" } else { "well" },
            if is_ill { "yes" } else { "no" }
        )
        .unwrap();
    }
    text
}

#[test]
fn a_table_is_inspected_trained_on_and_read_by_the_model() {
    let folder = Folder::new();
    let table = folder.write("patients.csv", patients(90));
    let inspected: Value =
        serde_json::from_str(&succeed(&["data", "inspect", &table, "--json"], folder.data())).unwrap();
    assert_eq!((&inspected["missing"], &inspected["shape"]), (&9.into(), &serde_json::json!([2])));
    assert_eq!(inspected["parts"][0]["classes"], serde_json::json!([["ill", 30], ["well", 60]]));
    let shown = succeed(&["data", "inspect", &table], folder.data());
    for part in [
        "`;` between values, a header",
        "column 1 (`diagnosis_label`)",
        "line 11, column 2",
        "--missing drop",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    let model = folder.text("model.safetensors");
    let train = [
        "train",
        "--clear",
        "--model",
        "mlp:4",
        "--epochs",
        "40",
        "--batch",
        "8",
        "--out",
        &model,
        "--dataset",
    ];
    let refused = fail(&[&train[..], &[&table]].concat(), folder.data(), 1);
    assert!(
        refused.contains("line 11, column 2 (`pressure`)") && refused.contains("--missing mean"),
        "{refused}"
    );
    succeed(&[&train[..], &[&table, "--missing", "mean"]].concat(), folder.data());

    // Other columns, another order, no label in the last row.
    let new = folder
        .write("new.csv", "smoker,pressure,note,diagnosis_label\nyes,152,a,ill\nno,93,b,well\nno,95,c,?\n");
    let [out, plot] = ["results.csv", "confusion.svg"].map(|name| folder.text(name));
    let infer = ["infer", "--model", &model, "--key-bits", "1024", "--batch", "8", "--json"];
    let more = ["--dataset", &new, "--out", &out, "--plot", &plot];
    let report: Value = serde_json::from_str(&succeed(&[&infer[..], &more].concat(), folder.data())).unwrap();
    assert_eq!((&report["count"], &report["correct"], &report["auc"]), (&3.into(), &2.into(), &1.0.into()));
    assert_eq!(report["rows"][2]["class"], "well");
    let results = fs::read_to_string(&out).unwrap();
    assert!(results.starts_with("input,class,confidence,label\nline 2,ill,0."), "{results}");
    assert!(fs::read_to_string(&plot).unwrap().contains("AUC 1.0000"));

    // Rows one by one, where all of them would share ciphertexts.
    for (batch, is_told) in [("8", false), ("1", true)] {
        let infer = infer.map(|argument| if argument == "8" { batch } else { argument });
        let notes = gelu(&[&infer[..], &["--dataset", &new]].concat(), folder.data()).stderr;
        let notes = String::from_utf8(notes).unwrap();
        assert_eq!(notes.contains("fill a ciphertext: --batch 3 takes less time"), is_told, "{notes}");
    }

    let strange = folder.write("strange.csv", "smoker,pressure\nyes,152\nsometimes,93\n");
    let said = fail(&[&infer[..], &["--dataset", &strange]].concat(), folder.data(), 1);
    assert!(
        said.contains("line 3, column 1 (`smoker`): expected one of `no`, `yes`, found `sometimes`"),
        "{said}"
    );
}

#[test]
fn a_model_is_tuned_by_the_data_set_that_it_was_trained_on() {
    let folder = Folder::new();
    let table = folder.write("patients.csv", patients(90));
    let [model, tuned] = ["model.safetensors", "tuned.safetensors"].map(|name| folder.text(name));
    let train = ["train", "--clear", "--model", "mlp:4", "--epochs", "40", "--batch", "8"];
    let seeded = ["--dataset", &table, "--missing", "drop", "--seed", "3", "--out", &model];
    succeed(&[&train[..], &seeded].concat(), folder.data());

    let plan = |model: &str, more: &[&str]| -> Value {
        let arguments = [&["plan", "--model", model, "--json"], more].concat();
        serde_json::from_str(&succeed(&arguments, folder.data())).unwrap()
    };
    let tune = ["--tune", "--missing", "drop", "--split-seed", "3"];
    let found = plan(&model, &[&tune[..], &["--save", &tuned]].concat());
    let by = &found["tuned"];
    assert_eq!(by["dataset"], table.as_str());
    // A fifth of the 81 rows without gaps is kept for testing.
    assert_eq!((&by["chosen_by"]["inputs"], &by["test"]["inputs"]), (&65.into(), &16.into()));
    assert_eq!((&by["chosen_by"]["same"], &by["chosen_by"]["accuracy"]), (&1.0.into(), &1.0.into()));
    let bits = |plan: &Value| -> Vec<u64> {
        let segments = plan["segments"].as_array().unwrap().iter();
        segments.map(|segment| segment["terms"][0]["weight_bits"].as_u64().unwrap()).collect()
    };
    assert_eq!(bits(&plan(&model, &[])), [9, 9]);
    let fewer = bits(&found);
    assert!(fewer.iter().all(|&bits| bits < 9), "{fewer:?}");
    assert_eq!(bits(&plan(&tuned, &[])), fewer);
    // What may be any prediction may have any bits.
    let loose = plan(&model, &[&tune[..], &["--tolerance", "100", "--images", "20"]].concat());
    assert_eq!((bits(&loose), &loose["tuned"]["chosen_by"]["inputs"]), (vec![2, 2], &20.into()));

    fs::remove_file(&table).unwrap();
    let missing = fail(&["plan", "--model", &model, "--tune"], folder.data(), 1);
    assert!(missing.contains("patients.csv"), "{missing}");
}

#[test]
fn the_rows_that_training_kept_can_be_asked_for() {
    let folder = Folder::new();
    let table = folder.write("patients.csv", patients(90));
    let model = folder.text("model.safetensors");
    let train =
        ["train", "--clear", "--model", "mlp:4", "--epochs", "5", "--json", "--test", "0.3", "--seed", "5"];
    let own = ["--missing", "mean", "--dataset", &table, "--out", &model];
    let trained: Value = serde_json::from_str(&succeed(&[&train[..], &own].concat(), folder.data())).unwrap();
    let infer = ["infer", "--model", &model, "--key-bits", "1024", "--batch", "32", "--json"];
    let same = ["--dataset", &table, "--missing", "mean", "--test", "0.3", "--split-seed", "5"];
    let report: Value = serde_json::from_str(&succeed(&[&infer[..], &same].concat(), folder.data())).unwrap();
    assert_eq!(report["count"], trained["test_images"]);
    let difference = report["accuracy"].as_f64().unwrap() - trained["test"]["accuracy"].as_f64().unwrap();
    assert!(difference.abs() < 0.04, "{difference}");
}

#[test]
fn layers_whose_values_were_clamped_are_named() {
    let folder = Folder::new();
    let table = folder.write("patients.csv", patients(90));
    let model = folder.text("model.safetensors");
    let train = ["train", "--clear", "--model", "mlp:3", "--missing", "mean", "--epochs", "3"];
    succeed(&[&train[..], &["--dataset", &table, "--out", &model]].concat(), folder.data());
    let infer = |table: &str| -> String {
        let infer =
            ["infer", "--model", &model, "--missing", "mean", "--key-bits", "1024", "--dataset", table];
        let output = gelu(&infer, folder.data());
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let messages = infer(&table);
    assert!(!messages.contains("clamped"), "{messages}");
    // A table in another unit.
    let other = folder.write("other.csv", patients(90).replace(";1", ";91"));
    let messages = infer(&other);
    assert!(
        messages.contains("were clamped, those of input (") && messages.contains("--calibrate"),
        "{messages}"
    );
}

/// A folder with pictures of 4 by 6 pixels in two classes.
fn pictures(folder: &Folder) -> String {
    for i in 0..24u8 {
        let (class, shade) = if i % 2 == 0 { ("dark", 20 + i) } else { ("light", 220 - i) };
        let path = folder.path(&format!("pictures/{class}/{i}.png"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::GrayImage::from_pixel(6, 4, image::Luma([shade])).save(path).unwrap();
    }
    folder.text("pictures")
}

/// Each of two layers whose sums are added keeps bits of its own, and none is taken where that saves nothing.
#[test]
fn a_tuned_residual_network_keeps_the_bits_of_its_shortcuts() {
    let folder = Folder::new();
    let pictures = pictures(&folder);
    let [model, tuned] = ["model.safetensors", "tuned.safetensors"].map(|name| folder.text(name));
    let train =
        ["train", "--clear", "--model", "resnet8:2", "--epochs", "2", "--batch", "4", "--out", &model];
    succeed(&[&train[..], &["--dataset", &pictures]].concat(), folder.data());
    let plan = |model: &str, more: &[&str]| -> Value {
        let arguments = [&["plan", "--model", model, "--json"], more].concat();
        serde_json::from_str(&succeed(&arguments, folder.data())).unwrap()
    };
    let [before, found, after] = [
        plan(&model, &[]),
        plan(&model, &["--tune", "--tolerance", "60", "--save", &tuned]),
        plan(&tuned, &[]),
    ];
    let cost = |plan: &Value| {
        let count = |what: &str| plan[what].as_u64().unwrap();
        (count("products") + count("squarings"), count("ciphertexts_up"), count("ciphertexts_down"))
    };
    assert!(cost(&found) < cost(&before));
    assert_eq!(found["segments"], after["segments"]);
    let bits = found["tuned"]["layer_bits"].as_object().unwrap();
    for segment in after["segments"].as_array().unwrap() {
        let layer = segment["name"].as_str().unwrap().split('+').next().unwrap();
        let few = bits[layer].as_u64().unwrap();
        match &segment["terms"].as_array().unwrap()[..] {
            // Another bit is more work, if nothing else decides on the scale of the sums.
            [_] if few < 9 => {
                let more = plan(&tuned, &["--layer-bits", &format!("{layer}={}", few + 1)]);
                assert!(cost(&more) > cost(&after), "{layer}");
            }
            _ => assert!((2..=9).contains(&few), "{layer}"),
        }
    }
    assert!(bits.contains_key("layer2.0.shortcut.0") && bits.contains_key("layer3.0.shortcut.0"), "{bits:?}");
}

#[test]
fn pictures_in_folders_are_trained_on_and_named_in_results() {
    let folder = Folder::new();
    let pictures = pictures(&folder);
    folder.write("pictures/light/readme.txt", "no picture");
    let shown = succeed(&["data", "inspect", &pictures], folder.data());
    for part in ["1x4x6", "24 pictures in grey", "skipped:", "readme.txt"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let model = folder.text("model.safetensors");
    let train = [
        "train", "--clear", "--model", "mlp:3", "--epochs", "60", "--batch", "4", "--lr", "0.1", "--out",
        &model,
    ];
    succeed(&[&train[..], &["--dataset", &pictures]].concat(), folder.data());
    let infer = ["infer", "--model", &model, "--key-bits", "1024", "--batch", "24", "--json"];
    let report: Value =
        serde_json::from_str(&succeed(&[&infer[..], &["--dataset", &pictures]].concat(), folder.data()))
            .unwrap();
    assert_eq!((&report["count"], &report["classes"]), (&24.into(), &serde_json::json!(["dark", "light"])));
    assert!(report["rows"][0]["input"].as_str().unwrap().ends_with("0.png"), "{}", report["rows"][0]);
}

#[test]
fn what_cannot_be_trained_on_is_said_with_advice() {
    let folder = Folder::new();
    let train = |name: &str, text: &str| {
        let table = folder.write(name, text);
        fail(&["train", "--clear", "--model", "mlp:2", "--dataset", &table], folder.data(), 1)
    };
    let one: String = (0..20).map(|i| format!("{i},red\n")).collect();
    assert!(train("one.csv", &one).contains("found only `red`"));
    assert!(train("two.csv", "1,red\n2,blue\n").contains("--test FILE"));
    let real: String = (0..40).map(|i| format!("{i},{}.25\n", i * 2)).collect();
    assert!(train("real.csv", &real).contains("--label COLUMN"));
    assert!(train("ragged.csv", "1,2,red\n3,blue\n4,5,red\n").contains("line 2: expected 3 columns"));
    let unknown = fail(&["data", "inspect", "iriss"], folder.data(), 2);
    assert!(unknown.contains("kr-vs-kp") && unknown.contains("iriss"), "{unknown}");
}

/// A known name in another folder is read by what the file there says.
#[test]
fn known_tables_may_have_a_header_or_their_label_first() {
    let plain = data();
    let text = fs::read_to_string(plain.path().join("uci/iris.csv")).unwrap();
    let headed = Folder::new();
    headed.write("uci/iris.csv", format!("a,b,c,d,class\n{text}"));
    let turned = Folder::new();
    let turn = |line: &str| {
        let (numbers, label) = line.rsplit_once(',').unwrap();
        format!("{label},{numbers}\n")
    };
    turned.write("uci/iris.csv", text.lines().map(turn).collect::<String>());
    for folder in [plain.path(), headed.data(), turned.data()] {
        let output = gelu(
            &["train", "--clear", "--model", "mlp:4", "--dataset", "iris", "--epochs", "2", "--json"],
            folder,
        );
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&report["train_images"], &report["test_images"]), (&48.into(), &12.into()));
    }
}
