//! What a client of a hidden model sees, and what one that does not follow the protocol reads.

use std::sync::Arc;

use anyhow::{Context, ensure};
use gelu_garble::Ring;
use gelu_io::files::make_folder;
use gelu_layers::{Activation, Initializer};
use gelu_models::infer::ServerModel;
use gelu_models::infer::hidden::{Answer, Client, Event, Message, Server};
use gelu_models::peer::{Part, Peer};
use gelu_models::plan::{Deployment, HiddenSegment, Program, Quantization, Reveal, Segment};
use gelu_models::zoo;
use gelu_tensor::paillier::SecretKey;
use gelu_tensor::{Decryption, EncTensorHeader};
use ndarray::{Array2, ArrayView2};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use serde_json::json;

use super::extract::{Extraction, extract};
use super::reconstruct::correlation;
use super::{ExtractArgs, KEY};
use crate::model_args::new_key;
use crate::output::{check_folders, note, outln};
use crate::report::{Panel, write_panels};

/// Inputs of a layer of which twice as many queries as unknowns can be prepared together.
const MOST_INPUTS: usize = 127;

/// A network of two dense layers and inputs for it, `[queries, inputs]`.
pub(super) struct Setting {
    pub(super) model: Arc<ServerModel>,
    pub(super) key: Arc<SecretKey>,
    pub(super) program: Program,
    pub(super) inputs: Array2<f32>,
}

impl Setting {
    /// Twice as many inputs as a layer's output has unknowns, and what they determine.
    pub(super) fn new([inputs, outputs]: [usize; 2], seed: u64) -> anyhow::Result<Self> {
        let config =
            zoo::MlpConfig { inputs, hidden: vec![outputs], classes: 2, activation: Activation::Relu };
        let mut model = zoo::mlp(&config)?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        model.initialize(Initializer::KaimingUniform, &mut rng);
        let queries = 2 * (inputs + 1);
        let inputs = Array2::from_shape_fn((queries, inputs), |_| rng.random_range(0.0..1.0_f32));
        model.calibrate(inputs.view())?;
        let model = Arc::new(ServerModel::new(model, Quantization::default()));
        let key = Arc::new(new_key(KEY)?);
        let lanes = key.public_key().backend().lanes();
        let program = model.hidden_program(&Deployment { key: KEY, lanes, ..Deployment::default() })?;
        Ok(Self { model, key, program, inputs })
    }

    /// The integer weights of a layer, output after output.
    pub(super) fn weights(&self, layer: usize) -> anyhow::Result<Vec<i64>> {
        let weights = self.program.weights(layer).first().context("a dense layer has weights")?;
        Ok(weights.values().iter().map(|&weight| i64::from(weight)).collect())
    }

    /// The sums of the first layer that the revealed mode would show for these inputs.
    pub(super) fn sums(&self, inputs: &[i64]) -> anyhow::Result<Vec<i64>> {
        let (weights, each) = (self.weights(0)?, self.inputs.ncols());
        let bias = self.program.bias(0)?.map_or_else(Vec::new, |bias| bias.values().to_vec());
        let row = |input: &[i64], at: usize| {
            let weights = weights[at * each..].iter().take(each);
            weights.zip(input).map(|(w, x)| w * x).sum::<i64>() + bias.get(at).copied().unwrap_or(0)
        };
        let outputs = weights.len() / each.max(1);
        Ok(inputs.chunks_exact(each).flat_map(|input| (0..outputs).map(move |at| row(input, at))).collect())
    }
}

/// `gelu attack extract --hide-model`
pub(super) fn run(args: &ExtractArgs) -> anyhow::Result<()> {
    check_folders(args.out.as_deref())?;
    let sizes @ [inputs, outputs] = [usize::from(args.inputs), usize::from(args.outputs)];
    ensure!(
        inputs <= MOST_INPUTS,
        "--inputs: expected at most {MOST_INPUTS} with --hide-model, so that twice as many queries as unknowns can be \
         prepared together, found {inputs}"
    );
    let setting = Setting::new(sizes, args.seed)?;
    let draw = |truth: &[f64], found: &[f64], size: [usize; 2]| -> anyhow::Result<()> {
        let Some(folder) = &args.out else { return Ok(()) };
        make_folder(folder)?;
        let path = folder.join("extract.png");
        write_panels(&path, &[vec![Panel { size, values: truth }], vec![Panel { size, values: found }]])?;
        note!("wrote {}", path.display());
        Ok(())
    };
    let reals = |numbers: &[i64]| -> Vec<f64> { numbers.iter().map(|&x| x as f64).collect() };
    if args.deviate {
        let read = deviate(
            &setting.model,
            &setting.key,
            setting.inputs.slice_axis(ndarray::Axis(0), (0..1).into()),
        )?;
        let truth = setting.weights(1)?;
        let right = read.iter().zip(&truth).filter(|(read, truth)| read == truth).count();
        draw(&reals(&truth), &reals(&read), [2, outputs])?;
        if args.json {
            let object = json!({
                "mode": "hidden", "deviates": true, "queries": outputs + 1, "recovered": right, "of": truth.len(),
            });
            outln!("{object}")?;
            return Ok(());
        }
        outln!(
            "a hidden network of {inputs} inputs, {outputs} neurons and 2 outputs, and a client that adds to its shares"
        )?;
        outln!(
            "{} queries: {right} of {} weights of the last layer read, exactly",
            outputs + 1,
            truth.len()
        )?;
        outln!("the mode protects against clients that follow the protocol, and no others (SECURITY.md)")?;
        return Ok(());
    }
    let view = observe(&setting.model, &setting.key, setting.inputs.view())?;
    let truth = setting.weights(0)?;
    let queries = setting.inputs.nrows();
    // The same inputs with the sums that the other mode shows.
    let shown = extract(sizes, &view.inputs, &setting.sums(&view.inputs)?)?;
    let recovered = match &shown {
        Extraction::Solved { rows } => {
            let found = rows.iter().flat_map(|row| &row[..inputs]);
            found.zip(&truth).filter(|(found, truth)| found == truth).count()
        }
        Extraction::Open { .. } => 0,
    };
    // Equations of which no weights fulfil all.
    let contradicts = |vectors: &[i64]| extract(sizes, vectors, &view.shares).is_err();
    let (masks, own) = (contradicts(&view.masks), contradicts(&view.inputs));
    let guess = regression(sizes, &view.masks, &reals(&view.shares));
    let likeness = correlation(&reals(&truth), &guess);
    // Of as many numbers that have nothing to do with each other.
    let noise = 1.0 / (truth.len() as f64).sqrt();
    draw(&reals(&truth), &guess, [outputs, inputs])?;
    if args.json {
        let object = json!({
            "mode": "hidden", "deviates": false, "queries": queries, "unknowns_of_an_output": inputs + 1,
            "shown_sums": { "recovered": recovered, "of": truth.len() },
            "masks_and_shares": { "solved": !masks, "correlation": likeness, "noise": noise },
            "inputs_and_shares": { "solved": !own },
        });
        outln!("{object}")?;
        return Ok(());
    }
    let said = |contradicts: bool| if contradicts { "no weights fulfil the equations" } else { "SOLVED" };
    outln!(
        "a hidden dense layer of {inputs} inputs and {outputs} outputs, {queries} queries: twice as many as unknowns"
    )?;
    outln!("weighted sums, as the other mode shows them: {recovered} of {} weights recovered", truth.len())?;
    outln!("the client's masks and its shares of their sums: {}", said(masks))?;
    outln!("its inputs and these shares: {}", said(own))?;
    outln!("a regression of shares on masks: correlation {likeness:.3} with the weights, noise {noise:.3}")?;
    outln!("a client that does not follow the protocol can do more: --deviate")?;
    Ok(())
}

/// What a client of a session sees of the first layer, query by query.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Its inputs as integers: what the revealed mode would have it multiply.
    pub(super) inputs: Vec<i64>,
    /// The masks that it drew.
    pub(super) masks: Vec<i64>,
    /// Its shares of the sums, which it decrypts: masks times weights, plus what the server drew, as signed numbers mod 2^l.
    pub(super) shares: Vec<i64>,
}

/// Both sides, message by message, with a client that looks at everything, and can change its shares.
struct Sides {
    client: Client,
    server: Server,
}

/// A segment of the plan, and what hiding it takes.
struct Layer {
    segment: Segment,
    hidden: HiddenSegment,
    ring: Ring,
    /// Queries that are prepared together.
    queries: usize,
}

impl Layer {
    fn inputs(&self) -> anyhow::Result<usize> {
        Ok(self.segment.terms.first().context("a layer has an input")?.map.input().elements())
    }

    /// The header of the masks of its inputs, and that of its sums.
    fn headers(&self) -> anyhow::Result<[EncTensorHeader; 2]> {
        let term = self.segment.terms.first().context("a layer has an input")?;
        let up = self.hidden.layout.ups.first().context("a layer has an input")?;
        let header = |shape: &gelu_tensor::Shape, layout: &gelu_tensor::SlotLayout| {
            EncTensorHeader::new(shape.clone(), self.queries, layout.clone())
        };
        Ok([header(term.map.input(), up), header(&self.segment.shape, &self.hidden.layout.down)])
    }
}

impl Sides {
    /// Opens a session in which so many queries are prepared together.
    fn open(model: &Arc<ServerModel>, key: &Arc<SecretKey>, queries: usize) -> anyhow::Result<Self> {
        let client = Client::new(Arc::clone(key), queries as u32, Reveal::Logits);
        let server = Server::new(Arc::clone(model)).on(key.public_key().backend());
        let mut sides = Self { client, server };
        while sides.client.plan().is_none() {
            sides.turn(&mut |_| Ok(()))?;
        }
        Ok(sides)
    }

    fn layer(&self, index: usize) -> anyhow::Result<Layer> {
        let (plan, hidden) =
            self.client.plan().zip(self.client.hidden_plan()).context("a session has a plan")?;
        let segment = plan.segments().get(index).context("a layer")?.clone();
        let hidden = hidden.segments().get(index).context("a layer")?.clone();
        let ring = Ring::new(hidden.ring.bits())?;
        Ok(Layer { segment, hidden, ring, queries: plan.description().batch })
    }

    /// Carries what both have to say now; `look` sees it, and can change it.
    fn turn(
        &mut self,
        look: &mut dyn FnMut(&mut Message) -> anyhow::Result<()>,
    ) -> anyhow::Result<Option<Answer>> {
        let rng = &mut rand::rng();
        while let Some(mut message) = self.client.next_message(rng)? {
            look(&mut message)?;
            self.server.handle(message, rng)?;
        }
        let mut answer = None;
        while let Some(mut message) = self.server.next_message(rng)? {
            look(&mut message)?;
            if let Some(Event::Done(done)) = self.client.handle(message, rng)? {
                answer = Some(done);
            }
        }
        Ok(answer)
    }

    /// Sends inputs through the network and returns the last sums.
    fn sums(
        &mut self,
        inputs: ArrayView2<'_, f32>,
        look: &mut dyn FnMut(&mut Message) -> anyhow::Result<()>,
    ) -> anyhow::Result<Vec<i64>> {
        self.client.start(inputs)?;
        loop {
            match self.turn(look)? {
                Some(Answer::Logits(outcome)) => return Ok(outcome.integers.values().to_vec()),
                Some(Answer::Classes(_)) => anyhow::bail!("classes were revealed in place of logits"),
                None => {}
            }
        }
    }
}

/// Sends inputs, `[queries, elements]`, through a hidden network by a client that follows the protocol, and returns what it saw
/// of the first layer.
pub(super) fn observe(
    model: &Arc<ServerModel>,
    key: &Arc<SecretKey>,
    inputs: ArrayView2<'_, f32>,
) -> anyhow::Result<View> {
    let mut sides = Sides::open(model, key, inputs.nrows())?;
    let layer = sides.layer(0)?;
    // There is one preparation for all.
    let [mut masks, mut shares] = {
        let [up, down] = layer.headers()?;
        [Decryption::new(key.public_key(), up)?, Decryption::new(key.public_key(), down)?]
    };
    let mut masked: Vec<u64> = vec![];
    let elements = layer.inputs()?;
    let mut look = |message: &mut Message| -> anyhow::Result<()> {
        match message {
            Message::Tensor { position, index, ciphertexts } => {
                let taken = match position.part {
                    Part::Inputs { segment: 0, .. } => &mut masks,
                    Part::Sums { segment: 0 } => &mut shares,
                    _ => return Ok(()),
                };
                taken.push(*index, ciphertexts, key)?;
            }
            Message::Shares { segment: 0, shares, .. } => masked.extend(layer.ring.unpack(shares, elements)?),
            _ => {}
        }
        Ok(())
    };
    sides.sums(inputs, &mut look)?;
    let masks = masks.finish()?.values().to_vec();
    let shares = shares.finish_residues()?;
    let ring = layer.ring;
    let unmask = |(&masked, &mask): (&u64, &i64)| ring.signed(ring.wrap(masked.wrapping_add(mask as u64)));
    ensure!(masked.len() == masks.len(), "expected shares of {} inputs, found {}", masks.len(), masked.len());
    Ok(View {
        inputs: masked.iter().zip(&masks).map(unmask).collect(),
        shares: shares.iter().map(|&share| ring.signed(share)).collect(),
        masks,
    })
}

/// Reads the last layer of a hidden network by a client that adds one to its share of an activation, one query for each
/// (Lehmkuhl, Mishra, Srinivasan and Popa, Muse, USENIX Security 2021, section 2): its weights, `outputs` rows.
pub(super) fn deviate(
    model: &Arc<ServerModel>,
    key: &Arc<SecretKey>,
    input: ArrayView2<'_, f32>,
) -> anyhow::Result<Vec<i64>> {
    let mut sides = Sides::open(model, key, 25)?;
    let layer = sides.layer(1)?;
    let inputs = layer.inputs()?;
    let honest = sides.sums(input, &mut |_| Ok(()))?;
    let mut read = vec![0; honest.len() * inputs];
    for raised in 0..inputs {
        let mut look = |message: &mut Message| -> anyhow::Result<()> {
            if let Message::Shares { segment: 1, shares, .. } = message {
                let mut numbers = layer.ring.unpack(shares, inputs)?;
                numbers[raised] = layer.ring.wrap(numbers[raised].wrapping_add(1));
                *shares = layer.ring.pack(&numbers);
            }
            Ok(())
        };
        for (output, (raised_sum, honest)) in sides.sums(input, &mut look)?.iter().zip(&honest).enumerate() {
            read[output * inputs + raised] = raised_sum - honest;
        }
    }
    Ok(read)
}

/// What a regression of sums on vectors makes of the weights: for each output and input the mean of their products, in units
/// of the vectors' mean square.
pub(super) fn regression([inputs, outputs]: [usize; 2], vectors: &[i64], sums: &[f64]) -> Vec<f64> {
    let square: f64 = vectors.iter().map(|&x| (x as f64).powi(2)).sum::<f64>() / vectors.len().max(1) as f64;
    let samples = (vectors.len() / inputs.max(1)).max(1) as f64;
    let mut weights = vec![0.0; outputs * inputs];
    for (vector, sums) in vectors.chunks_exact(inputs).zip(sums.chunks_exact(outputs)) {
        for (row, sum) in weights.chunks_exact_mut(inputs).zip(sums) {
            row.iter_mut()
                .zip(vector)
                .for_each(|(weight, &x)| *weight += sum * x as f64 / (square * samples));
        }
    }
    weights
}
