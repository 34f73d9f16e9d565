//! Charts of results, drawn by plotters.

mod lines;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde::{Deserialize, Serialize};

pub(crate) use self::lines::{Axes, Line};
use crate::report::digits;

const INK: RGBColor = RGBColor(45, 45, 45);
const GRID: RGBColor = RGBColor(225, 225, 225);
/// The reader's own font: SVG names a family and leaves the drawing to the viewer.
const FONT: &str = "sans-serif";
const WIDTH: i32 = 900;
/// Above the bars, and between two of them.
const TITLE: i32 = 74;
const STEP: i32 = 30;
/// For a value behind its bar.
const VALUE: i32 = 110;

/// Whose figure a bar is; gives its color.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Who {
    /// The paper's.
    Paper,
    /// A rival's on this machine.
    Rival,
    /// Ours on this machine.
    Ours,
}

impl Who {
    const ALL: [Self; 3] = [Self::Paper, Self::Rival, Self::Ours];

    fn label(self) -> &'static str {
        match self {
            Self::Paper => "the paper's",
            Self::Rival => "a rival, here",
            Self::Ours => "ours, here",
        }
    }

    fn color(self) -> RGBColor {
        match self {
            Self::Paper => RGBColor(150, 150, 150),
            Self::Rival => RGBColor(230, 110, 20),
            Self::Ours => RGBColor(31, 119, 180),
        }
    }
}

/// One bar of a chart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bar {
    pub(crate) label: String,
    /// Above 0.
    pub(crate) value: f64,
    pub(crate) who: Who,
}

/// A picture of a part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Picture {
    /// Bars whose length is the logarithm of a value: a line stands for ten times the one before it.
    Bars { title: String, unit: String, bars: Vec<Bar> },
    /// A file in the folder of the report.
    File { name: String },
    /// Lines of positive values on a logarithmic vertical axis.
    Lines { title: String, axes: Axes, lines: Vec<Line> },
}

impl Picture {
    /// The picture as SVG, if it is not there already.
    pub(crate) fn svg(&self) -> anyhow::Result<Option<String>> {
        match self {
            Self::File { .. } => Ok(None),
            Self::Bars { title, unit, bars } => bars_svg(title, unit, bars).map(Some),
            Self::Lines { title, axes, lines } => lines::svg(title, axes, lines).map(Some),
        }
    }
}

fn bars_svg(title: &str, unit: &str, bars: &[Bar]) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let height = TITLE + STEP * bars.len() as i32 + 16;
        let root = SVGBackend::with_string(&mut svg, (WIDTH as u32, height as u32)).into_drawing_area();
        root.fill(&WHITE)?;
        text(
            &root,
            &format!("{title} ({unit}, each line ten times the one before)"),
            (20, 24),
            18,
            HPos::Left,
        )?;
        let mut x = 20;
        for who in Who::ALL.into_iter().filter(|who| bars.iter().any(|bar| bar.who == *who)) {
            root.draw(&Rectangle::new([(x, 46), (x + 14, 60)], who.color().filled()))?;
            text(&root, who.label(), (x + 20, 53), 15, HPos::Left)?;
            x += 130;
        }
        let exponents = bars.iter().filter(|bar| bar.value > 0.0).map(|bar| bar.value.log10());
        // A value that is a power of ten still has a bar.
        let least = exponents.clone().fold(f64::INFINITY, f64::min).floor() - 1.0;
        let most = exponents.fold(f64::NEG_INFINITY, f64::max).ceil();
        let longest = bars.iter().map(|bar| bar.label.chars().count()).max().unwrap_or(0) as i32;
        let left = 36 + longest * 7;
        let scale = f64::from(WIDTH - left - VALUE) / (most - least);
        // Without values there are no lines.
        let lines = if scale.is_finite() { (most - least) as i32 } else { 0 };
        for line in 1..=lines {
            let x = left + (f64::from(line) * scale) as i32;
            root.draw(&PathElement::new([(x, TITLE - 4), (x, height - 12)], GRID.stroke_width(1)))?;
        }
        for (place, bar) in (0..).zip(bars) {
            let top = TITLE + place * STEP;
            let length = ((bar.value.log10() - least) * scale).max(1.0) as i32;
            text(&root, &bar.label, (left - 10, top + STEP / 2), 15, HPos::Right)?;
            let corners = [(left, top + 5), (left + length, top + STEP - 5)];
            root.draw(&Rectangle::new(corners, bar.who.color().filled()))?;
            let value = format!("{} {unit}", digits(bar.value));
            text(&root, &value, (left + length + 8, top + STEP / 2), 15, HPos::Left)?;
        }
        root.present()?;
    }
    Ok(svg)
}

fn text(
    root: &DrawingArea<SVGBackend<'_>, Shift>,
    text: &str,
    at: (i32, i32),
    size: u32,
    side: HPos,
) -> anyhow::Result<()> {
    let style = (FONT, size).into_font().color(&INK).pos(Pos::new(side, VPos::Center));
    Ok(root.draw(&Text::new(text.to_owned(), at, style))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_grow_with_the_logarithm() {
        let bar = |value: f64, who| Bar { label: format!("at {value}"), value, who };
        let bars = vec![bar(0.01, Who::Ours), bar(1.0, Who::Rival), bar(100.0, Who::Paper)];
        let svg = Picture::Bars { title: "T".into(), unit: "s".into(), bars }.svg().unwrap().unwrap();
        let widths: Vec<u32> = svg
            .split("<rect")
            .filter(|part| part.contains("height=\"20\""))
            .filter_map(|part| part.split("width=\"").nth(1)?.split('"').next()?.parse().ok())
            .collect();
        assert_eq!(widths.len(), 3, "{svg}");
        // 10^-3 is at the left.
        assert!(
            (3 * widths[0]).abs_diff(widths[1]) <= 3 && (5 * widths[0]).abs_diff(widths[2]) <= 5,
            "{widths:?}"
        );
        let none =
            Picture::Bars { title: "T".into(), unit: "s".into(), bars: vec![bar(f64::NAN, Who::Ours)] };
        assert!(none.svg().unwrap().unwrap().starts_with("<svg"));
    }
}
