//! `gelu import`

use std::path::PathBuf;

use clap::Args;
use gelu_io::onnx::{ImportOptions, Imported};
use gelu_io::weights::{Dtype, WeightsFile};
use gelu_models::plan::{Deployment, Program};
use gelu_models::{Model, Normalization};
use gelu_tensor::Shape;
use gelu_tensor::paillier::KeyBits;
use ndarray::Array2;
use serde_json::json;

use crate::model::{ensure_ranges, made_up_inputs, normalize, parse_normalization};
use crate::model_args::{KeySize, Numbers, backend, warn_of_short_key};
use crate::output::{check_files, outln};
use crate::plan;

/// Turn an ONNX model, as PyTorch exports it, into one that runs on ciphertexts.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  In PyTorch: torch.onnx.export(model.eval(), (example_input,), \"model.onnx\"); then
    gelu import model.onnx --out model.safetensors

  A file that leaves the size of images open:
    gelu import model.onnx --input 3x32x32 --out model.safetensors

What cannot be imported is listed completely, node by node, and nothing is written.")]
pub(crate) struct ImportArgs {
    /// The model; weights in files beside it are read too.
    #[arg(value_name = "FILE.onnx")]
    file: PathBuf,
    /// The file to write.
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    /// The shape of one input, without the batch, where the model leaves it open.
    #[arg(long, value_name = "CxHxW", value_parser = parse_shape)]
    input: Option<Shape>,
    /// The output that is wanted, where the model has several.
    #[arg(long, value_name = "NAME")]
    output: Option<String>,
    /// The model was trained on (pixel - MEAN) / STD with pixels from 0 to 1.
    #[arg(long, value_name = "MEAN,STD", value_parser = parse_normalization, allow_hyphen_values = true)]
    normalize: Option<Normalization>,
    /// Bits of the client's key, for the plan that is shown.
    #[arg(long, value_enum, default_value = "3072")]
    key_bits: KeySize,
    #[command(flatten)]
    numbers: Numbers,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &ImportArgs) -> anyhow::Result<()> {
    check_files([args.out.as_path()])?;
    let options = ImportOptions { input: args.input.clone(), output: args.output.clone() };
    let Imported { mut model, report } = Imported::read_with(&args.file, &options)?;
    let key = KeyBits::from(args.key_bits);
    warn_of_short_key(key);
    if let Some(normalization) = &args.normalize {
        normalize(&mut model, normalization)?;
    }
    let inputs = made_up_inputs(&model)?;
    ensure_ranges(&mut model)?;
    let deployment = Deployment { key: key.into(), batch: 1, lanes: backend()?.lanes() };
    let program = model.compile(&args.numbers.quantization(&model), &deployment)?;
    let trial = Trial::run(&model, &program, &inputs)?;
    model.weights().write(&args.out, Dtype::F32)?;

    let name = args.file.file_stem().map_or("model".to_owned(), |stem| stem.to_string_lossy().into_owned());
    if args.json {
        let plan = plan::to_json(&program, &name, None);
        let out = &args.out;
        outln!(
            "{}",
            json!({
                "report": report, "parameters": model.parameter_count(), "inputs": inputs.nrows(), "out": out,
                "largest_logit": trial.largest, "logit_difference": trial.difference, "plan": plan,
            })
        )?;
    } else {
        outln!("{report}\n\n{}", plan::to_text(program.plan(), &name, None))?;
        outln!(
            "{} inputs made up, in the clear: logits up to {:.3}, in fixed point at most {:.3} from these",
            inputs.nrows(),
            trial.largest,
            trial.difference
        )?;
        outln!("{} parameters written to {}", model.parameter_count(), args.out.display())?;
    }
    Ok(())
}

/// What came out of inputs that nobody has seen: whether fixed point gives what floating point does.
struct Trial {
    /// The largest logit.
    largest: f64,
    /// The largest distance of a fixed-point logit from the floating-point one.
    difference: f64,
}

impl Trial {
    fn run(model: &Model, program: &Program, inputs: &Array2<f32>) -> anyhow::Result<Self> {
        let (fixed, float) = (program.run_clear(inputs.view())?.logits, model.logits(inputs.view())?);
        let pairs = fixed.iter().zip(&float).map(|(fixed, float)| (fixed - f64::from(*float)).abs());
        let largest = float.iter().fold(0.0_f32, |largest, logit| largest.max(logit.abs()));
        Ok(Self { largest: largest.into(), difference: pairs.fold(0.0, f64::max) })
    }
}

fn parse_shape(text: &str) -> Result<Shape, String> {
    let extents = text.split('x').map(|extent| extent.parse().ok().filter(|&extent: &usize| extent > 0));
    let extents: Option<Vec<usize>> = extents.collect();
    let fits = extents.filter(|extents| matches!(extents.len(), 1 | 3));
    fits.map(|extents| Shape::from(&extents[..])).ok_or_else(|| {
        format!("expected CxHxW, for instance 3x32x32, or a number of features, found `{text}`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_of_inputs_are_images_or_vectors() {
        assert_eq!(parse_shape("3x32x32"), Ok(Shape::from([3, 32, 32])));
        assert_eq!(parse_shape("20"), Ok(Shape::from([20])));
        for text in ["", "3x32", "3x0x32", "axb", "1x1x1x1", "-3x1x1"] {
            assert!(parse_shape(text).is_err_and(|error| error.contains(text)), "{text}");
        }
    }
}
