//! What to do about errors of the library, in terms of this command: the library knows no option of it.

use gelu_io::onnx::ImportError;
use gelu_io::session::RunError;
use gelu_models::train::private::PrivateError;

/// What a person can try next, where that is not plain from the error itself.
pub(crate) fn advice(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| {
        if let Some(gelu_io::Error::DataNotFound { what, .. }) = cause.downcast_ref() {
            return Some(match *what {
                "MNIST" => {
                    "name the folder above `mnist` with --data or GELU_DATA, or run `gelu data --download` to fetch it"
                }
                _ => {
                    "fetch the table from the UCI Machine Learning Repository, and name the folder above `uci` with \
                     --data or GELU_DATA"
                }
            });
        }
        if let Some(ImportError::Interface { .. }) = cause.downcast_ref() {
            return Some("--input 3x32x32 gives the shape of an input, --output NAME picks an output");
        }
        if let Some(gelu_io::Error::Exposed { .. }) = cause.downcast_ref() {
            return Some("--exposed-key takes the file as it is");
        }
        let training = cause.downcast_ref::<PrivateError>().or_else(|| {
            // Transparent errors are not in the chain beside what they hold.
            match cause.downcast_ref::<gelu_net::Error>()? {
                gelu_net::Error::PrivateTraining(RunError::Peer(error)) => Some(error),
                _ => None,
            }
        });
        match training? {
            PrivateError::RingFull { .. } => Some("--ring-bits 48 makes room"),
            PrivateError::Leakage { .. } => {
                Some("--leakage paper counts iterations only, --leakage off sets no bound")
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_training_and_missing_data_come_with_advice() {
        let full = || PrivateError::RingFull { layer: "fc1".to_owned(), needed_bits: 41, available_bits: 40 };
        let missing = |what| gelu_io::Error::DataNotFound { what, looked: vec![] };
        for (error, wanted) in [
            (anyhow::Error::new(full()), "--ring-bits"),
            (anyhow::Error::new(gelu_net::Error::from(full())).context("training"), "--ring-bits"),
            (anyhow::Error::new(missing("MNIST")), "gelu data --download"),
            (anyhow::Error::new(missing("Iris")).context("data"), "UCI"),
            (
                anyhow::Error::new(gelu_io::Error::Exposed { path: "a.key".into(), mode: 0o644 }),
                "--exposed-key",
            ),
        ] {
            assert!(advice(&error).is_some_and(|text| text.contains(wanted)), "{error:#}");
        }
        assert_eq!(advice(&anyhow::anyhow!("no such file")), None);
    }
}
