//! What clients may be shown of a model, and what it costs.

use gelu_models::infer::ServerModel;
use gelu_models::plan::{Deployment, HiddenPlan, PlanError, Program, Reveal};
use gelu_tensor::Backend;
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType};

use crate::proto;

/// In which modes a model is offered: whether clients may see weighted sums, from which its weights can be solved, or only
/// what comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modes {
    pub(super) hidden: Option<Reveal>,
    pub(super) is_revealed: bool,
}

impl Default for Modes {
    /// Hidden, with logits to be had.
    fn default() -> Self {
        Self::hidden(Reveal::Logits)
    }
}

impl Modes {
    /// The model is hidden from clients: they learn at most what `reveal` says. Who may have logits may have the class alone.
    pub fn hidden(reveal: Reveal) -> Self {
        Self { hidden: Some(reveal), is_revealed: false }
    }

    /// Clients see every layer's weighted sums, from which they can solve for the weights. It is for models that are no secret,
    /// and takes fewer bytes.
    pub fn revealed() -> Self {
        Self { hidden: None, is_revealed: true }
    }

    /// Clients choose: what they choose freely hides nothing.
    pub fn any() -> Self {
        Self { hidden: Some(Reveal::Logits), is_revealed: true }
    }

    /// Adds to what clients are told of a model what one input costs in each mode.
    pub(super) fn listed(
        self,
        listed: proto::Model,
        model: &ServerModel,
        backend: Backend,
    ) -> Result<proto::Model, PlanError> {
        let key = KeyParameters { size: KeyBits::Bits2048, key_type: KeyType::Djn };
        let deployment = Deployment { key, lanes: backend.lanes(), ..Deployment::default() };
        let bytes = |ciphertexts: usize| (ciphertexts * 2 * key.size.bits() / 8) as u64;
        let cost = |program: Program| {
            let plan = program.plan();
            let up = plan.segments().iter().map(|segment| segment.ciphertexts_up()).sum();
            let down = plan.segments().iter().map(|segment| segment.ciphertexts_down()).sum();
            proto::Cost {
                ciphertexts_up: up as u64,
                bytes_up: bytes(up),
                ciphertexts_down: down as u64,
                bytes_down: bytes(down),
                products: plan.operations().total(),
                round_trips: plan.segments().len() as u32,
            }
        };
        let cost = self.is_revealed.then(|| model.program(&deployment)).transpose()?.map(cost);
        let Some(reveal) = self.hidden else { return Ok(proto::Model { cost, ..listed }) };
        let hidden = HiddenPlan::new(model.hidden_program(&deployment)?.plan(), reveal)?;
        let sum = |of: fn(&gelu_models::plan::HiddenSegment) -> usize| -> usize {
            hidden.segments().iter().map(of).sum()
        };
        let hidden = proto::HiddenCost {
            logits: reveal == Reveal::Logits,
            ahead_up: bytes(sum(|segment| segment.ciphertexts_up)) + sum(|segment| segment.transfers) as u64,
            ahead_down: bytes(sum(|segment| segment.ciphertexts_down)) + sum(|segment| segment.tables) as u64,
            products: hidden.segments().iter().map(|segment| segment.layout.operations.total()).sum(),
            ands: sum(|segment| segment.ands) as u64,
            online_up: sum(|segment| segment.shares) as u64,
            online_down: sum(|segment| segment.answer) as u64,
            round_trips: hidden.round_trips() as u32,
        };
        Ok(proto::Model { cost, hidden: Some(hidden), ..listed })
    }
}
