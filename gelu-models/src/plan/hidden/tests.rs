//! Hidden networks: what they take, and what is refused. That they give the integers of the run in the clear is for the tests
//! of both sides to say.

use gelu_layers::{Activation, Conv2dConfig};
use gelu_tensor::Window;
use gelu_tensor::paillier::KeyBits;

use super::*;
use crate::plan::{Deployment, Program, Quantization};
use crate::tests::{calibrated, images};
use crate::{Model, ModelBuilder, zoo};

fn program(model: &Model, quantization: &Quantization, batch: usize) -> Program {
    let deployment = Deployment { key: KeyBits::Bits2048.into(), batch, lanes: 8, ..Deployment::default() };
    model.compile_hidden(quantization, &deployment).unwrap()
}

fn program_with_bits(model: &Model, activation_bits: u32) -> Program {
    program(model, &Quantization { activation_bits: Some(activation_bits), ..Quantization::default() }, 1)
}

fn lenet5() -> Model {
    let mut model = zoo::lenet5().unwrap();
    crate::tests::fill(&mut model, 5);
    let images = images(&model, 3, 7);
    model.calibrate(images.view()).unwrap();
    model
}

#[test]
fn a_hidden_lenet5_takes_what_its_numbers_say() {
    let model = lenet5();
    let program = program(&model, &Quantization::default(), 25);
    let hidden = HiddenPlan::new(program.plan(), Reveal::Logits).unwrap();
    assert_eq!((hidden.round_trips(), hidden.reveal()), (5, Reveal::Logits));
    for (own, segment) in hidden.segments().iter().zip(program.plan().segments()) {
        let bits = segment.format.slot_bits();
        assert!((bits..bits + 2).contains(&(own.ring.bits() as usize)), "{}", own.name);
        assert!((60..100).contains(&own.flood.slot_bits()), "{}", own.flood.slot_bits());
        // Slots are images and columns of all of them.
        assert!(own.layout.down.slot_bits() >= own.flood.slot_bits());
        assert!(own.layout.ups[0].width() > 1);
    }
    let sum = |each: fn(&HiddenSegment) -> usize| hidden.segments().iter().map(each).sum::<usize>();
    let ands = sum(|segment| segment.ands);
    // 1,324 activations of about 45 ANDs, 32 bytes each, and 31 bytes of a projection.
    assert!((50_000..75_000).contains(&ands), "{ands}");
    let tables = sum(|segment| segment.tables);
    assert!((ands * 32..ands * 32 + 1324 * 40).contains(&tables), "{tables}");
    assert!((400_000..700_000).contains(&sum(|segment| segment.answer)));
    assert!(sum(|segment| segment.shares) < 12_000);
    let class = HiddenPlan::new(program.plan(), Reveal::Class).unwrap();
    let [last, of_class] = [&hidden, &class].map(|plan| &plan.segments()[4]);
    assert!(last.ands == 0 && last.tables == 0 && last.transfers == 0);
    assert!(of_class.ands > 300 && of_class.answer == 10 * of_class.ring.bits() as usize * 16);
}

#[test]
fn nodes_that_cannot_be_computed_on_shares_are_named() {
    let same = || Conv2dConfig::new(2, [3, 3]).with_padding([1, 1]);
    let refused = |builder: ModelBuilder| {
        let program = program(&calibrated(builder), &Quantization::default(), 1);
        match HiddenPlan::new(program.plan(), Reveal::Class) {
            Err(PlanError::Hidden { node }) => node,
            other => panic!("{other:?}"),
        }
    };
    let start = || ModelBuilder::new([1, 4, 4]).conv2d("a", same());
    assert_eq!(refused(start().activation(Activation::Gelu).flatten().dense("b", 3)), "gelu1");
    let pooled = || start().relu().max_pool2d_with(Window::new([2, 2]));
    assert_eq!(refused(pooled().max_pool2d([2, 2]).flatten().dense("b", 3)), "max_pool2");
    assert_eq!(refused(pooled().activation(Activation::Tanh).flatten().dense("b", 3)), "tanh1");
    let gated = start().relu().gated(|gate| gate.global_avg_pool2d().flatten().dense("g", 2).sigmoid());
    assert_eq!(refused(gated.flatten().dense("b", 3)), "mul1");
    let joined = start().relu().concat([&|left| left.conv2d("c", same()), &|right| right]);
    assert_eq!(refused(joined.flatten().dense("b", 3)), "concat1");
    // Its sums would go on as they are, and as an activation too.
    let sums_twice = start().residual(|main| main.relu().conv2d("c", same())).relu().flatten().dense("b", 3);
    assert_eq!(refused(sums_twice), "relu1");
    let thresholds = start().activation(Activation::Sigmoid).flatten().dense("b", 3);
    let many = program_with_bits(&calibrated(thresholds), 20);
    let error = HiddenPlan::new(many.plan(), Reveal::Class).unwrap_err();
    assert!(matches!(&error, PlanError::Hidden { node } if node == "sigmoid1"), "{error}");
    // A class is that of the last sums.
    assert_eq!(refused(start().relu().flatten().dense("b", 3).tanh()), "tanh1");
}
