//! Columns of a table as inputs of a model: numbers standardized, words as one input for each.

use std::collections::BTreeMap;

use gelu_models::{Column, ColumnValues};
use ndarray::Array2;

use super::rows::{Missing, missing_value};
use super::table::{Table, is_missing, number};
use crate::Error;

/// The most different words of a column.
const MAX_CATEGORIES: usize = 256;
/// The most inputs that a row may become.
const MAX_INPUTS: usize = 1 << 16;
/// The most numbers that a table may become.
const MAX_ELEMENTS: usize = 1 << 27;

/// What a column of a table holds.
pub(super) enum Kind {
    /// Numbers.
    Numbers,
    /// Words, each with the rows that it is in.
    Words(BTreeMap<String, usize>),
}

/// Tells what the column holds in `rows`. A column with a number in nine rows of ten is one of numbers.
///
/// # Errors
/// [`Error::Cell`] for a word in a column of numbers; [`Error::TooLarge`] for too many words.
pub(super) fn kind_of(table: &Table, rows: &[usize], column: usize) -> Result<Kind, Error> {
    let cells =
        || rows.iter().map(|&row| (row, table.cell(row, column))).filter(|(_, cell)| !is_missing(cell));
    let count = cells().count();
    let numbers = cells().filter(|(_, cell)| number(cell).is_some()).count();
    if 10 * numbers >= 9 * count {
        return match cells().find(|(_, cell)| number(cell).is_none()) {
            Some((row, _)) => Err(table.cell_error(row, column, "a finite number, as in the other rows")),
            None => Ok(Kind::Numbers),
        };
    }
    let mut words: BTreeMap<String, usize> = BTreeMap::new();
    for (_, cell) in cells() {
        match words.get_mut(cell) {
            Some(count) => *count += 1,
            None => drop(words.insert(cell.to_owned(), 1)),
        }
    }
    if words.len() > MAX_CATEGORIES {
        return Err(Error::Format {
            path: table.path().to_owned(),
            expected: format!(
                "numbers or at most {MAX_CATEGORIES} different words in column {} (`{}`)",
                column + 1,
                table.names()[column]
            ),
            found: format!("{} words; a column of names or texts has to be taken out", words.len()),
        });
    }
    Ok(Kind::Words(words))
}

/// Measures the columns `features`: mean and standard deviation over the rows `train`, and the words over `all`.
///
/// # Errors
/// Those of [`kind_of`]; [`Error::TooLarge`]; [`Error::TooFew`] for a column without any value;
/// [`Error::Format`] for a value for missing numbers that is none.
pub(super) fn measure(
    table: &Table,
    features: &[usize],
    all: &[usize],
    train: &[usize],
    missing: &Missing,
) -> Result<Vec<Column>, Error> {
    let mut columns = Vec::with_capacity(features.len());
    for &column in features {
        let values = match kind_of(table, all, column)? {
            Kind::Numbers => numbers(table, column, train, missing)?,
            Kind::Words(words) => {
                let mut words: Vec<String> = words.into_keys().collect();
                let lacks = all.iter().any(|&row| is_missing(table.cell(row, column)));
                if let (Missing::Value(value), true) = (missing, lacks)
                    && let Err(at) = words.binary_search(value)
                {
                    words.insert(at, value.clone());
                }
                ColumnValues::Category(words)
            }
        };
        columns.push(Column { name: table.names()[column].clone(), values });
    }
    check_size(table, &columns, all.len())?;
    Ok(columns)
}

fn check_size(table: &Table, columns: &[Column], rows: usize) -> Result<usize, Error> {
    let inputs: usize = columns.iter().map(Column::inputs).sum();
    for (what, limit, found) in [
        ("inputs of a row", MAX_INPUTS, inputs),
        ("inputs of all rows", MAX_ELEMENTS, inputs.saturating_mul(rows)),
    ] {
        if found > limit {
            let path = table.path().to_owned();
            return Err(Error::TooLarge { path, what, limit: limit as u64, found: found as u64 });
        }
    }
    Ok(inputs)
}

fn numbers(table: &Table, column: usize, train: &[usize], missing: &Missing) -> Result<ColumnValues, Error> {
    let present: Vec<f64> =
        train.iter().filter_map(|&row| number(table.cell(row, column))).map(f64::from).collect();
    let mean_of = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let stand_in = match missing {
        Missing::Refuse | Missing::Drop => None,
        Missing::Mean if present.is_empty() => {
            return Err(Error::TooFew {
                path: table.path().to_owned(),
                expected: "values to take the mean of",
                found: format!("none in column {} (`{}`)", column + 1, table.names()[column]),
            });
        }
        Missing::Mean => Some(mean_of(&present) as f32),
        Missing::Value(value) => {
            let lacks = train.len() > present.len();
            match number(value) {
                None if lacks => {
                    let expected = format!(
                        "a number for missing values of column {} (`{}`)",
                        column + 1,
                        table.names()[column]
                    );
                    return Err(Error::format(table.path(), expected, format!("`{value}`")));
                }
                stand_in => stand_in,
            }
        }
    };
    let mut values = present;
    values.resize(train.len(), stand_in.map_or(0.0, f64::from));
    let mean = mean_of(&values);
    let variance =
        values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len().max(1) as f64;
    // A constant column has nothing to say; dividing by 1 leaves it at 0.
    let std = variance.sqrt() as f32;
    let std = if std.is_normal() { std } else { 1.0 };
    Ok(ColumnValues::Number { mean: mean as f32, std, missing: stand_in })
}

/// Returns `rows` as a model with `columns` takes them, `[rows, inputs]`; `places` says where each of its columns is in
/// the table.
///
/// # Errors
/// [`Error::Cell`] for what is no number or none of the column's words; [`Error::MissingValue`] where neither the column
/// nor `missing` says what stands for a missing value; [`Error::TooLarge`].
pub(super) fn encode(
    table: &Table,
    columns: &[Column],
    places: &[usize],
    rows: &[usize],
    missing: &Missing,
) -> Result<Array2<f32>, Error> {
    let inputs = check_size(table, columns, rows.len())?;
    let mut encoded = Array2::zeros((rows.len(), inputs));
    let mut start = 0;
    for (column, &place) in columns.iter().zip(places) {
        for (at, &row) in rows.iter().enumerate() {
            let cell = table.cell(row, place);
            let lacks = is_missing(cell);
            let none = || missing_value(table, row, &[place]);
            match &column.values {
                ColumnValues::Number { mean, std, missing: stand_in } => {
                    let value = match (lacks, missing) {
                        (false, _) => {
                            number(cell).ok_or_else(|| table.cell_error(row, place, "a finite number"))?
                        }
                        (true, Missing::Mean) => stand_in.unwrap_or(*mean),
                        (true, Missing::Value(value)) => number(value).ok_or_else(none)?,
                        (true, _) => stand_in.ok_or_else(none)?,
                    };
                    encoded[[at, start]] = (value - mean) / std;
                }
                ColumnValues::Category(words) => {
                    let word = match (lacks, missing) {
                        (true, Missing::Value(value)) => value.as_str(),
                        _ => cell,
                    };
                    match words.iter().position(|other| other == word) {
                        Some(own) => encoded[[at, start + own]] = 1.0,
                        None if lacks && *missing == Missing::Mean => {}
                        None if lacks => return Err(none()),
                        None => {
                            return Err(table.cell_error(row, place, format!("one of {}", list(words))));
                        }
                    }
                }
            }
        }
        start += column.inputs();
    }
    if let Some((at, _)) =
        encoded.outer_iter().enumerate().find(|(_, row)| row.iter().any(|x| !x.is_finite()))
    {
        let place = places.first().copied().unwrap_or(0);
        return Err(table.cell_error(rows[at], place, "a row of numbers within the range of the model's"));
    }
    Ok(encoded)
}

/// The first words, for an error.
pub(super) fn list(words: &[String]) -> String {
    const MOST: usize = 8;
    let mut text = words.iter().take(MOST).map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    if words.len() > MOST {
        text += &format!(" and {} more", words.len() - MOST);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ndarray::array;

    use super::*;

    fn table(text: &str) -> Table {
        Table::parse(text.as_bytes(), Path::new("test-table")).unwrap()
    }

    #[test]
    fn numbers_are_standardized_over_the_training_rows_and_words_become_inputs() {
        let table = table("1,red,a\n3,green,a\n100,blue,b\n");
        let columns = measure(&table, &[0, 1], &[0, 1, 2], &[0, 1], &Missing::Refuse).unwrap();
        assert_eq!(columns[0].values, ColumnValues::Number { mean: 2.0, std: 1.0, missing: None });
        let words = ["blue", "green", "red"].map(str::to_owned);
        assert_eq!(columns[1].values, ColumnValues::Category(words.to_vec()));
        let encoded = encode(&table, &columns, &[0, 1], &[0, 2], &Missing::Refuse).unwrap();
        assert_eq!(encoded, array![[-1.0, 0.0, 0.0, 1.0], [98.0, 1.0, 0.0, 0.0]]);
    }

    #[test]
    fn missing_values_are_the_mean_or_a_value() {
        let table = table("1,red,a\n?,red,a\n3,,b\n2,,b\n");
        let rows = [0, 1, 2, 3];
        let columns = measure(&table, &[0, 1], &rows, &rows, &Missing::Value("0".to_owned())).unwrap();
        assert!(matches!(columns[0].values, ColumnValues::Number { mean: 1.5, missing: Some(0.0), .. }));
        assert_eq!(columns[1].values, ColumnValues::Category(vec!["0".to_owned(), "red".to_owned()]));
        let columns = measure(&table, &[0], &rows, &rows, &Missing::Mean).unwrap();
        assert!(matches!(columns[0].values, ColumnValues::Number { mean: 2.0, missing: Some(2.0), .. }));
        // What the model was trained with stands in later, too.
        assert_eq!(encode(&table, &columns, &[0], &[1], &Missing::Refuse).unwrap(), array![[0.0]]);
        let error = measure(&table, &[0], &rows, &rows, &Missing::Value("none".to_owned())).unwrap_err();
        assert!(error.to_string().contains("a number for missing values of column 1"), "{error}");
    }

    #[test]
    fn what_a_column_cannot_hold_is_named_by_line_and_column() {
        let mut text: String = (0..20).map(|i| format!("{i},red\n")).collect();
        text += "oops,red\n";
        let typo = table(&text);
        let rows: Vec<usize> = (0..typo.len()).collect();
        let error = measure(&typo, &[0], &rows, &rows, &Missing::Refuse).unwrap_err();
        assert!(matches!(error, Error::Cell { line: 21, column: 1, .. }), "{error}");

        let known = [
            Column {
                name: "a".to_owned(),
                values: ColumnValues::Number { mean: 0.0, std: 1.0, missing: None },
            },
            Column { name: "b".to_owned(), values: ColumnValues::Category(vec!["red".to_owned()]) },
        ];
        for (row, expected) in [
            ("x,red", "a finite number"),
            ("1,pink", "one of `red`"),
            ("?,red", "a value"),
            ("1,?", "a value"),
        ] {
            let table = table(&format!(
                "a,b\n7,red\n{row}\n7,red\n7,red\n7,red\n7,red\n7,red\n7,red\n7,red\n7,red\n"
            ));
            let error = encode(&table, &known, &[0, 1], &[0, 1], &Missing::Refuse).unwrap_err().to_string();
            assert!(error.contains("line 3") && error.contains(expected), "{error}");
        }
    }
}
