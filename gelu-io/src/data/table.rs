use std::{collections::BTreeSet, path::Path};

use crate::{Error, files};

#[cfg(test)]
mod tests;

/// The longest table that is read.
const MAX_BYTES: u64 = 1 << 26;
/// The most classes and the most categories of a column: a label is one byte.
const MAX_CLASSES: usize = 256;

/// How a table is written. Its last column is always the class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFormat {
    /// Whether the first row names the columns.
    pub header: bool,
    /// The quotation mark around values.
    pub quote: u8,
    /// What the columns before the class hold.
    pub columns: Columns,
}

/// What the columns of a table hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columns {
    /// Finite decimal numbers.
    Numbers,
    /// Names, each column with a set of its own.
    Categories(Encoding),
}

/// How a category becomes numbers. The categories of a column are sorted by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// One feature a column: the category's place, from 0.
    Ordinal,
    /// One feature a category: 1 for the row's own, 0 for the others.
    OneHot,
}

/// Rows of features, each with a class.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    feature_names: Vec<String>,
    class_names: Vec<String>,
    values: Vec<f32>,
    labels: Vec<u8>,
}

impl Table {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none (a table that was read has at least one).
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// How many features a row has.
    pub fn features(&self) -> usize {
        self.feature_names.len()
    }

    /// The features' names: the header's, or `x0`, `x1`, ...; one-hot ones are `column=category`.
    pub fn feature_names(&self) -> &[String] {
        &self.feature_names
    }

    /// The classes' names, sorted; a label is a place in them.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// All features: rows x features, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The class of each row.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// Features and class, row by row.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[f32], u8)> {
        self.values.chunks_exact(self.features().max(1)).zip(self.labels.iter().copied())
    }
}

/// Reads the CSV file `path`.
///
/// # Errors
/// [`Error::Io`]; [`Error::TooLarge`]; whatever [`parse_table`] finds.
pub fn read_table(path: &Path, format: &TableFormat) -> Result<Table, Error> {
    parse_table(&files::read_limited(path, MAX_BYTES)?, path, format)
}

/// The table in `bytes`, the contents of a CSV file; `name` names it in errors.
///
/// # Errors
/// [`Error::Format`], with the row and the column, for rows of different lengths, values that are no finite
/// numbers, empty or non-UTF-8 values, too many classes, and tables without rows or features.
pub fn parse_table(bytes: &[u8], name: &Path, format: &TableFormat) -> Result<Table, Error> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(format.header)
        .quote(format.quote)
        .trim(csv::Trim::All)
        .from_reader(bytes);
    let bad_csv = |error: csv::Error| Error::format(name, "a CSV table", error.to_string());
    let header = reader.headers().map_err(bad_csv)?.clone();
    let rows = reader.records().collect::<Result<Vec<_>, _>>().map_err(bad_csv)?;
    let columns = header.len().saturating_sub(1);
    if rows.is_empty() || columns == 0 {
        let found = format!("{} rows of {} columns", rows.len(), header.len());
        return Err(Error::format(name, "rows of at least one feature and a class", found));
    }
    let column_name =
        |column: usize| if format.header { header[column].to_owned() } else { format!("x{column}") };
    let mut feature_names = Vec::new();
    let mut features: Vec<Vec<f32>> = Vec::new();
    for column in 0..columns {
        match format.columns {
            Columns::Numbers => {
                feature_names.push(column_name(column));
                features.push(numbers(&rows, column, name)?);
            }
            Columns::Categories(encoding) => {
                let (categories, places) = categories(&rows, column, name)?;
                match encoding {
                    Encoding::Ordinal => {
                        feature_names.push(column_name(column));
                        features.push(places.into_iter().map(f32::from).collect());
                    }
                    Encoding::OneHot => {
                        for (own, category) in categories.iter().enumerate() {
                            feature_names.push(format!("{}={category}", column_name(column)));
                            let is_own = |&place: &u8| f32::from(u8::from(usize::from(place) == own));
                            features.push(places.iter().map(is_own).collect());
                        }
                    }
                }
            }
        }
    }
    let (class_names, labels) = categories(&rows, columns, name)?;
    let values = (0..rows.len()).flat_map(|row| features.iter().map(move |feature| feature[row])).collect();
    Ok(Table { feature_names, class_names, values, labels })
}

fn numbers(rows: &[csv::StringRecord], column: usize, name: &Path) -> Result<Vec<f32>, Error> {
    rows.iter()
        .map(|row| match row[column].parse::<f32>() {
            Ok(value) if value.is_finite() => Ok(value),
            _ => Err(bad_value(name, row, column, "a finite number")),
        })
        .collect()
}

/// A column's categories, sorted, and the place of each row's own among them.
fn categories(
    rows: &[csv::StringRecord],
    column: usize,
    name: &Path,
) -> Result<(Vec<String>, Vec<u8>), Error> {
    if let Some(row) = rows.iter().find(|row| row[column].is_empty()) {
        return Err(bad_value(name, row, column, "a category"));
    }
    let sorted: Vec<&str> =
        rows.iter().map(|row| &row[column]).collect::<BTreeSet<_>>().into_iter().collect();
    if sorted.len() > MAX_CLASSES {
        let found = format!("{} in column {}", sorted.len(), column + 1);
        return Err(Error::format(name, format!("at most {MAX_CLASSES} categories"), found));
    }
    // Every value is among the sorted ones, and there are at most 256 of them.
    let places = rows.iter().map(|row| sorted.partition_point(|&other| other < &row[column]) as u8).collect();
    Ok((sorted.into_iter().map(str::to_owned).collect(), places))
}

fn bad_value(name: &Path, row: &csv::StringRecord, column: usize, expected: &str) -> Error {
    let line = row.position().map_or(0, csv::Position::line);
    Error::format(
        name,
        format!("{expected} in line {line}, column {}", column + 1),
        format!("`{}`", &row[column]),
    )
}
