//! `gelu plan`

mod hidden;

use anyhow::ensure;
use clap::Args;
use gelu_io::weights::{Dtype, WeightsFile};
use gelu_models::Model;
use gelu_models::plan::{Deployment, HiddenPlan, Plan, Program, Segment};
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType};
use serde_json::{Value, json};

use crate::given::Given;
use crate::hide::HideArgs;
use crate::model::{Loaded, ModelArgs, made_up_inputs};
use crate::model_args::{Numbers, Prefer, backend, key_bits, key_type, warn_of_short_key};
use crate::output::{check_files, out, outln};
use crate::report::TextTable;
use crate::tune::{TuneArgs, Tuned, tune};

/// Show how a model is run on ciphertexts: segments, slots, ciphertexts, products, bytes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gelu plan --key-bits 2048
  gelu plan --model resnet20 --key-bits 2048 --batch 16
  gelu plan --hide-model --prepare 25 --key-bits 2048
  gelu plan --model trained.safetensors --key-bits 2048 --tune --save tuned.safetensors
  gelu plan --model patients.safetensors --tune --dataset patients.csv --tolerance 0.5

The server's products follow from the sizes and the weight bits, not from the weights. Weights are needed only for \
their scales, and to state how far the logits can be from the real network's; a network by name that has none of its own \
gets random (seeded) ones.")]
pub(crate) struct PlanArgs {
    /// Bits of the client's key.
    #[arg(long, value_parser = key_bits(), default_value = "3072")]
    key_bits: KeyBits,
    /// How it is made.
    #[arg(long, value_parser = key_type(), default_value = "djn")]
    key_type: KeyType,
    /// Images that go through together.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    #[command(flatten)]
    prefer: Prefer,
    #[command(flatten)]
    hide: HideArgs,
    #[command(flatten)]
    tune: TuneArgs,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    numbers: Numbers,
}

pub(crate) fn run(args: &PlanArgs, given: &Given) -> anyhow::Result<()> {
    args.hide.check(given)?;
    if args.hide.is_asked() {
        given.refuse(&["batch"], "with --hide-model, --prepare says how many queries share ciphertexts")?;
    }
    args.tune.check(given)?;
    check_files(args.tune.save.as_deref())?;
    let key = args.key_bits;
    warn_of_short_key(key);
    let Loaded { mut model, name, is_trained } = args.model.load_or_initialize()?;
    if args.tune.tune {
        ensure!(
            is_trained,
            "--tune: expected trained weights beside --model {name}: --weights FILE.safetensors"
        );
    }
    let parameters = KeyParameters { size: key, key_type: args.key_type };
    let prefer = args.prefer.into();
    let batch = if args.hide.is_asked() { args.hide.prepare().unwrap_or(1) } else { args.batch };
    let deployment = Deployment { key: parameters, batch, lanes: backend()?.lanes(), prefer };
    let mut quantization = args.numbers.quantization(&model);
    let tuned = args.tune.tune.then(|| tune(&args.tune, &model, &quantization, &deployment)).transpose()?;
    if let Some(tuned) = &tuned {
        quantization.layer_bits = Some(tuned.layer_bits.clone());
        if let Some(path) = &args.tune.save {
            model.set_layer_bits(tuned.layer_bits.clone());
            model.weights().write(path, Dtype::F32)?;
        }
    }
    let program = match args.hide.is_asked() {
        true => model.compile_hidden(&quantization, &deployment)?,
        false => model.compile(&quantization, &deployment)?,
    };
    let error = is_trained.then(|| LogitError::measure(&model, &program)).transpose()?;
    let hidden =
        args.hide.is_asked().then(|| HiddenPlan::new(program.plan(), args.hide.reveal().unwrap_or_default()));
    let hidden = hidden.transpose()?;
    let most_prepared = |hidden: &HiddenPlan| args.hide.most_prepared(hidden);
    if args.json {
        let mut object = match &hidden {
            Some(hidden) => hidden::to_json(program.plan(), (hidden, most_prepared(hidden)), &name),
            None => to_json(&program, &name, error.as_ref()),
        };
        if let Some(tuned) = &tuned {
            object["tuned"] = serde_json::to_value(tuned)?;
        }
        outln!("{object}")?;
    } else {
        out!("{}", tuned.as_ref().map_or(String::new(), Tuned::text))?;
        match &hidden {
            Some(hidden) => {
                out!("{}", hidden::to_text(program.plan(), (hidden, most_prepared(hidden)), &name))?;
            }
            None => out!("{}", to_text(program.plan(), &name, error.as_ref()))?,
        }
    }
    Ok(())
}

/// How far the logits are from the real network's.
pub(crate) struct LogitError {
    /// With every rounding at its worst, all in the same direction.
    bound: f64,
    /// The largest over inputs that this program makes up.
    observed: f64,
    /// How many those were.
    inputs: usize,
}

impl LogitError {
    fn measure(model: &Model, program: &Program) -> anyhow::Result<Self> {
        let inputs = made_up_inputs(model)?;
        let (fixed, real) = (program.run_clear(inputs.view())?.logits, model.logits(inputs.view())?);
        let observed = fixed.iter().zip(&real).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max);
        Ok(Self { bound: program.error_bound()?, observed, inputs: inputs.nrows() })
    }
}

/// Bytes of the ciphertexts of a tensor.
fn bytes(plan: &Plan, ciphertexts: usize) -> usize {
    ciphertexts * plan.key().size.bits() / 4
}

/// Ciphertexts up and down.
pub(crate) fn totals(plan: &Plan) -> (usize, usize) {
    let sum =
        |(up, down), segment: &Segment| (up + segment.ciphertexts_up(), down + segment.ciphertexts_down());
    plan.segments().iter().fold((0, 0), sum)
}

/// The largest weight bits of a segment's terms.
fn weight_bits(segment: &Segment) -> u32 {
    segment.terms.iter().map(|term| term.weights.bits()).max().unwrap_or(0)
}

/// How the first part of a batch is multiplied, term by term.
fn strategies(segment: &Segment) -> Vec<String> {
    let parts = segment.layout.parts.first();
    parts.map_or(vec![], |part| part.products.iter().map(ToString::to_string).collect())
}

pub(crate) fn to_json(program: &Program, model: &str, error: Option<&LogitError>) -> Value {
    let plan = program.plan();
    let segments: Vec<Value> = (0..)
        .zip(plan.segments())
        .map(|(index, segment)| {
            let (up, down, layout) = (segment.ciphertexts_up(), segment.ciphertexts_down(), &segment.layout);
            let terms: Vec<Value> = segment
                .terms
                .iter()
                .zip(&layout.ups)
                .map(|(term, up)| {
                    json!({
                        "of": plan.graph().name(term.source), "input": term.map.input(),
                        "sums": term.sums.is_some(), "factor": term.factor, "weight_bits": term.weights.bits(),
                        "format": term.format, "layout": up.to_string(),
                    })
                })
                .collect();
            let parts: Vec<Value> = layout
                .parts
                .iter()
                .map(|part| {
                    let strategies: Vec<String> = part.products.iter().map(ToString::to_string).collect();
                    json!({
                        "groups": part.groups, "times": part.times, "strategies": strategies,
                        "products": part.operations.products, "squarings": part.operations.squarings,
                    })
                })
                .collect();
            json!({
                "name": segment.name, "terms": terms, "output": segment.shape,
                "weight_bits": weight_bits(segment), "slot_bits": layout.down.slot_bits(),
                "layout_down": layout.down.to_string(), "parts": parts,
                "strategies": strategies(segment), "output_format": segment.format,
                "ciphertexts_up": up, "ciphertexts_down": down,
                "bytes_up": bytes(plan, up), "bytes_down": bytes(plan, down),
                "products": segment.layout.operations.products, "squarings": segment.layout.operations.squarings,
                "then": plan.client_steps(Some(index)),
            })
        })
        .collect();
    let ((up, down), operations) = (totals(plan), plan.operations());
    json!({
        "model": model, "key_bits": plan.key().size.bits(), "batch": plan.description().batch,
        "full_batch": plan.full_batch(), "prefer": plan.description().prefer, "segments": segments,
        "ciphertexts_up": up, "ciphertexts_down": down, "bytes_up": bytes(plan, up), "bytes_down": bytes(plan, down),
        "products": operations.products, "squarings": operations.squarings, "logit_error_bound": error.map(|error| error.bound),
        "logit_error_observed": error.map(|error| error.observed),
    })
}

pub(crate) fn to_text(plan: &Plan, model: &str, error: Option<&LogitError>) -> String {
    let mut table = TextTable::new([
        "segment",
        "shape",
        "layout",
        "weights",
        "product by",
        "ct up",
        "ct down",
        "kB up",
        "kB down",
        "products",
        "then",
    ]);
    let kilobytes = |ciphertexts| format!("{:.1}", bytes(plan, ciphertexts) as f64 / 1000.0);
    for (index, segment) in plan.segments().iter().enumerate() {
        let (up, down) = (segment.ciphertexts_up(), segment.ciphertexts_down());
        let inputs: Vec<String> = segment.terms.iter().map(|term| term.map.input().to_string()).collect();
        table.row([
            segment.name.clone(),
            format!("{} -> {}", inputs.join(" + "), segment.shape),
            segment.layout.ups.first().map_or(String::new(), ToString::to_string),
            format!("{} bits", weight_bits(segment)),
            strategies(segment).join(", "),
            up.to_string(),
            down.to_string(),
            kilobytes(up),
            kilobytes(down),
            segment.layout.operations.total().to_string(),
            plan.client_steps(Some(index)).join(", "),
        ]);
    }
    let ((up, down), operations) = (totals(plan), plan.operations());
    table.row([
        "all".to_owned(),
        String::new(),
        String::new(),
        String::new(),
        String::new(),
        up.to_string(),
        down.to_string(),
        kilobytes(up),
        kilobytes(down),
        operations.total().to_string(),
        String::new(),
    ]);
    let mut text = format!(
        "{model}, key of {} bits, batch of {}\n\n{table}\n",
        plan.key().size.bits(),
        plan.description().batch
    );
    text += "products: of the server, mod n^2, squarings included; product, repacking and re-randomization\n";
    text += &format!("full batch: {} images fill the slots of a ciphertext\n", plan.full_batch());
    if let Some(LogitError { bound, observed, inputs }) = error {
        text += &format!(
            "logits: at most {observed:.3} from the real network's over {inputs} inputs made up; {bound:.0} if every \
             rounding were at its worst\n"
        );
    }
    text
}
