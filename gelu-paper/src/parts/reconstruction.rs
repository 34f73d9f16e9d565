//! Fig. 1 and 2: what a server computes of training images from gradients, without masks and with them.

use anyhow::Context;
use serde_json::Value;

use super::{Part, Setting};
use crate::gelu::{number, quoted};
use crate::picture::Picture;
use crate::results::{Figure, Findings, Row};

/// Runs the attack on some images, whose gradients are masked or not.
pub(super) fn run(setting: &Setting, part: Part) -> anyhow::Result<Findings> {
    let is_masked = part == Part::Fig2;
    let is_mnist = setting.data.mnist(gelu_io::data::Split::Train).is_ok();
    let count = if setting.quick { "4" } else { "8" };
    let mut arguments = vec!["attack", "reconstruct", "--count", count];
    if is_mnist {
        arguments.extend(["--dataset", "mnist"]);
    }
    let command = quoted(&arguments);
    setting.progress(part, &format!("{count} images"));
    let folder = tempfile::tempdir()?;
    let out = folder.path().to_string_lossy();
    let report = setting.gelu.json(&[&arguments[..], &["--out", &out]].concat())?;
    let name = format!("{}.png", part.name());
    let png = gelu_io::files::read_limited(&folder.path().join("reconstruct.png"), 1 << 24)?;
    gelu_io::files::write_atomic(&setting.out.join(&name), &png)?;

    let key = if is_masked { "with_masks" } else { "without_masks" };
    let mut findings = Findings { pictures: vec![Picture::File { name }], ..Findings::default() };
    for (way, label) in [
        ("direct", "the division of a neuron's weight gradients by its bias gradient"),
        ("inverted", "the generalized inverse of the weights, as the paper has it"),
    ] {
        findings.rows.push(Row {
            label: format!("correlation of an image with what the server computes by {label}"),
            unit: String::new(),
            paper: None,
            here: Some(mean(&report, [key, way])?),
            command: command.clone(),
        });
    }
    findings.notes = notes(is_masked, is_mnist);
    Ok(findings)
}

/// The mean and standard deviation of a correlation over the images.
fn mean(report: &Value, path: [&str; 2]) -> anyhow::Result<Figure> {
    let images = report["correlations"].as_array().context("expected correlations")?;
    let values = images.iter().map(|image| number(image, &path)).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Figure::mean(&values))
}

fn notes(is_masked: bool, is_mnist: bool) -> Vec<String> {
    let mut notes = vec![
        "A row of the picture is an image: the original, what the server computes without masks (directly, and the paper's way), and what \
         it computes with them. A network of 300 hidden neurons with sigmoids, one image to an update; correlations are those of pixels: \
         1 is the image itself, 0 has nothing to do with it."
            .to_owned(),
        match is_masked {
            true => "Gradients are masked by uniform numbers, as the paper's clients send them (those of `gelu train` send only their sum, at the end \
                 of a turn): what is left is noise, with \
                 correlations around 0 whose size is that of chance among 784 pixels.",
            false => "Gradients in the clear give the image away: dividing by the bias gradient needs nothing but one neuron.",
        }
        .to_owned(),
        "The paper shows one picture of each and gives no figures.".to_owned(),
    ];
    if !is_mnist {
        notes.push(
            "MNIST was not found: digits that gelu draws take its place. `gelu data --download` fetches it; the next run then makes this part \
             anew."
                .to_owned(),
        );
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlations_are_averaged_over_images() {
        let image = |value: f64| serde_json::json!({ "with_masks": { "direct": value } });
        let report = serde_json::json!({ "correlations": [image(0.5), image(0.7)] });
        let figure = mean(&report, ["with_masks", "direct"]).unwrap();
        assert!((figure.value - 0.6).abs() < 1e-12 && figure.deviation.is_some());
        assert!(mean(&report, ["without_masks", "direct"]).is_err());
    }
}
