//! A warning where values did not fit their ranges.

use gelu_net::InferenceReport;

use crate::output::note;

/// Says on standard error of which layers' values more than one in a thousand did not fit its range, though the network was not
/// trained to have them cut off.
pub(super) fn warn_of_clamped(report: &InferenceReport) {
    let plan = &report.plan;
    let graph = plan.graph();
    let terms = || plan.segments().iter().flat_map(|segment| segment.terms.iter());
    let worst: Vec<String> = report
        .saturations
        .by_value()
        .filter(|(value, _)| !plan.description().numbers.clamps(*value))
        .filter_map(|(value, clamped)| {
            // A value that several terms read is counted for each.
            let read = terms().filter(|term| term.source == value).count();
            let all = (read * graph.shape(value).elements() * report.predictions.len()) as u64;
            (clamped > all / 1000).then(|| format!("{} ({clamped} of {all})", graph.name(value)))
        })
        .collect();
    if !worst.is_empty() {
        note!(
            "warning: values were beyond the ranges that the model was calibrated to and were clamped, those of {}: \
             `gelu weights import --calibrate DATASET` measures them on data like these",
            worst.join(", ")
        );
    }
}
