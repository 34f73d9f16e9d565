use gelu_tensor::Error;

/// The field in which equations are solved, large enough for every weight: 2^61 - 1.
const PRIME: u64 = (1 << 61) - 1;

/// What came of an attempt to solve for a dense layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Extraction {
    /// There is one solution only.
    Solved {
        /// For each output its weights, then its bias, as integers at the scale of weights and of sums.
        rows: Vec<Vec<i64>>,
    },
    /// Infinitely many weights give the same sums.
    Open {
        /// Independent equations for each output.
        rank: usize,
        /// Its weights and its bias.
        unknowns: usize,
    },
}

/// The equation-solving attack (Tramèr, Zhang, Juels, Reiter and Ristenpart, USENIX Security 2016, section 4.1; section
/// 4.1 of the IJCAI 2018 paper): the weights of a dense layer, from vectors that went in (`inputs` integers each) and the
/// sums that came out (`outputs` integers each, bias included), as a client of private training knows both.
///
/// Exact: by Gaussian elimination modulo 2^61 - 1, which is right as long as no weight is 2^60 or more in absolute value.
/// Takes as many steps as the cube of the inputs.
///
/// # Errors
/// [`Error::Count`] when inputs and sums are not of the same whole number of vectors, or contradict each other.
pub(crate) fn extract(
    [inputs, outputs]: [usize; 2],
    vectors: &[i64],
    sums: &[i64],
) -> Result<Extraction, Error> {
    let samples = vectors.len() / inputs.max(1);
    for (what, expected, found) in [
        ("inputs of whole vectors", samples * inputs, vectors.len()),
        ("sums of the same vectors", samples * outputs, sums.len()),
    ] {
        if expected != found || found == 0 {
            return Err(Error::Count { what, expected, found });
        }
    }
    let unknowns = inputs + 1;
    // Each row: inputs, one for the bias, then all sums.
    let mut rows: Vec<Vec<u64>> = vectors
        .chunks_exact(inputs)
        .zip(sums.chunks_exact(outputs))
        .map(|(vector, sums)| {
            vector.iter().chain(&[1]).chain(sums).map(|&x| x.rem_euclid(PRIME as i64) as u64).collect()
        })
        .collect();
    let mut rank = 0;
    for column in 0..unknowns {
        let Some(pivot) = (rank..rows.len()).find(|&row| rows[row][column] != 0) else { continue };
        rows.swap(rank, pivot);
        let inverse = power(rows[rank][column], PRIME - 2);
        rows[rank].iter_mut().for_each(|x| *x = multiply(*x, inverse));
        let (before, rest) = rows.split_at_mut(rank);
        let Some((pivot, after)) = rest.split_first_mut() else { continue };
        for row in before.iter_mut().chain(after) {
            let factor = PRIME - row[column];
            if factor != PRIME {
                row.iter_mut().zip(pivot.iter()).for_each(|(x, &y)| *x = (*x + multiply(factor, y)) % PRIME);
            }
        }
        rank += 1;
    }
    if let Some(bad) = rows[rank..].iter().position(|row| row[unknowns..].iter().any(|&x| x != 0)) {
        return Err(Error::Count { what: "equations that agree", expected: samples, found: rank + bad });
    }
    if rank < unknowns {
        return Ok(Extraction::Open { rank, unknowns });
    }
    let signed = |x: u64| if x > PRIME / 2 { x as i64 - PRIME as i64 } else { x as i64 };
    let row = |output: usize| (0..unknowns).map(|at| signed(rows[at][unknowns + output])).collect();
    Ok(Extraction::Solved { rows: (0..outputs).map(row).collect() })
}

fn multiply(x: u64, y: u64) -> u64 {
    (u128::from(x) * u128::from(y) % u128::from(PRIME)) as u64
}

fn power(mut base: u64, mut exponent: u64) -> u64 {
    let mut result = 1;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = multiply(result, base);
        }
        base = multiply(base, base);
        exponent >>= 1;
    }
    result
}
