//! What the paper does not report: LeNet-5 trained privately, and what others publish for encrypted networks on MNIST.

use super::private::{CLEAR, Twins};
use super::{Part, Setting};
use crate::gelu::{number, quoted};
use crate::report::digits;
use crate::results::{Figure, Findings, Row, Table};

/// How LeNet-5 is trained, but for how long.
const TRAINING: &[&str] =
    &["--model", "lenet5", "--dataset", "mnist", "--batch-size", "60", "--lr", "0.1", "--warm-up", "1"];

/// Test images of MNIST.
const TEST_IMAGES: f64 = 10_000.0;

/// What others publish: the system, what was run, what it took, and where that stands.
const PUBLISHED: [[&str; 4]; 4] = [
    [
        "CryptoNets on SEAL 3.2",
        "a convolution and two dense layers with squares, 8,192 images in a pass",
        "29 s for the pass, its layers together, encryption included; one image takes as long",
        "the README of github.com/microsoft/CryptoNets",
    ],
    [
        "LoLa on SEAL 3.2",
        "the same kind of network, one image",
        "2.1 s of prediction",
        "the same README; the method: Brutzkus, Elisha, Gilad-Bachrach, ICML 2019, arXiv 1812.10659",
    ],
    [
        "LoLa on SEAL 2.3",
        "the same kind of network, one image",
        "more than ten times less time than CryptoNets",
        "the abstract of arXiv 1812.10659",
    ],
    [
        "TenSEAL (CKKS on SEAL)",
        "a convolutional network, one image",
        "less than a second, less than half a megabyte",
        "the abstract of arXiv 2104.03152",
    ],
];

pub(super) fn run(setting: &Setting) -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    if setting.has("mnist") {
        trained_privately(setting, &mut findings)?;
    } else {
        findings.notes.push(
            "MNIST was not found, and LeNet-5 is not trained. `gelu data --download mnist` fetches it; the next run then makes this part \
             anew."
                .to_owned(),
        );
    }
    findings.tables.push(Table {
        title: "What others publish for one image of MNIST, on their machines, none of it run here"
            .to_owned(),
        header: ["system", "network", "what it takes", "where that stands"].map(str::to_owned).to_vec(),
        rows: PUBLISHED.map(|row| row.map(str::to_owned).to_vec()).to_vec(),
    });
    findings.notes.push(
        "In those systems the server computes a whole network by itself, and the client may be away; in ours the client takes part in \
         every layer, and activations are exact. Table 4 runs CryptoNets' way on this machine."
            .to_owned(),
    );
    Ok(findings)
}

/// A run on ciphertexts that is long enough to be timed, and a whole one by its twin in the clear.
fn trained_privately(setting: &Setting, findings: &mut Findings) -> anyhow::Result<()> {
    let (images, epochs, time) =
        if setting.quick { ("300", "1", "one epoch") } else { ("1200", "5", "five epochs") };
    setting.progress(Part::Beyond, &format!("LeNet-5 on {images} images, trained privately"));
    let Twins { report, commands: [private, clear] } =
        Twins::train(setting, &[TRAINING, &["--epochs", "1", "--limit", images]].concat())?;
    let rate = number(&report, &["images_per_second"])?;
    let megabytes = (number(&report, &["bytes_up"])? + number(&report, &["bytes_down"])?) / 1e6;
    let trained = number(&report, &["images"])?;
    let mut add = |label: &str, unit: &str, here: Figure, command: &str| {
        let (label, unit, command) = (label.to_owned(), unit.to_owned(), command.to_owned());
        findings.rows.push(Row { label, unit, paper: None, here: Some(here), command });
    };
    add("LeNet-5 trained privately, images in a second", "1/s", rate.into(), &private);
    add("LeNet-5 trained privately, sent for an image", "MB", (megabytes / trained).into(), &private);
    add(
        "LeNet-5 trained privately, an epoch of 60,000 images at that rate",
        "h",
        (60_000.0 / rate / 3600.0).into(),
        &private,
    );
    let arguments = [&["train"], CLEAR, TRAINING, &["--epochs", epochs]].concat();
    setting.progress(Part::Beyond, &format!("LeNet-5, the twin in the clear of a run of {time}"));
    let whole = setting.gelu.json(&arguments)?;
    let accuracy = number(&whole, &["test_accuracy"])?;
    let label = format!("LeNet-5 trained privately, accuracy after {time} of MNIST");
    add(&label, "", accuracy.into(), &quoted(&arguments));
    let deviation = (accuracy * (1.0 - accuracy) / TEST_IMAGES).sqrt();
    findings.notes.extend([
        format!(
            "Private training by two clients, both sides in one process, with a subgroup key of 2048 bits. `{private}` and `{clear}` gave \
             the same weights, bit for bit; the accuracy is that of a run of {time} by the twin in the clear. Its sampling error over \
             10,000 test images is {}.",
            digits(deviation)
        ),
        "The paper reports no private training of LeNet-5. A whole run on ciphertexts is in reports/lenet5-private of the project's \
         repository."
            .to_owned(),
    ]);
    Ok(())
}
