use std::ops::Range;

use gelu_io::session::Role;
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

#[cfg(test)]
mod tests;

const INK: RGBColor = RGBColor(45, 45, 45);
const GRID: RGBColor = RGBColor(225, 225, 225);
const BLUE: RGBColor = RGBColor(31, 119, 180);
const ORANGE: RGBColor = RGBColor(230, 110, 20);
/// The reader's own font: SVG names a family and leaves the drawing to the viewer.
const FONT: &str = "sans-serif";

/// The model's quality after one epoch of training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct EpochPoint {
    /// Which epoch; fractions are allowed.
    pub(crate) epoch: f64,
    /// Mean cross-entropy over the training images.
    pub(crate) train_loss: f64,
    /// Mean cross-entropy over the test images.
    pub(crate) test_loss: f64,
    /// Part of the training images classified correctly, from 0 to 1.
    pub(crate) train_accuracy: f64,
    /// Part of the test images classified correctly, from 0 to 1.
    pub(crate) test_accuracy: f64,
}

/// The color of a side's bars.
fn color(role: Role) -> RGBColor {
    match role {
        Role::Client => BLUE,
        Role::Server => ORANGE,
    }
}

/// One bar of a chart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bar {
    /// What it stands for.
    pub(crate) label: String,
    /// Its length; not negative.
    pub(crate) value: f64,
    /// Who spends the time; gives its color.
    pub(crate) role: Role,
}

/// Loss and accuracy (in per cent) by epoch, side by side, for training and test images, as an SVG picture. Values
/// that are not finite leave a gap.
///
/// # Errors
/// When the chart cannot be drawn.
pub(crate) fn training_curves_svg(points: &[EpochPoint]) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (1000, 380)).into_drawing_area();
        root.fill(&WHITE).map_err(chart_error)?;
        let (left, right) = root.split_horizontally(500);
        let percent = |part: f64| part * 100.0;
        let panels = [
            Panel {
                title: "loss (cross-entropy)",
                train: points.iter().map(|point| (point.epoch, point.train_loss)).collect(),
                test: points.iter().map(|point| (point.epoch, point.test_loss)).collect(),
                least: Some(0.0),
                most: None,
            },
            Panel {
                title: "accuracy (%)",
                train: points.iter().map(|point| (point.epoch, percent(point.train_accuracy))).collect(),
                test: points.iter().map(|point| (point.epoch, percent(point.test_accuracy))).collect(),
                least: None,
                most: Some(100.0),
            },
        ];
        for (area, panel) in [left, right].iter().zip(&panels) {
            panel.draw(area)?;
        }
        root.present().map_err(chart_error)?;
    }
    Ok(svg)
}

/// One pair of curves.
struct Panel {
    title: &'static str,
    train: Vec<(f64, f64)>,
    test: Vec<(f64, f64)>,
    /// Where the vertical axis starts, if not at the data.
    least: Option<f64>,
    /// Where it ends, if not at the data.
    most: Option<f64>,
}

impl Panel {
    fn draw(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> anyhow::Result<()> {
        let finite = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
            points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
        };
        let (train, test) = (finite(&self.train), finite(&self.test));
        let all = || train.iter().chain(&test);
        let epochs = range(all().map(|&(x, _)| x), 0.02);
        let mut values = range(all().map(|&(_, y)| y), 0.08);
        values = self.least.unwrap_or(values.start)..self.most.unwrap_or(values.end);
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, (FONT, 19).into_font().color(&INK))
            .margin(14)
            .x_label_area_size(42)
            .y_label_area_size(52)
            .build_cartesian_2d(epochs, values)
            .map_err(chart_error)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .axis_style(INK)
            .x_desc("epoch")
            .x_labels(8)
            .x_label_formatter(&short)
            .y_labels(6)
            .y_label_formatter(&short)
            .label_style((FONT, 14).into_font().color(&INK))
            .axis_desc_style((FONT, 15).into_font().color(&INK))
            .draw()
            .map_err(chart_error)?;
        for (points, name, color) in [(&train, "training", BLUE), (&test, "test", ORANGE)] {
            chart
                .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))
                .map_err(chart_error)?
                .label(name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 22, y)], color.stroke_width(3)));
            chart
                .draw_series(points.iter().map(|&point| Circle::new(point, 3, color.filled())))
                .map_err(chart_error)?;
        }
        let corner = if self.most.is_some() {
            SeriesLabelPosition::LowerRight
        } else {
            SeriesLabelPosition::UpperRight
        };
        chart
            .configure_series_labels()
            .position(corner)
            .legend_area_size(30)
            .margin(12)
            .background_style(WHITE.mix(0.85))
            .border_style(GRID)
            .label_font((FONT, 15).into_font().color(&INK))
            .draw()
            .map_err(chart_error)
    }
}

/// A number on an axis, without zeros behind the point.
fn short(value: &f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// From the least to the largest value, with `margin` of the distance on either side; never empty.
fn range(values: impl Iterator<Item = f64>, margin: f64) -> Range<f64> {
    let (least, most) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), x| (least.min(x), most.max(x)));
    if least > most {
        return 0.0..1.0;
    }
    let room = if most > least { (most - least) * margin } else { least.abs() * 0.1 + 0.1 };
    (least - room)..(most + room)
}

/// Width of a bar chart.
const CHART_WIDTH: i32 = 900;
/// Height of the title and the legend.
const TITLE: i32 = 76;
/// Height of a bar with its gap.
const BAR: i32 = 30;
/// The most bars that are drawn.
const MAX_BARS: usize = 1000;
/// Room for a value written behind the longest bar.
const VALUE_WIDTH: i32 = 110;

/// Horizontal bars from the top down, colored by side, each with its label before it and its value in `unit`
/// behind it, as an SVG picture. Values that are negative or not finite have no bar; what comes after 1,000 bars is left
/// out.
///
/// # Errors
/// When the chart cannot be drawn.
pub(crate) fn bar_chart_svg(title: &str, unit: &str, bars: &[Bar]) -> anyhow::Result<String> {
    let bars = &bars[..bars.len().min(MAX_BARS)];
    let mut svg = String::new();
    {
        let height = TITLE + BAR * bars.len() as i32 + 16;
        let root = SVGBackend::with_string(&mut svg, (CHART_WIDTH as u32, height as u32)).into_drawing_area();
        root.fill(&WHITE).map_err(chart_error)?;
        text(&root, title, (20, 24), 20, HPos::Left)?;
        legend(&root, bars)?;
        let longest = bars.iter().map(|bar| bar.label.chars().count()).max().unwrap_or(0).min(40) as i32;
        let left = 36 + longest * 7;
        let most = bars.iter().map(|bar| bar.value).filter(|value| value.is_finite()).fold(0.0, f64::max);
        for (i, bar) in (0..).zip(bars) {
            let top = TITLE + i * BAR;
            let part = if most > 0.0 { (bar.value / most).clamp(0.0, 1.0) } else { 0.0 };
            // A NaN becomes 0.
            let length = (part * f64::from(CHART_WIDTH - left - VALUE_WIDTH)) as i32;
            let label: String = bar.label.chars().take(40).collect();
            text(&root, &label, (left - 10, top + BAR / 2), 15, HPos::Right)?;
            root.draw(&Rectangle::new(
                [(left, top + 4), (left + length.max(1), top + BAR - 4)],
                color(bar.role).filled(),
            ))
            .map_err(chart_error)?;
            let value = format!("{} {unit}", three_digits(bar.value));
            text(&root, &value, (left + length + 8, top + BAR / 2), 15, HPos::Left)?;
        }
        root.present().map_err(chart_error)?;
    }
    Ok(svg)
}

/// The sides that have bars, under the title.
fn legend(root: &DrawingArea<SVGBackend<'_>, Shift>, bars: &[Bar]) -> anyhow::Result<()> {
    let mut x = 20;
    let has_bars = |role: &Role| bars.iter().any(|bar| bar.role == *role);
    for role in [Role::Client, Role::Server].into_iter().filter(has_bars) {
        root.draw(&Rectangle::new([(x, 46), (x + 14, 60)], color(role).filled())).map_err(chart_error)?;
        text(root, &role.to_string(), (x + 20, 53), 15, HPos::Left)?;
        x += 100;
    }
    Ok(())
}

fn text(
    root: &DrawingArea<SVGBackend<'_>, Shift>,
    text: &str,
    at: (i32, i32),
    size: u32,
    side: HPos,
) -> anyhow::Result<()> {
    let style = (FONT, size).into_font().color(&INK).pos(Pos::new(side, VPos::Center));
    root.draw(&Text::new(text.to_owned(), at, style)).map_err(chart_error)
}

/// A value with three significant digits, and all digits before the point.
fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        x if x >= 100.0 => 0,
        x if x >= 10.0 => 1,
        x if x >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

fn chart_error(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow::anyhow!("cannot draw the chart: {error}")
}
