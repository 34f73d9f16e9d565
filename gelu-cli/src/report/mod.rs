//! Results for people: digits in the terminal, text tables, contact sheets, charts.

mod charts;
mod confusion;
mod font;
mod panels;
mod png;
mod sheet;
mod table;
mod terminal;

pub(crate) use charts::{Bar, EpochPoint, bar_chart_svg, training_curves_svg};
pub(crate) use confusion::confusion_svg;
pub(crate) use panels::{Panel, write_panels};
pub(crate) use png::write_png;
pub(crate) use sheet::write_contact_sheet;
pub(crate) use table::TextTable;
pub(crate) use terminal::{Canvas, Ink};

/// What a model made of one picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Verdict {
    /// What it shows, if that is known.
    pub(crate) label: Option<u8>,
    /// What the model read.
    pub(crate) predicted: u8,
    /// The model's probability for that, from 0 to 1, if that is known.
    pub(crate) confidence: Option<f32>,
}

impl Verdict {
    /// Whether the model is known to be wrong.
    pub(crate) fn is_wrong(&self) -> bool {
        self.label.is_some_and(|label| label != self.predicted)
    }

    /// The confidence in per cent: `99.7%`, and `100%` from 99.95 on; nothing where it is not known.
    pub(crate) fn percent(&self) -> String {
        match self.confidence.map(|confidence| confidence * 100.0) {
            Some(percent) if percent >= 99.95 => "100%".into(),
            Some(percent) => format!("{percent:.1}%"),
            None => String::new(),
        }
    }
}
