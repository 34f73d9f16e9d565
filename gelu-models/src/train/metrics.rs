//! What predictions are worth, where the labels are known.

use serde::Serialize;

/// How often inputs of one class were taken for each of the classes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfusionMatrix {
    counts: Vec<Vec<usize>>,
}

impl ConfusionMatrix {
    /// Counts pairs of a label and a prediction, both from 0 to `classes` - 1; pairs beyond are left out.
    pub fn new(classes: usize, pairs: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut counts = vec![vec![0; classes]; classes];
        for (label, prediction) in pairs {
            if let Some(count) = counts.get_mut(label).and_then(|row| row.get_mut(prediction)) {
                *count += 1;
            }
        }
        Self { counts }
    }

    /// Returns the counts: a row for each label, in it a column for each prediction.
    pub fn counts(&self) -> &[Vec<usize>] {
        &self.counts
    }

    /// Returns how many pairs were counted.
    pub fn total(&self) -> usize {
        self.counts.iter().flatten().sum()
    }

    /// Returns how many predictions were right.
    pub fn correct(&self) -> usize {
        (0..self.counts.len()).map(|class| self.counts[class][class]).sum()
    }
}

/// Returns the area under the ROC curve: the probability that an input of the class, drawn at random, scores higher
/// than one of the other class, equal scores counted half. Each item is a score and whether the input is of the class.
/// `None` when the inputs are all of one kind, or a score is NaN.
///
/// ```
/// use gelu_models::train::area_under_curve;
///
/// // Of the four pairs, (0.8, 0.1), (0.8, 0.4) and (0.4, 0.1) are in order, and (0.4, 0.4) counts half.
/// assert_eq!(area_under_curve(&[(0.1, false), (0.4, true), (0.4, false), (0.8, true)]), Some(3.5 / 4.0));
/// ```
pub fn area_under_curve(scored: &[(f64, bool)]) -> Option<f64> {
    if scored.iter().any(|(score, _)| score.is_nan()) {
        return None;
    }
    let mut sorted = scored.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positives = sorted.iter().filter(|(_, positive)| *positive).count();
    let negatives = sorted.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    let (mut below, mut doubled) = (0usize, 0f64);
    // `==` and not the order of `total_cmp`: -0.0 and 0.0 are one score.
    for equal in sorted.chunk_by(|a, b| a.0 == b.0) {
        let of_class = equal.iter().filter(|(_, positive)| *positive).count();
        let others = equal.len() - of_class;
        doubled += of_class as f64 * (2 * below + others) as f64;
        below += others;
    }
    Some(doubled / 2.0 / (positives as f64 * negatives as f64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_confusion_matrix_counts_by_label_and_prediction() {
        let matrix = ConfusionMatrix::new(3, [(0, 0), (0, 1), (1, 1), (2, 0), (2, 2), (3, 0), (0, 9)]);
        assert_eq!(matrix.counts(), [[1, 1, 0], [0, 1, 0], [1, 0, 1]]);
        assert_eq!((matrix.correct(), matrix.total()), (3, 5));
        assert_eq!(ConfusionMatrix::new(0, [(0, 0)]).total(), 0);
    }

    #[test]
    fn the_area_is_that_of_hand_counted_pairs() {
        let perfect = [(0.9, true), (0.8, true), (0.2, false)];
        assert_eq!(area_under_curve(&perfect), Some(1.0));
        assert_eq!(area_under_curve(&perfect.map(|(score, of)| (-score, of))), Some(0.0));
        assert_eq!(area_under_curve(&[(0.5, true), (0.5, false), (0.5, false)]), Some(0.5));
        assert_eq!(area_under_curve(&[(0.0, true), (-0.0, false)]), Some(0.5));
        // Pairs: 0.7 over both of 0.1 and 0.6 (2 of 2), 0.3 over 0.1 only (1 of 2).
        assert_eq!(area_under_curve(&[(0.7, true), (0.3, true), (0.1, false), (0.6, false)]), Some(0.75));
    }

    #[test]
    fn one_kind_only_or_no_number_has_no_area() {
        assert_eq!(area_under_curve(&[(0.5, true), (0.1, true)]), None);
        assert_eq!(area_under_curve(&[]), None);
        assert_eq!(area_under_curve(&[(f64::NAN, true), (0.1, false)]), None);
    }

    proptest! {
        #[test]
        fn the_area_is_the_share_of_pairs_in_order(scored in prop::collection::vec((0u8..8, any::<bool>()), 0..40)) {
            let scored: Vec<(f64, bool)> = scored.into_iter().map(|(score, of)| (f64::from(score), of)).collect();
            let of = |wanted: bool| scored.iter().filter(move |(_, of)| *of == wanted).map(|(score, _)| *score);
            let pairs: Vec<f64> = of(true)
                .flat_map(|a| of(false).map(move |b| if a > b { 1.0 } else if a == b { 0.5 } else { 0.0 }))
                .collect();
            let expected = (!pairs.is_empty()).then(|| pairs.iter().sum::<f64>() / pairs.len() as f64);
            let found = area_under_curve(&scored);
            prop_assert_eq!(found.is_some(), expected.is_some());
            prop_assert!((found.unwrap_or(0.0) - expected.unwrap_or(0.0)).abs() < 1e-12);
        }
    }
}
