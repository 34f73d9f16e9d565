//! A confusion matrix as a picture.

use gelu_models::train::ConfusionMatrix;
use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

const INK: RGBColor = RGBColor(45, 45, 45);
const FULL: [f64; 3] = [31.0, 119.0, 180.0];
const FONT: &str = "sans-serif";
/// The most classes that are drawn.
pub(crate) const MOST_CLASSES: usize = 60;

/// Draws a confusion matrix as an SVG picture: a row for each label, a column for each prediction, darker where a larger
/// share of the row is. `area` is the area under the ROC curve, where there is one.
///
/// # Errors
/// With more than [`MOST_CLASSES`] classes, or when the picture cannot be drawn.
pub(crate) fn confusion_svg(
    matrix: &ConfusionMatrix,
    names: &[String],
    area: Option<f64>,
) -> anyhow::Result<String> {
    let count = matrix.counts().len();
    anyhow::ensure!(
        count <= MOST_CLASSES,
        "a confusion matrix as a picture: expected at most {MOST_CLASSES} classes, found {count}"
    );
    let failed = |error: &dyn std::fmt::Display| anyhow::anyhow!("cannot draw the confusion matrix: {error}");
    let name = |class: usize| {
        names.get(class).map_or_else(|| class.to_string(), |name| name.chars().take(24).collect())
    };
    let longest = (0..count).map(|class| name(class).chars().count()).max().unwrap_or(0) as i32;
    let cell = if count > 20 { 26 } else { 56 };
    let (left, top) = (60 + 8 * longest, 100);
    let side = cell * count as i32;
    let (width, height) = ((left + side + 30).max(420), top + side + 40 + 8 * longest);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (width as u32, height as u32)).into_drawing_area();
        root.fill(&WHITE).map_err(|error| failed(&error))?;
        let write = |text: String, at: (i32, i32), size: u32, side: HPos, color: RGBColor, turned: bool| {
            let mut style = (FONT, size).into_font().color(&color).pos(Pos::new(side, VPos::Center));
            if turned {
                style = style.transform(FontTransform::Rotate90);
            }
            root.draw(&Text::new(text, at, style)).map_err(|error| failed(&error))
        };
        let (right, all) = (matrix.correct(), matrix.total());
        let share = 100.0 * right as f64 / all.max(1) as f64;
        let area = area.map_or(String::new(), |area| format!(", AUC {area:.4}"));
        write(format!("{right} of {all} right ({share:.2} %){area}"), (20, 26), 19, HPos::Left, INK, false)?;
        write("rows: label, columns: prediction".to_owned(), (20, 54), 14, HPos::Left, INK, false)?;
        for (label, row) in matrix.counts().iter().enumerate() {
            let (y, total) = (top + label as i32 * cell, row.iter().sum::<usize>().max(1));
            write(name(label), (left - 10, y + cell / 2), 14, HPos::Right, INK, false)?;
            for (prediction, &count) in row.iter().enumerate() {
                let x = left + prediction as i32 * cell;
                let part = count as f64 / total as f64;
                let [r, g, b] = FULL.map(|full| (255.0 - part * (255.0 - full)) as u8);
                let area = Rectangle::new([(x, y), (x + cell - 2, y + cell - 2)], RGBColor(r, g, b).filled());
                root.draw(&area).map_err(|error| failed(&error))?;
                let color = if part > 0.6 { WHITE } else { INK };
                let size = if cell > 30 { 14 } else { 9 };
                write(count.to_string(), (x + cell / 2, y + cell / 2), size, HPos::Center, color, false)?;
            }
            write(
                name(label),
                (left + label as i32 * cell + cell / 2, top + side + 8),
                14,
                HPos::Left,
                INK,
                true,
            )?;
        }
        root.present().map_err(|error| failed(&error))?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_names_are_in_the_picture() {
        let matrix = ConfusionMatrix::new(2, [(0, 0), (0, 0), (0, 1), (1, 1)]);
        let names = ["benign".to_owned(), "malignant".to_owned()];
        let svg = confusion_svg(&matrix, &names, Some(0.875)).unwrap();
        for part in ["</svg>", "benign", "malignant", "3 of 4 right (75.00 %), AUC 0.8750"] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
        assert!(confusion_svg(&ConfusionMatrix::new(61, []), &[], None).is_err());
    }
}
