//! Table 4: time and accuracy of Conv-1 and LeNet-5, by CryptoNets' way and by ours.

mod rival;

use gelu_io::data::{LabelledImages, Split};
use gelu_io::digits::SampleDigits;
use gelu_models::train::Dataset;

use self::rival::{INPUT_BITS, MOST_LOST, Rival, SPARE_BITS, WEIGHT_BITS};
use super::inference::{self, Inference};
use super::{KEYS, KEYS_NOTE, Part, Setting};
use crate::cryptonets::Architecture;
use crate::picture::{Bar, Picture, Who};
use crate::results::{Figure, Findings, Row};

/// What the paper has for a network.
struct Paper {
    architecture: Architecture,
    title: &'static str,
    /// Seconds and accuracy, of ours and of CryptoNets.
    ours: [Figure; 2],
    rival: [Figure; 2],
}

fn networks() -> [Paper; 2] {
    let figures = |[seconds, accuracy]: [[f64; 2]; 2]| {
        [seconds, accuracy].map(|[value, deviation]| Figure::with_deviation(value, deviation))
    };
    [
        Paper {
            architecture: Architecture::Conv1,
            title: "Conv-1",
            ours: figures([[67.5, 2.8], [0.936, 0.006]]),
            rival: figures([[1271.8, 1.9], [0.909, 0.002]]),
        },
        Paper {
            architecture: Architecture::Lenet5,
            title: "LeNet-5",
            ours: figures([[85.5, 2.1], [0.989, 0.001]]),
            rival: figures([[3009.6, 1.7], [0.967, 0.003]]),
        },
    ]
}

pub(super) fn run(setting: &Setting) -> anyhow::Result<Findings> {
    let data = Data::read(setting)?;
    let mut findings = Findings::default();
    for paper in networks() {
        network(setting, &data, &paper, &mut findings)?;
    }
    findings.notes = notes(&data);
    Ok(findings)
}

/// What the rival's networks are trained and tested with.
struct Data {
    train: Dataset,
    test: Dataset,
    is_mnist: bool,
}

impl Data {
    /// MNIST, or the digits that this project draws, by which times are measured all the same.
    fn read(setting: &Setting) -> anyhow::Result<Self> {
        let halves = [Split::Train, Split::Test].map(|split| setting.data.mnist(split));
        let [train, test] = match halves {
            [Ok(train), Ok(test)] => {
                return Ok(Self { train: dataset(&train)?, test: dataset(&test)?, is_mnist: true });
            }
            _ => [(1, 400), (2, 100)].map(|(seed, per_digit)| SampleDigits { seed, per_digit }.draw()),
        };
        setting.progress(Part::Table4, "without MNIST: digits that are drawn take its place");
        Ok(Self { train: dataset(&train)?, test: dataset(&test)?, is_mnist: false })
    }
}

fn dataset(images: &LabelledImages) -> anyhow::Result<Dataset> {
    let pixels = images.images().to_inputs();
    let pixels = pixels.into_shape_with_order((images.len(), 28 * 28))?;
    let labels = images.labels().iter().map(|&label| label.into()).collect();
    Ok(Dataset::new([1, 28, 28].into(), pixels, labels, 10)?)
}

fn network(setting: &Setting, data: &Data, paper: &Paper, findings: &mut Findings) -> anyhow::Result<()> {
    let Paper { architecture, title, .. } = paper;
    let rival = Rival::measure(setting, data, paper)?;
    let model = architecture.name();
    let mut ours = vec![];
    for (keys, parameters) in KEYS {
        setting.progress(Part::Table4, &format!("{title}: ours, {keys}"));
        ours.push((keys, Inference::measure(setting, model, parameters)?));
    }
    let batch = rival.plan.parameters.degree;
    let seconds = rival.pass.seconds();
    let command = setting.command(Part::Table4);
    let mut add = |label: String, unit: &str, paper: Option<Figure>, here: Option<Figure>, command: &str| {
        let (unit, command) = (unit.to_owned(), command.to_owned());
        findings.rows.push(Row { label, unit, paper, here, command });
    };
    let quotient = paper.rival[0].value / paper.ours[0].value;
    add(
        format!("{title}, CryptoNets' way, one image"),
        "s",
        Some(paper.rival[0]),
        Some(seconds.into()),
        &command,
    );
    let share = seconds / batch as f64;
    add(format!("{title}, CryptoNets' way, an image of {batch}"), "s", None, Some(share.into()), &command);
    for (keys, ours) in &ours {
        let Inference { one, full, batch, commands, .. } = ours;
        add(
            format!("{title}, ours, one image, {keys}"),
            "s",
            Some(paper.ours[0]),
            Some((*one).into()),
            &commands[0],
        );
        add(
            format!("{title}, ours, an image of {batch}, {keys}"),
            "s",
            None,
            Some((*full).into()),
            &commands[1],
        );
    }
    for (keys, ours) in &ours {
        let [one, full] = [seconds / ours.one, share / ours.full];
        add(
            format!("{title}, one image: the rival's time over ours, {keys}"),
            "times",
            Some(quotient.into()),
            Some(one.into()),
            &command,
        );
        add(
            format!("{title}, full batches: the rival's time over ours, {keys}"),
            "times",
            None,
            Some(full.into()),
            &command,
        );
    }
    let megabytes = Some((rival.pass.bytes as f64 / 1e6).into());
    add(format!("{title}, CryptoNets' way, sent for one image or {batch}"), "MB", None, megabytes, &command);
    let Inference { megabytes, commands, .. } = &ours[0].1;
    add(format!("{title}, ours, sent for one image"), "MB", None, Some((*megabytes).into()), &commands[0]);
    let accuracy = rival.accuracy.map(Figure::from);
    add(format!("{title}, CryptoNets' way, accuracy"), "", Some(paper.rival[1]), accuracy, &command);
    let (accuracy, accuracy_command) = match data.is_mnist {
        true => {
            let (accuracy, command) = inference::accuracy(setting, (model, ours[1].1.batch))?;
            (Some(accuracy.into()), command)
        }
        false => (None, command.clone()),
    };
    add(format!("{title}, ours, accuracy"), "", Some(paper.ours[1]), accuracy, &accuracy_command);

    let bar = |label: &str, value: f64, who| Bar { label: label.to_owned(), value, who };
    let mut bars = vec![
        bar("CryptoNets, the paper's", paper.rival[0].value, Who::Paper),
        bar("GELU-Net, the paper's", paper.ours[0].value, Who::Paper),
        bar("CryptoNets' way, one image", seconds, Who::Rival),
    ];
    bars.extend(
        ours.iter().map(|(keys, ours)| bar(&format!("ours, one image, {keys}"), ours.one, Who::Ours)),
    );
    bars.push(bar(&format!("CryptoNets' way, an image of {batch}"), share, Who::Rival));
    let full = |(keys, ours): &(&str, Inference)| {
        bar(&format!("ours, an image of {}, {keys}", ours.batch), ours.full, Who::Ours)
    };
    bars.extend(ours.iter().map(full));
    findings.pictures.push(Picture::Bars {
        title: format!("{title}: time of an image"),
        unit: "s".to_owned(),
        bars,
    });
    findings.tables.push(rival.table(title));
    Ok(())
}

fn list(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

fn notes(data: &Data) -> Vec<String> {
    let mut notes = vec![
        "A pass of CryptoNets' way takes as long for one image as for as many as there are slots: its time for one image is that of \
         the pass (the median of three, of one with --quick), from encryption to decryption, on all threads; an image of a full batch takes the pass divided by the slots. \
         Keys are made before, and are not counted; nor is the way of its ciphertexts, whose bytes are the crate's encoding."
            .to_owned(),
        "Ours: for one image, the median times of all steps of both sides in an open session, one after another; for full \
         batches, the mean time of a batch, while another one is in progress, divided by its images. Both sides are on this \
         machine and share its threads, and what they exchange is encoded and decoded, but crosses no network."
            .to_owned(),
        KEYS_NOTE.to_owned(),
        "The rival is run as well as we can: linear layers in a row are one affine map (as in CryptoNets), parameters are searched for \
         the least cost, weights multiply coefficients without plaintext polynomials, squares are relinearized only after the sums that \
         make them fewer, the modulus is switched down after the first square where that costs less, and the last square is not relinearized at all. \
         The crate's transforms are the faster of its two kinds. Another library of the same scheme may be faster by a factor."
            .to_owned(),
        format!(
            "Bits of pixels and weights are those that cost the rival least among {} and {} bits, of which training images lose at most {} \
             points of accuracy; plaintext moduli have room for {SPARE_BITS} bits more than the largest output of those images. The rival's \
             networks were trained in the clear with squares. Ours runs the weights that gelu has for the same networks, with ReLU.",
            list(&INPUT_BITS),
            list(&WEIGHT_BITS),
            100.0 * MOST_LOST
        ),
        "The paper lists no activation between LeNet-5's dense layers: with squares there is none, so that they are one map; \
         ours has ReLU there (gelu-models, module zoo). It does not state the parameters of SEAL, and has one time \
         for one inference: which is compared with one image here."
            .to_owned(),
    ];
    if !data.is_mnist {
        notes.push(
            "MNIST was not found: networks were trained on digits that this project draws, by which times are much the same (plaintext moduli depend on \
             the outputs), and accuracies are missing. `gelu data --download` fetches it; the next run then makes this part anew."
                .to_owned(),
        );
    }
    notes
}
