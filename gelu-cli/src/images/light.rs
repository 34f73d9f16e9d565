//! The brightness of paper from place to place, since light often falls from one side.

use super::plane::{Mask, Plane, deviation, otsu, quantile};

/// Coefficients of 1, x, y, x^2, xy, y^2, with x and y from -1 to 1 over the picture.
pub(super) struct Light {
    coefficients: Vec<f64>,
    /// How far paper is from it, as a standard deviation: the noise.
    pub(super) noise: f32,
}

/// With more noise than this, what was fitted is not paper.
const MOST_NOISE: f32 = 35.0;
/// The terms of a constant, a plane and a quadratic surface.
const TERMS: [usize; 3] = [1, 3, 6];

impl Light {
    /// Fits the brightness of paper, which prevails along the edge of `area`, and then inside of it.
    pub(super) fn fit(plane: &Plane, area: &Mask) -> Self {
        let margin = area.eroded(1.max(plane.length() / 40));
        let edge: Vec<usize> = area.members().filter(|&at| !margin.is_in[at]).collect();
        let all: Vec<usize> = area.members().collect();
        let mut shades: Vec<f32> = edge.iter().map(|&at| plane.pixels[at]).collect();
        let mut light = Self { coefficients: vec![quantile(&mut shades, 0.5).into()], noise: 0.0 };
        for (members, terms) in [(&edge, TERMS[1]); 4].into_iter().chain([(&all, TERMS[1]), (&all, TERMS[1])])
        {
            light = light.refit(plane, members, terms).unwrap_or(light);
        }
        if light.noise > MOST_NOISE {
            return Self::even(plane, &edge, &all);
        }
        // A surface must not be bent by what is not paper.
        let paper = all.iter().filter(|&&at| light.residual(plane, at).abs() <= light.tolerance()).count();
        if paper * 10 >= all.len() * 6 {
            for _ in 0..3 {
                light = light.refit(plane, &all, TERMS[2]).unwrap_or(light);
            }
        }
        light
    }

    /// The same brightness everywhere: that of the shade which prevails along the edge, where ink comes near to it.
    fn even(plane: &Plane, edge: &[usize], all: &[usize]) -> Self {
        let threshold = otsu(all.iter().map(|&at| plane.pixels[at]));
        let is_light = |at: &usize| plane.pixels[*at] >= threshold;
        let paper_is_light = edge.iter().filter(|at| is_light(at)).count() * 2 >= edge.len();
        let mut shades: Vec<f32> =
            all.iter().filter(|at| is_light(at) == paper_is_light).map(|&at| plane.pixels[at]).collect();
        let shade = quantile(&mut shades, 0.5);
        let noise = deviation(shades.into_iter(), shade).max(0.5);
        Self { coefficients: vec![shade.into()], noise }
    }

    /// Fits again, to those of `members` that are paper as far as is known.
    fn refit(&self, plane: &Plane, members: &[usize], terms: usize) -> Option<Self> {
        let residual = |at: usize| self.residual(plane, at);
        let tolerance = match self.noise {
            0.0 => 2.5 * deviation(members.iter().map(|&at| residual(at)), 0.0),
            _ => self.tolerance(),
        };
        let paper: Vec<usize> =
            members.iter().copied().filter(|&at| residual(at).abs() <= tolerance.max(4.0)).collect();
        let mut equations = vec![vec![0.0; terms + 1]; terms];
        for &at in &paper {
            let basis = basis(plane.size, at);
            for (row, equation) in equations.iter_mut().enumerate() {
                for (column, sum) in equation[..terms].iter_mut().enumerate() {
                    *sum += basis[row] * basis[column];
                }
                equation[terms] += basis[row] * f64::from(plane.pixels[at]);
            }
        }
        let mut light = Self { coefficients: solve(equations)?, noise: 0.0 };
        light.noise = deviation(paper.iter().map(|&at| light.residual(plane, at)), 0.0).max(0.5);
        Some(light)
    }

    /// The most by which paper differs.
    fn tolerance(&self) -> f32 {
        (3.0 * self.noise).max(8.0)
    }

    fn at(&self, size: [usize; 2], at: usize) -> f32 {
        self.coefficients.iter().zip(basis(size, at)).map(|(a, b)| a * b).sum::<f64>() as f32
    }

    /// The brightness at a place above that of paper there.
    pub(super) fn residual(&self, plane: &Plane, at: usize) -> f32 {
        plane.pixels[at] - self.at(plane.size, at)
    }
}

fn basis([height, width]: [usize; 2], at: usize) -> [f64; 6] {
    let y = 2.0 * ((at / width) as f64 + 0.5) / height as f64 - 1.0;
    let x = 2.0 * ((at % width) as f64 + 0.5) / width as f64 - 1.0;
    [1.0, x, y, x * x, x * y, y * y]
}

/// Solves linear equations, each with its right side last; `None` when there is no one solution.
fn solve(mut equations: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let count = equations.len();
    for pivot in 0..count {
        let best = (pivot..count)
            .max_by(|&a, &b| equations[a][pivot].abs().total_cmp(&equations[b][pivot].abs()))?;
        equations.swap(pivot, best);
        let row = equations[pivot].clone();
        if row[pivot].abs() < 1e-6 {
            return None;
        }
        for (other, equation) in equations.iter_mut().enumerate() {
            if other != pivot {
                let factor = equation[pivot] / row[pivot];
                equation.iter_mut().zip(&row).for_each(|(a, b)| *a -= factor * b);
            }
        }
    }
    Some(equations.iter().enumerate().map(|(at, equation)| equation[count] / equation[at]).collect())
}
