//! Charts of lines.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use serde::{Deserialize, Serialize};

use super::{FONT, GRID, INK};
use crate::report::digits;

const SIZE: (u32, u32) = (900, 420);
const COLORS: [RGBColor; 4] =
    [RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(230, 150, 20), RGBColor(44, 140, 60)];

/// What the axes of a chart are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Axes {
    pub(crate) x: String,
    pub(crate) y: String,
    /// Whether the horizontal axis is logarithmic, as the vertical one always is.
    pub(crate) is_log_log: bool,
    /// Where the vertical axis ends, and what is larger is drawn: it says no more than that it is large, and the rest would be
    /// a line at the bottom.
    pub(crate) most: Option<f64>,
}

/// One line of a chart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) label: String,
    pub(crate) points: Vec<(f64, f64)>,
    /// Whether it ends with a value that is no longer finite.
    pub(crate) breaks_off: bool,
}

/// Lines on a logarithmic vertical axis; a cross stands where one breaks off.
pub(super) fn svg(title: &str, axes: &Axes, lines: &[Line]) -> anyhow::Result<String> {
    let most = axes.most.unwrap_or(f64::INFINITY);
    let shown = |line: &Line| -> Vec<(f64, f64)> {
        line.points.iter().map(|&(x, y)| (x, y.min(most))).filter(|(_, y)| *y > 0.0).collect()
    };
    let lines: Vec<(&Line, Vec<(f64, f64)>)> = lines.iter().map(|line| (line, shown(line))).collect();
    let all = || lines.iter().flat_map(|(_, points)| points);
    let begin = all().map(|(x, _)| *x).fold(f64::INFINITY, f64::min);
    let end = all().map(|(x, _)| *x).fold(1.0, f64::max);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        match axes.is_log_log && begin.is_finite() {
            true => draw(&root, title, axes, (0.95 * begin..1.05 * end).log_scale(), &lines)?,
            false => draw(&root, title, axes, 0.0..1.02 * end, &lines)?,
        }
        root.present()?;
    }
    Ok(svg)
}

/// Draws lines over a horizontal axis of either kind.
fn draw<'a, X>(
    root: &DrawingArea<SVGBackend<'a>, Shift>,
    title: &str,
    axes: &Axes,
    x: X,
    lines: &[(&Line, Vec<(f64, f64)>)],
) -> anyhow::Result<()>
where
    X: AsRangedCoord<Value = f64, CoordDescType: ValueFormatter<f64>>,
{
    let all = || lines.iter().flat_map(|(_, points)| points);
    let least = all().map(|(_, y)| *y).fold(1.0, f64::min);
    let most = all().map(|(_, y)| *y).fold(2.0 * least, f64::max);
    // The key stands where lines do not end.
    let ends = lines.iter().filter_map(|(_, points)| points.last()).map(|(_, y)| y.ln());
    let (sum, count) = ends.fold((0.0, 0), |(sum, count), end| (sum + end, count + 1));
    let is_low = count == 0 || sum / f64::from(count) < (least * most).sqrt().ln();
    let key = if is_low { SeriesLabelPosition::UpperRight } else { SeriesLabelPosition::LowerRight };
    let mut chart = ChartBuilder::on(root)
        .caption(title, (FONT, 18).into_font().color(&INK))
        .margin(14)
        .x_label_area_size(42)
        .y_label_area_size(58)
        .build_cartesian_2d(x, (0.9 * least..1.1 * most).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .x_desc(&axes.x)
        .y_desc(&axes.y)
        .x_label_formatter(&|x| digits(*x))
        .y_label_formatter(&|y| digits(*y))
        .label_style((FONT, 13).into_font().color(&INK))
        .draw()?;
    for ((line, points), color) in lines.iter().zip(COLORS.iter().cycle()) {
        let sample = move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2));
        let end = points.last().copied().filter(|_| line.breaks_off);
        chart.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?;
        chart.draw_series(end.map(|at| Cross::new(at, 7, color.stroke_width(3))))?;
        // A line of its own for the key, which a series of crosses alone would not have.
        let label = if line.breaks_off { format!("{} (breaks off)", line.label) } else { line.label.clone() };
        chart.draw_series(LineSeries::new([], color.stroke_width(2)))?.label(label).legend(sample);
    }
    chart
        .configure_series_labels()
        .position(key)
        .background_style(WHITE.mix(0.8))
        .border_style(GRID)
        .label_font((FONT, 14).into_font().color(&INK))
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_break_off_are_marked() {
        let line = |label: &str, breaks_off| Line {
            label: label.to_owned(),
            points: vec![(1.0, 0.5), (2.0, 1e9), (3.0, 0.1)],
            breaks_off,
        };
        let axes =
            |is_log_log, most| Axes { x: "updates".to_owned(), y: "loss".to_owned(), is_log_log, most };
        let lines = [line("exact", false), line("square", true)];
        let svg = super::svg("T", &axes(false, Some(30.0)), &lines).unwrap();
        assert!(svg.contains("square (breaks off)") && svg.contains("exact"), "{svg}");
        assert!(!svg.contains("exact (breaks off)"));
        // What is not cut off has its place on the axis.
        assert!(!svg.contains("10000"), "{svg}");
        assert!(super::svg("T", &axes(true, None), &lines).unwrap().contains("100000000"));
        // Without a point there is an empty chart.
        let none = Line { label: "none".to_owned(), points: vec![], breaks_off: true };
        for is_log_log in [false, true] {
            let svg = super::svg("T", &axes(is_log_log, None), std::slice::from_ref(&none)).unwrap();
            assert!(svg.starts_with("<svg"));
        }
    }
}
