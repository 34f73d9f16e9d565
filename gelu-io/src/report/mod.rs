//! Results for people: digits in the terminal, text tables, contact sheets, charts.

mod charts;
mod font;
mod panels;
mod sheet;
mod table;
mod terminal;

pub use charts::{Bar, EpochPoint, Party, bar_chart_svg, training_curves_svg};
pub use panels::{Panel, write_panels};
pub use sheet::{contact_sheet, write_contact_sheet};
pub use table::TextTable;
pub use terminal::{Canvas, Ink};

/// What a model made of one picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// What it shows, if that is known.
    pub label: Option<u8>,
    /// What the model read.
    pub predicted: u8,
    /// The model's probability for that, from 0 to 1.
    pub confidence: f32,
}

impl Verdict {
    /// Whether the model is known to be wrong.
    pub fn is_wrong(&self) -> bool {
        self.label.is_some_and(|label| label != self.predicted)
    }

    /// The confidence in per cent: `99.7%`, and `100%` from 99.95 on.
    pub fn percent(&self) -> String {
        let percent = self.confidence * 100.0;
        if percent >= 99.95 { "100%".into() } else { format!("{percent:.1}%") }
    }
}
