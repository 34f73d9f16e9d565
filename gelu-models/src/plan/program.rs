//! A plan with its weights: what the server runs.

use std::sync::Arc;

use gelu_tensor::{Error, IntWeights};
use ndarray::{ArrayView, Dimension};

use super::cut::{Cut, Fusion};
use super::numbers::{IntegerSegment, Numbers, choose};
use super::run::sums_in_the_clear;
use super::{Deployment, Description, Functions, Need, Outcome, Plan, PlanError, Quantization, Run};
use crate::{Graph, Model};

/// A model that was cut and rounded: all of a program that does not depend on its deployment.
#[derive(Debug)]
pub(crate) struct Lowered {
    pub(super) cut: Cut,
    graph: Arc<Graph>,
    numbers: Numbers,
    pub(super) segments: Vec<IntegerSegment>,
    hidden: bool,
}

impl Lowered {
    /// Cuts and rounds a model, which the client sees the sums of or not.
    pub(crate) fn new(model: &Model, quantization: &Quantization, hidden: bool) -> Result<Self, PlanError> {
        quantization.check()?;
        let graph = model.graph().clone();
        let affine = |index: usize, _: &gelu_layers::LinearConfig| {
            let layer = model.layer(index).ok_or(Error::TooFew {
                what: "layers of a linear node",
                least: 1,
                found: 0,
            })?;
            Ok(layer.affine())
        };
        let cut = Cut::new(&graph, Fusion::of(hidden), affine)?;
        let (numbers, segments) = choose(model, &cut, quantization)?;
        Ok(Self { cut, graph, numbers, segments, hidden })
    }

    /// The program for a deployment.
    pub(crate) fn program(self: &Arc<Self>, deployment: &Deployment) -> Result<Program, PlanError> {
        let (graph, numbers) = (self.graph.clone(), self.numbers.clone());
        let &Deployment { key, batch, lanes, prefer } = deployment;
        let description = Description { graph, numbers, batch, lanes, prefer, hidden: self.hidden };
        let plan = Arc::new(Plan::assemble(&self.cut, description, key)?);
        Ok(Program { plan, lowered: self.clone() })
    }
}

/// A plan with the weights: what the server runs.
///
/// ```
/// use gelu_layers::Initializer;
/// use gelu_models::ModelBuilder;
/// use gelu_models::plan::{Deployment, Quantization};
/// use ndarray::array;
/// use rand::{SeedableRng, rngs::ChaCha8Rng};
///
/// let mut model = ModelBuilder::new([4]).dense("fc1", 3).relu().dense("fc2", 2).build()?;
/// model.initialize(Initializer::KaimingUniform, &mut ChaCha8Rng::seed_from_u64(1));
/// let inputs = array![[0.5, -0.25, 1.0, 0.0]];
/// model.calibrate(inputs.view())?;
/// let program = model.compile(&Quantization::default(), &Deployment::default())?;
///
/// // The integers that an encrypted run gives, bit for bit, and how far they can be from the real network.
/// let outcome = program.run_clear(inputs.view())?;
/// let real = model.logits(inputs.view())?;
/// let difference = (outcome.logits[[0, 0]] - f64::from(real[[0, 0]])).abs();
/// assert!(difference <= program.error_bound()? + 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Program {
    pub(super) plan: Arc<Plan>,
    pub(super) lowered: Arc<Lowered>,
}

impl Model {
    /// Returns how to run the model on ciphertexts: rounded to integers, and laid out for a deployment.
    ///
    /// # Errors
    /// [`PlanError`] when an option is out of range, the model was not calibrated, or the numbers do not fit the key.
    pub fn compile(
        &self,
        quantization: &Quantization,
        deployment: &Deployment,
    ) -> Result<Program, PlanError> {
        Arc::new(Lowered::new(self, quantization, false)?).program(deployment)
    }

    /// Returns how to run the model hidden from the client: as [`compile`](Self::compile) does, but with everything that is
    /// linear on shares in the segments, which a [`HiddenPlan`](super::HiddenPlan) needs. Only of networks with means, slices
    /// or sums of branches behind activations do the integers differ from those of [`compile`](Self::compile): activations are
    /// rounded before these, not after.
    ///
    /// # Errors
    /// As [`compile`](Self::compile).
    pub fn compile_hidden(
        &self,
        quantization: &Quantization,
        deployment: &Deployment,
    ) -> Result<Program, PlanError> {
        Arc::new(Lowered::new(self, quantization, true)?).program(deployment)
    }
}

impl Program {
    /// Returns the public part.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Returns the integer weights of each term of a segment.
    pub fn weights(&self, segment: usize) -> &[IntWeights] {
        self.lowered.segments.get(segment).map_or(&[], |segment| &segment.weights)
    }

    pub(super) fn cut(&self) -> &Cut {
        &self.lowered.cut
    }

    /// Runs the plan on integers in the clear, for any number of images, `[images, elements]` or of the input's shape:
    /// what the encrypted run gives, bit for bit.
    ///
    /// # Errors
    /// [`Error::TooFew`] when there is no image; [`Error::Shape`] when they are not of the plan's input shape;
    /// [`Error::NotFinite`] when an element is NaN or infinite; [`Error::MissingFunction`] when the graph has a function
    /// of the client's own.
    pub fn run_clear<D: Dimension>(&self, images: ArrayView<'_, f32, D>) -> Result<Outcome, Error> {
        self.run_clear_with(Functions::default(), images)
    }

    /// Runs the plan as [`run_clear`](Self::run_clear) does, with functions of the client's own.
    ///
    /// # Errors
    /// As [`run_clear`](Self::run_clear); [`Error::MissingFunction`] when one of the graph's is not among them, and
    /// [`Error::Count`] when one gives more or fewer values than it should.
    pub fn run_clear_with<D: Dimension>(
        &self,
        functions: Functions,
        images: ArrayView<'_, f32, D>,
    ) -> Result<Outcome, Error> {
        let (mut run, mut need) = Run::start(self.plan.clone(), functions, images)?;
        while let Need::Sums { segment, inputs } = need {
            let IntegerSegment { weights, bias } = &self.lowered.segments[segment];
            let segment = &self.plan.segments()[segment];
            need = run.take(sums_in_the_clear(segment, (weights, bias), &inputs)?)?;
        }
        run.finish()
    }

    /// Returns the biases of a segment as integers at the scale of its sums, in their shape; `None` if it has none.
    ///
    /// # Errors
    /// [`Error`] when one does not fit the format of the sums, which a plan rules out.
    pub fn bias(&self, segment: usize) -> Result<Option<gelu_tensor::FixedTensor>, Error> {
        match (self.plan.segments().get(segment), self.lowered.segments.get(segment)) {
            (Some(planned), Some(lowered)) => planned.bias(&lowered.bias),
            _ => Ok(None),
        }
    }
}
