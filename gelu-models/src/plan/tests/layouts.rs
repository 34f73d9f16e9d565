//! Which layouts plans choose, and what they save.

use gelu_tensor::SlotLayout;

use super::*;

fn preferring(prefer: Preference, batch: usize, lanes: usize) -> Plan {
    let deployment = Deployment { prefer, lanes, ..deployment(KeyBits::Bits2048, batch) };
    Plan::clone(lenet5().compile(&Quantization::default(), &deployment).unwrap().plan())
}

fn ciphertexts(plan: &Plan) -> [usize; 2] {
    let segments = plan.segments().iter();
    segments.fold([0, 0], |[up, down], segment| {
        [up + segment.ciphertexts_up(), down + segment.ciphertexts_down()]
    })
}

fn fields(plan: &Plan) -> Vec<usize> {
    plan.segments().iter().map(|segment| segment.layout.ups[0].fields()).collect()
}

#[test]
fn one_image_goes_by_im2col_and_a_batch_by_images() {
    for prefer in Preference::ALL {
        let plan = preferring(prefer, 1, 1);
        let first = &plan.segments()[0].layout;
        assert!(matches!(first.ups[0].arrangement(), Arrangement::Patches(_)));
        assert!(matches!(first.down.arrangement(), Arrangement::Positions(_)));

        let plan = preferring(prefer, 50, 1);
        let fc1 = &plan.segments()[2];
        let up = &fc1.layout.ups[0];
        assert_eq!((up.arrangement(), up.width(), up.fields()), (&Arrangement::Images, 50, 1));
        assert_eq!(fc1.ciphertexts_up(), 256);
    }
}

#[test]
fn a_full_batch_leaves_no_slot_for_another_image() {
    let plan = |batch| preferring(Preference::Balance, batch, 8);
    let full = plan(1).full_batch();
    let widest = |plan: &Plan| {
        let widest = plan.segments().iter().max_by_key(|segment| segment.layout.down.slot_bits()).unwrap();
        (widest.shape.elements(), widest.ciphertexts_down())
    };
    let (values, ciphertexts) = widest(&plan(full));
    assert_eq!(ciphertexts, values);
    assert!(widest(&plan(full + 1)).1 > values);
}

#[test]
fn a_preference_saves_what_it_says() {
    for (batch, lanes) in [(1, 1), (1, 8), (3, 8), (50, 4)] {
        let [balance, bytes, time] = Preference::ALL.map(|prefer| preferring(prefer, batch, lanes));
        let sum = |plan: &Plan| ciphertexts(plan).iter().sum::<usize>();
        assert!(sum(&bytes) <= sum(&balance) && sum(&balance) <= sum(&time), "{batch}, {lanes}");
        // A product takes at least the time that is saved elsewhere.
        assert!(bytes.operations().cost() >= balance.operations().cost().min(time.operations().cost()));
    }
}

/// The numbers that README.md and BENCHMARKS.md speak of are those of shipped weights; these are of weights at random.
#[test]
fn values_share_ciphertexts_where_that_saves_bytes() {
    let bytes = preferring(Preference::Bytes, 1, 8);
    let [up, down] = ciphertexts(&bytes);
    assert!(up + down < 330, "{up} up, {down} down");
    assert!(fields(&bytes)[2..].iter().all(|&fields| fields > 2), "{:?}", fields(&bytes));
    // Every layout leaves room for what hides the other coefficients.
    for segment in bytes.segments() {
        let Layout { ups, down, .. } = &segment.layout;
        assert_eq!(ups[0].fields(), down.fields());
        let slots = down.stacked() * down.width() * down.slot_bits();
        let gap = if down.fields() > 1 { 41 } else { 0 };
        assert!((2 * down.fields() - 1) * (slots + gap) <= KeyBits::Bits2048.slot_capacity_bits());
    }
}

/// Of all numbers of fields and rows that fit, by the definition: no other takes fewer ciphertexts.
#[test]
fn no_packing_takes_fewer_bytes() {
    let plan = preferring(Preference::Bytes, 1, 8);
    for segment in plan.segments() {
        let map = &segment.terms[0].map;
        let slot_bits = segment.format.slot_bits();
        let packing = gelu_tensor::Packing { batch: 1, slot_bits, key: KeyBits::Bits2048 };
        let patches = SlotLayout::patches(map, packing, Contents::Integers(segment.terms[0].format)).unwrap();
        let mut least = usize::MAX;
        for fields in 2..=map.most_terms() {
            for rows in 1..=map.output().elements() {
                let Ok(up) = patches.with_fields(fields, rows, KeyBits::Bits2048) else { break };
                let down = up.after(map, Contents::Integers(segment.format)).unwrap().combined().unwrap();
                least = least.min(up.ciphertexts(1, map.input()) + down.ciphertexts(1, &segment.shape));
            }
        }
        let found = segment.ciphertexts_up() + segment.ciphertexts_down();
        assert!(found <= least, "{}: {found}, {least}", segment.name);
    }
}
