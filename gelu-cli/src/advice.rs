//! What to do about errors of the library, in terms of this command: the library knows no option of it.

use gelu_io::onnx::{ImportError, Open};
use gelu_io::session::RunError;
use gelu_io::weights::FileKind;
use gelu_models::plan::PlanError;
use gelu_models::train::private::PrivateError;

/// What to do about missing values.
pub(crate) const MISSING: &str = "--missing drop leaves out rows that lack a value, --missing mean takes the column's mean, --missing VALUE that value";

/// What a person can try next, where that is not plain from the error itself.
pub(crate) fn advice(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| {
        if let Some(advice) = cause.downcast_ref().and_then(of_data) {
            return Some(advice);
        }
        if let Some(gelu_io::Error::DataNotFound { what, .. }) = cause.downcast_ref() {
            return Some(match *what {
                "MNIST" => {
                    "name the folder above `mnist` with --data or GELU_DATA, or run `gelu data --download` to fetch it"
                }
                "Fashion-MNIST" => {
                    "install the package dataset-fashion-mnist where there is one, or name the folder above \
                     `fashion-mnist` with --data or GELU_DATA"
                }
                "PneumoniaMNIST" | "BreastMNIST" => {
                    "fetch the .npz file from MedMNIST, and name it, or the folder that it is in with --data or GELU_DATA"
                }
                _ => {
                    "fetch the table from the UCI Machine Learning Repository, and name the folder above `uci` with \
                     --data or GELU_DATA"
                }
            });
        }
        if let Some(ImportError::Interface { open: Some(open), .. }) = cause.downcast_ref() {
            return Some(match open {
                Open::Input => "--input CxHxW gives the shape of an input, for instance --input 3x32x32",
                Open::Output => "--output NAME picks an output",
            });
        }
        if let Some(gelu_io::Error::Kind { found: FileKind::Onnx, .. }) = cause.downcast_ref() {
            return Some("`gelu import FILE.onnx --out FILE.safetensors` makes a model file of it");
        }
        if let Some(PlanError::Hidden { .. }) = cause.downcast_ref() {
            return Some(
                "it runs where clients see every layer's weighted sums: without --hide-model, and offered by `gelu serve \
                 --modes NAME=revealed`",
            );
        }
        let training = cause.downcast_ref::<PrivateError>().or_else(|| {
            // Transparent errors are not in the chain beside what they hold.
            match cause.downcast_ref::<gelu_net::Error>()? {
                gelu_net::Error::PrivateTraining(RunError::Peer(error)) => Some(error),
                _ => None,
            }
        });
        match training? {
            PrivateError::LargeSums { available_bits: ..40, .. } => Some("--sum-bits 40 makes room"),
            PrivateError::LargeSums { available_bits: ..56, .. } => {
                Some("--sum-bits 56 makes all the room there is, and a smaller --lr keeps weights small")
            }
            PrivateError::LargeSums { .. } => Some("a smaller --lr keeps weights small"),
            PrivateError::Leakage { .. } => {
                Some("--leakage paper counts iterations only, --leakage off sets no bound")
            }
            _ => None,
        }
    })
}

/// What to do about a data set that does not fit.
fn of_data(error: &gelu_io::Error) -> Option<&'static str> {
    use gelu_io::Error as E;
    match error {
        E::MissingValue { .. } => Some(MISSING),
        E::Target { .. } => {
            Some("--label COLUMN names the column of classes, by its name or its number from 1")
        }
        E::TooFew { expected, .. } if expected.contains("two classes") => {
            Some("if another column has the classes, name it with --label COLUMN")
        }
        E::TooFew { expected, .. } if expected.contains("to test with") => {
            Some("more rows, or --test FILE with rows to test with")
        }
        E::TooFew { expected, .. } if expected.contains("labelled") => {
            Some("--labels FILE names the labels of an array or of a file of images")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_training_and_missing_data_come_with_advice() {
        let full = |available_bits| PrivateError::LargeSums {
            layer: "fc1".to_owned(),
            needed_bits: available_bits + 1,
            available_bits,
        };
        let cell = gelu_io::Error::MissingValue {
            path: "a.csv".into(),
            line: 11,
            column: 2,
            name: "x1".to_owned(),
            found: "?".to_owned(),
            count: 1,
        };
        let too_few =
            |expected| gelu_io::Error::TooFew { path: "a.csv".into(), expected, found: "none".to_owned() };
        let missing = |what| gelu_io::Error::DataNotFound { what, looked: vec![] };
        for (error, wanted) in [
            (anyhow::Error::new(full(32)), "--sum-bits 40"),
            (anyhow::Error::new(gelu_net::Error::from(full(40))).context("training"), "--sum-bits 56"),
            (anyhow::Error::new(full(56)), "a smaller --lr"),
            (anyhow::Error::new(missing("MNIST")), "gelu data --download"),
            (anyhow::Error::new(cell), "--missing drop"),
            (anyhow::Error::new(too_few("examples of two classes at least to train with")), "--label"),
            (anyhow::Error::new(too_few("examples to test with")), "--test"),
            (anyhow::Error::new(missing("Iris")).context("data"), "UCI"),
        ] {
            assert!(advice(&error).is_some_and(|text| text.contains(wanted)), "{error:#}");
        }
        assert_eq!(advice(&anyhow::anyhow!("no such file")), None);
    }
}
