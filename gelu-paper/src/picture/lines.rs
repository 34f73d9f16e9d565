//! Charts of lines.

use plotters::prelude::*;
use serde::{Deserialize, Serialize};

use super::{FONT, GRID, INK};

const SIZE: (u32, u32) = (900, 420);
const COLORS: [RGBColor; 4] =
    [RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(230, 150, 20), RGBColor(44, 140, 60)];

/// Beyond this a loss says no more than that it is large, and little ones would be a line at the bottom.
const BEYOND: f64 = 30.0;

/// One line of a chart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) label: String,
    pub(crate) points: Vec<(f64, f64)>,
    /// Whether it ends with a value that is no longer finite.
    pub(crate) breaks_off: bool,
}

/// Lines on a logarithmic vertical axis; a cross stands where one breaks off.
pub(super) fn svg(title: &str, [x, y]: [&str; 2], lines: &[Line]) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let shown = |line: &Line| -> Vec<(f64, f64)> {
            line.points.iter().map(|&(x, y)| (x, y.min(BEYOND))).filter(|(_, y)| *y > 0.0).collect()
        };
        let lines: Vec<(&Line, Vec<(f64, f64)>)> = lines.iter().map(|line| (line, shown(line))).collect();
        let all = || lines.iter().flat_map(|(_, points)| points);
        let end = all().map(|(x, _)| *x).fold(1.0, f64::max);
        let least = all().map(|(_, y)| *y).fold(1.0, f64::min);
        let most = all().map(|(_, y)| *y).fold(2.0 * least, f64::max);
        let mut chart = ChartBuilder::on(&root)
            .caption(title, (FONT, 18).into_font().color(&INK))
            .margin(14)
            .x_label_area_size(42)
            .y_label_area_size(58)
            .build_cartesian_2d(0.0..1.02 * end, (0.9 * least..1.1 * most).log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .x_desc(x)
            .y_desc(y)
            .label_style((FONT, 13).into_font().color(&INK))
            .draw()?;
        for ((line, points), color) in lines.iter().zip(COLORS.iter().cycle()) {
            let key = move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2));
            let end = points.last().copied().filter(|_| line.breaks_off);
            chart.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?;
            chart.draw_series(end.map(|at| Cross::new(at, 7, color.stroke_width(3))))?;
            // A line of its own for the key, which a series of crosses alone would not have.
            let label =
                if line.breaks_off { format!("{} (breaks off)", line.label) } else { line.label.clone() };
            chart.draw_series(LineSeries::new([], color.stroke_width(2)))?.label(label).legend(key);
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(GRID)
            .label_font((FONT, 14).into_font().color(&INK))
            .draw()?;
        root.present()?;
    }
    Ok(svg)
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
        let svg = svg("T", ["updates", "loss"], &[line("exact", false), line("square", true)]).unwrap();
        assert!(svg.contains("square (breaks off)") && svg.contains("exact"), "{svg}");
        assert!(!svg.contains("exact (breaks off)"));
        // Without a point there is an empty chart.
        let none = Line { label: "none".to_owned(), points: vec![], breaks_off: true };
        assert!(super::svg("T", ["x", "y"], &[none]).unwrap().starts_with("<svg"));
    }
}
