//! `gelu import`

use std::path::PathBuf;

use clap::Args;
use gelu_io::onnx::{ImportOptions, Imported};
use gelu_io::weights::{Dtype, WeightsFile};
use gelu_layers::argmax;
use gelu_models::plan::{Deployment, Program};
use gelu_models::{Model, Normalization};
use gelu_tensor::Shape;
use gelu_tensor::paillier::KeyBits;
use ndarray::{Array2, ArrayView1, ArrayView2};
use serde_json::json;

use crate::model::{ensure_ranges, made_up_inputs, normalize, parse_normalization};
use crate::model_args::{Numbers, backend, key_bits, warn_of_short_key};
use crate::output::{check_files, note, outln};
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
    #[arg(long, value_parser = key_bits(), default_value = "3072")]
    key_bits: KeyBits,
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
    let key = args.key_bits;
    warn_of_short_key(key);
    if let Some(normalization) = &args.normalize {
        normalize(&mut model, normalization)?;
    }
    let inputs = made_up_inputs(&model)?;
    ensure_ranges(&mut model)?;
    let deployment = Deployment { key: key.into(), lanes: backend()?.lanes(), ..Deployment::default() };
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
                "largest_logit": trial.largest, "logit_spread": trial.spread,
                "logit_difference": trial.difference, "same_class": trial.same, "plan": plan,
            })
        )?;
    } else {
        outln!("{report}\n\n{}", plan::to_text(program.plan(), &name, None))?;
        outln!(
            "{} inputs made up, in the clear: logits up to {:.3}, which spread over {:.3}; in fixed point at most {:.3} from \
             these, with the same class for {} of them",
            inputs.nrows(),
            trial.largest,
            trial.spread,
            trial.difference,
            trial.same
        )?;
        outln!("{} parameters written to {}", model.parameter_count(), args.out.display())?;
    }
    if trial.is_coarse(inputs.nrows()) {
        note!(
            "warning: fixed point gives another class for {} of {} inputs, and logits up to {:.3} from floating point's, which \
             spread over {:.3}: more bits bring them together, for instance {}, which `gelu infer` takes too",
            inputs.nrows() - trial.same,
            inputs.nrows(),
            trial.difference,
            trial.spread,
            args.numbers.finer()
        );
    }
    Ok(())
}

/// What came out of inputs that nobody has seen: whether fixed point gives what floating point does.
struct Trial {
    /// The largest logit.
    largest: f64,
    /// From an input's smallest logit to its largest, on average; of one logit, from the smallest of all inputs to the
    /// largest.
    spread: f64,
    /// The largest distance of a fixed-point logit from the floating-point one.
    difference: f64,
    /// How many inputs get the same class in both.
    same: usize,
}

/// The share of the spread of logits from which a distance may well change what they say.
const LARGE: f64 = 0.1;

impl Trial {
    fn run(model: &Model, program: &Program, inputs: &Array2<f32>) -> anyhow::Result<Self> {
        let fixed = program.run_clear(inputs.view())?.logits;
        Ok(Self::of(fixed.view(), model.logits(inputs.view())?.mapv(f64::from).view()))
    }

    /// What there is to say of fixed-point and floating-point logits, `[inputs, classes]`.
    fn of(fixed: ArrayView2<'_, f64>, float: ArrayView2<'_, f64>) -> Self {
        let pairs = fixed.iter().zip(&float).map(|(fixed, float)| (fixed - float).abs());
        let span = |logits: ArrayView1<'_, f64>| {
            let (least, most) = logits
                .iter()
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), &x| (least.min(x), most.max(x)));
            most - least
        };
        let spread = match float.ncols() {
            1 => span(float.column(0)),
            _ => float.outer_iter().map(span).sum::<f64>() / float.nrows().max(1) as f64,
        };
        let class = |row: ArrayView1<'_, f64>| argmax(&row.to_vec());
        let rows = fixed.outer_iter().zip(float.outer_iter());
        Self {
            largest: float.iter().fold(0.0, |largest, logit| logit.abs().max(largest)),
            spread,
            difference: pairs.fold(0.0, f64::max),
            same: rows.filter(|(fixed, float)| class(*fixed) == class(*float)).count(),
        }
    }

    /// Whether rounding may well change what the logits say.
    fn is_coarse(&self, inputs: usize) -> bool {
        self.same < inputs || self.difference > LARGE * self.spread
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
    fn a_trial_tells_other_classes_and_large_distances() {
        let float = ndarray::array![[0.0, 1.0, 3.0], [2.0, -1.0, 1.0]];
        let of = |fixed: ndarray::Array2<f64>| Trial::of(fixed.view(), float.view());
        let near = of(ndarray::array![[0.1, 1.0, 3.0], [2.0, -1.0, 0.75]]);
        assert_eq!((near.largest, near.spread, near.difference, near.same), (3.0, 3.0, 0.25, 2));
        assert!(!near.is_coarse(2));
        let far = of(ndarray::array![[0.0, 1.0, 3.5], [2.0, -1.0, 1.0]]);
        assert!(far.same == 2 && far.is_coarse(2));
        let other = of(ndarray::array![[0.0, 1.0, 3.0], [1.75, -1.0, 1.8]]);
        assert!(other.same == 1 && other.is_coarse(2));
        // A single logit spreads over the inputs.
        let one = Trial::of(ndarray::array![[1.0], [4.1]].view(), ndarray::array![[1.0], [4.0]].view());
        assert!(one.spread == 3.0 && !one.is_coarse(2));
    }

    #[test]
    fn shapes_of_inputs_are_images_or_vectors() {
        assert_eq!(parse_shape("3x32x32"), Ok(Shape::from([3, 32, 32])));
        assert_eq!(parse_shape("20"), Ok(Shape::from([20])));
        for text in ["", "3x32", "3x0x32", "axb", "1x1x1x1", "-3x1x1"] {
            assert!(parse_shape(text).is_err_and(|error| error.contains(text)), "{text}");
        }
    }
}
