//! Comparisons, and what is chosen by them.

use crate::Bits;

/// Returns the number plus half of its range: signed numbers in the order of numbers without a sign, and back. It costs
/// no AND.
pub fn offset_binary<B: Bits>(bits: &mut B, x: &[B::Wire]) -> Vec<B::Wire> {
    let mut flipped = x.to_vec();
    if let Some(sign) = flipped.last_mut() {
        *sign = bits.not(sign);
    }
    flipped
}

/// Returns whether `x > y`, for two numbers without a sign of l bits: l ANDs. `None`, for no, where they have no bits.
pub(crate) fn greater<B: Bits>(bits: &mut B, x: &[B::Wire], y: &[B::Wire]) -> Option<B::Wire> {
    let mut greater: Option<B::Wire> = None;
    for (x, y) in x.iter().zip(y) {
        // The highest bit that differs decides.
        let differ = bits.xor(x, y);
        greater = Some(match greater {
            None => bits.and(x, &differ),
            Some(lower) => {
                let changed = bits.xor(x, &lower);
                let changed = bits.and(&differ, &changed);
                bits.xor(&lower, &changed)
            }
        });
    }
    greater
}

/// Returns whether a number without a sign is above a public one, by fewer than l ANDs. `None` where none is.
pub(super) fn greater_than<B: Bits>(bits: &mut B, x: &[B::Wire], limit: i128) -> Option<B::Wire> {
    let mut greater: Option<B::Wire> = None;
    if limit < 0 {
        let first = x.first()?;
        let none = bits.xor(first, first);
        return Some(bits.not(&none));
    }
    for (at, x) in x.iter().enumerate() {
        greater = match (limit >> at.min(126) & 1 == 1, greater) {
            (true, None) => None,
            (true, Some(lower)) => Some(bits.and(&lower, x)),
            (false, None) => Some(x.clone()),
            (false, Some(lower)) => Some(bits.or(&lower, x)),
        };
    }
    greater.filter(|_| limit >> x.len().min(126) == 0)
}

/// Returns `x` where `choice` is set and `y` elsewhere, for numbers of l bits: l ANDs.
pub fn select<B: Bits>(bits: &mut B, choice: &B::Wire, x: &[B::Wire], y: &[B::Wire]) -> Vec<B::Wire> {
    let mut selected = Vec::with_capacity(x.len());
    for (x, y) in x.iter().zip(y) {
        let differ = bits.xor(x, y);
        let changed = bits.and(choice, &differ);
        selected.push(bits.xor(&changed, y));
    }
    selected
}

/// Returns the larger of two numbers without a sign: 2 l ANDs. For signed ones, see [`offset_binary`].
pub fn max<B: Bits>(bits: &mut B, x: &[B::Wire], y: &[B::Wire]) -> Vec<B::Wire> {
    match greater(bits, x, y) {
        Some(greater) => select(bits, &greater, x, y),
        None => vec![],
    }
}

/// Returns the index of the first of the largest of n signed numbers, as a number without a sign: about 2 l n ANDs.
pub fn argmax<B: Bits>(bits: &mut B, numbers: &[Vec<B::Wire>]) -> Vec<B::Wire> {
    let Some((first, rest)) = numbers.split_first() else { return vec![] };
    let Some(any) = first.first() else { return vec![] };
    let length = usize::BITS - rest.len().leading_zeros();
    let mut index = vec![bits.xor(any, any); length as usize];
    let mut largest = offset_binary(bits, first);
    for (at, number) in rest.iter().enumerate() {
        let number = offset_binary(bits, number);
        let Some(larger) = greater(bits, &number, &largest) else { return index };
        if at + 1 < rest.len() {
            largest = select(bits, &larger, &number, &largest);
        }
        for (bit, wire) in index.iter_mut().enumerate() {
            // Bits that no index so far has are zero, and need no AND.
            let (now, before) = ((at + 1) >> bit & 1 == 1, at >> bit != 0);
            *wire = match (now, before) {
                (true, false) => larger.clone(),
                (true, true) => bits.or(wire, &larger),
                (false, true) => {
                    let stays = bits.not(&larger);
                    bits.and(wire, &stays)
                }
                (false, false) => wire.clone(),
            };
        }
    }
    index
}

/// Returns how many public numbers, in ascending order, a signed number is not below: by a binary search, in which
/// each bit of the answer is one comparison with the number that the bits above it lead to.
///
/// For n numbers up to 2^k - 1: about 2^(k-1) + k l ANDs. The least number of l bits must be below them all; those beyond the
/// largest are reached by none.
pub fn thresholds<B: Bits>(bits: &mut B, x: &[B::Wire], numbers: &[i64]) -> Vec<B::Wire> {
    let Some(any) = x.last() else { return vec![] };
    let (none, zero) = (bits.xor(any, any), 1i128 << (x.len() - 1).min(100));
    let ordered = offset_binary(bits, x);
    // In the order of numbers without a sign: that which must be exceeded for a count of at least `count`.
    let limit = |count: usize| {
        let number = numbers.get(count - 1).map_or(zero, |&number| i128::from(number).min(zero));
        (number + zero - 1).max(0)
    };
    let length = usize::BITS - numbers.len().leading_zeros();
    // Which of the counts that end in zeros it is, as one wire for each, by the bits that are known.
    let (mut found, mut one_hot): (Vec<B::Wire>, Vec<B::Wire>) = (vec![], vec![]);
    for bit in (0..length).rev() {
        let wire = if one_hot.is_empty() {
            greater_than(bits, &ordered, limit(1 << bit))
        } else {
            let candidates: Vec<i128> =
                (0..one_hot.len()).map(|count| limit((count << 1 | 1) << bit)).collect();
            let mut number = Vec::with_capacity(x.len());
            for at in 0..x.len() {
                let mut sum: Option<B::Wire> = None;
                for (chosen, _) in one_hot.iter().zip(&candidates).filter(|(_, limit)| *limit >> at & 1 == 1)
                {
                    sum = Some(sum.map_or_else(|| chosen.clone(), |sum| bits.xor(&sum, chosen)));
                }
                number.push(sum.unwrap_or_else(|| none.clone()));
            }
            greater(bits, &ordered, &number)
        };
        let wire = wire.unwrap_or_else(|| none.clone());
        if bit > 0 {
            one_hot = match one_hot.is_empty() {
                true => vec![bits.not(&wire), wire.clone()],
                false => {
                    let mut split = Vec::with_capacity(2 * one_hot.len());
                    for chosen in &one_hot {
                        let upper = bits.and(chosen, &wire);
                        split.extend([bits.xor(chosen, &upper), upper]);
                    }
                    split
                }
            };
        }
        found.push(wire);
    }
    found.reverse();
    found
}
