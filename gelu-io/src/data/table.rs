//! A table of text: its rows and the names of its columns, as the file has them.

use std::path::{Path, PathBuf};

use csv::StringRecord;
use serde::Serialize;

use super::{gzip, text};
use crate::{Error, data::TextEncoding, files};

#[cfg(test)]
mod tests;

/// The longest table that is read, and the most that is unpacked from one.
const MAX_BYTES: u64 = 1 << 26;
/// The most columns of a table.
const MAX_COLUMNS: usize = 10_000;
/// The most rows of a table.
const MAX_ROWS: usize = 2_000_000;
/// What stands for a missing value, besides nothing at all, in any case.
const MISSING: [&str; 5] = ["?", "na", "n/a", "nan", "null"];

/// How a table is written, as its text shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableFormat {
    /// How its characters are stored.
    pub encoding: TextEncoding,
    /// What stands between two values.
    pub delimiter: char,
    /// What stands around values that may hold the delimiter.
    pub quote: char,
    /// Whether the first row names the columns.
    pub header: bool,
    /// Whether numbers have a comma for their point.
    pub decimal_comma: bool,
}

/// The rows of a table, as text.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    path: PathBuf,
    format: TableFormat,
    names: Vec<String>,
    rows: Vec<StringRecord>,
}

impl Table {
    /// Reads the table `path`, plain or gzip. Its encoding, delimiter, quotation marks and header are found out.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::TooLarge`]; whatever [`parse`](Self::parse) finds.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(&files::read_limited(path, MAX_BYTES)?, path)
    }

    /// Returns the table in `bytes`, the contents of a file; `name` names it in errors.
    ///
    /// # Errors
    /// [`Error::Format`] for what is no text, or has no rows of at least two columns; [`Error::Row`], with the line, for
    /// rows of different lengths; [`Error::TooLarge`].
    pub fn parse(bytes: &[u8], name: &Path) -> Result<Self, Error> {
        let unpacked = gzip::is_gzip(bytes).then(|| gzip::unpack(bytes, name, MAX_BYTES)).transpose()?;
        let (text, encoding) = text::decode(unpacked.as_deref().unwrap_or(bytes), name)?;
        let none = |found: String| Error::format(name, "rows of at least one feature and a label", found);
        if text.trim().is_empty() {
            return Err(none("an empty file".to_owned()));
        }
        if text.trim_start().get(..9).is_some_and(|start| start.eq_ignore_ascii_case("@relation")) {
            return Err(Error::format(name, "rows of values", "an ARFF file; save it as CSV"));
        }
        let Some((delimiter, quote)) = text::dialect(&text) else {
            return Err(none("lines of one column".to_owned()));
        };
        let mut rows = records(&text, name, delimiter, quote)?;
        let columns = rows.first().map_or(0, StringRecord::len);
        if columns > MAX_COLUMNS {
            let (what, limit) = ("columns", MAX_COLUMNS as u64);
            return Err(Error::TooLarge { path: name.to_owned(), what, limit, found: columns as u64 });
        }
        if let Some(row) = rows.iter().find(|row| row.len() != columns) {
            let (expected, found) = (columns, row.len());
            return Err(Error::Row { path: name.to_owned(), line: line(row), expected, found });
        }
        let decimal_comma = delimiter != b',' && has_decimal_commas(&rows);
        if decimal_comma {
            rows = rows.iter().map(with_points).collect();
        }
        let header = has_header(&rows);
        let names = match header {
            true => rows.remove(0).iter().enumerate().map(|(at, name)| named(name, at)).collect(),
            false => (0..columns).map(|at| format!("x{at}")).collect(),
        };
        if rows.is_empty() || columns < 2 {
            return Err(none(format!("{} rows of {columns} columns", rows.len())));
        }
        let [delimiter, quote] = [delimiter, quote].map(char::from);
        let format = TableFormat { encoding, delimiter, quote, header, decimal_comma };
        Ok(Self { path: name.to_owned(), format, names, rows })
    }

    /// Returns the file, as it was named.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns how the table is written.
    pub fn format(&self) -> &TableFormat {
        &self.format
    }

    /// Returns the names of the columns: the header's, or `x0`, `x1` and so on.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Gives the columns of a table without a header other names; without effect when they are not as many.
    #[must_use]
    pub(crate) fn with_names(mut self, names: &[&str]) -> Self {
        if !self.format.header && names.len() == self.names.len() {
            self.names = names.iter().map(|&name| name.to_owned()).collect();
        }
        self
    }

    /// Returns how many rows there are, the header aside.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns whether there are no rows (a table that was read has at least one).
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the value in a row and a column, both from 0; nothing beyond the last of them.
    pub fn cell(&self, row: usize, column: usize) -> &str {
        self.rows.get(row).and_then(|row| row.get(column)).unwrap_or("")
    }

    /// Returns the line of the file in which a row starts, from 1.
    pub fn line(&self, row: usize) -> u64 {
        self.rows.get(row).map_or(0, line)
    }

    /// An error about one cell.
    pub(super) fn cell_error(&self, row: usize, column: usize, expected: impl Into<String>) -> Error {
        Error::Cell {
            path: self.path.clone(),
            line: self.line(row),
            column: column + 1,
            name: self.names[column].clone(),
            expected: expected.into(),
            found: format!("`{}`", self.cell(row, column)),
        }
    }

    /// The column of that name, or of that number counted from 1.
    pub(super) fn column(&self, wanted: &str) -> Result<usize, Error> {
        let named = |alike: fn(&str, &str) -> bool| self.names.iter().position(|name| alike(name, wanted));
        let number = || wanted.parse().ok().filter(|at| (1..=self.names.len()).contains(at)).map(|at| at - 1);
        named(|a, b| a == b).or_else(|| named(str::eq_ignore_ascii_case)).or_else(number).ok_or_else(|| {
            let names = self.names.iter().enumerate();
            let found = names.map(|(at, name)| format!("{} `{name}`", at + 1)).collect();
            Error::Column { path: self.path.clone(), wanted: format!("`{wanted}`"), found }
        })
    }
}

/// Whether a value is missing.
pub(super) fn is_missing(cell: &str) -> bool {
    cell.is_empty() || MISSING.iter().any(|word| cell.eq_ignore_ascii_case(word))
}

/// A finite decimal number.
pub(super) fn number(cell: &str) -> Option<f32> {
    cell.parse().ok().filter(|value: &f32| value.is_finite())
}

fn line(row: &StringRecord) -> u64 {
    row.position().map_or(0, csv::Position::line)
}

fn records(text: &str, name: &Path, delimiter: u8, quote: u8) -> Result<Vec<StringRecord>, Error> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .quote(quote)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let mut rows = Vec::new();
    let mut lines = Lines { text: text.as_bytes(), at: 0, line: 1 };
    for row in reader.records() {
        let mut row = row.map_err(|error| Error::format(name, "a table of values", error.to_string()))?;
        if delimiter == b' ' {
            // Several spaces are one delimiter.
            row = rewritten(&row, |cell| (!cell.is_empty()).then(|| cell.to_owned()));
        }
        if let Some(mut position) = row.position().cloned() {
            position.set_line(lines.of(position.byte()));
            row.set_position(Some(position));
        }
        // Lines of delimiters alone hold no row.
        if row.iter().all(str::is_empty) {
            continue;
        }
        if rows.len() > MAX_ROWS {
            let (what, limit) = ("rows", MAX_ROWS as u64);
            return Err(Error::TooLarge { path: name.to_owned(), what, limit, found: limit + 1 });
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Counts lines up to the rows of a text, which come in order. The reader itself counts the line ends that it has taken,
/// and it takes that of a row, and empty lines, with the next row.
struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line of the first row at or after a byte.
    fn of(&mut self, byte: u64) -> u64 {
        let byte = usize::try_from(byte).unwrap_or(usize::MAX).min(self.text.len());
        let ends = |byte: &&u8| matches!(byte, b'\r' | b'\n');
        let start = byte + self.text[byte..].iter().take_while(ends).count();
        while self.at < start {
            let is_pair = self.text[self.at] == b'\r' && self.text.get(self.at + 1) == Some(&b'\n');
            self.line += u64::from(matches!(self.text[self.at], b'\r' | b'\n') && !is_pair);
            self.at += 1;
        }
        self.line
    }
}

/// The same row with other values, or without some.
fn rewritten(row: &StringRecord, change: impl Fn(&str) -> Option<String>) -> StringRecord {
    let mut changed: StringRecord = row.iter().filter_map(change).collect::<Vec<_>>().into();
    changed.set_position(row.position().cloned());
    changed
}

/// Whether some value is a number with a comma for its point, and none has a point.
fn has_decimal_commas(rows: &[StringRecord]) -> bool {
    let cells = || rows.iter().flat_map(StringRecord::iter);
    let is_decimal = |cell: &str, point: char| {
        cell.split_once(point).is_some_and(|(whole, part)| {
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits(whole.trim_start_matches(['-', '+'])) && digits(part)
        })
    };
    cells().any(|cell| is_decimal(cell, ',')) && !cells().any(|cell| is_decimal(cell, '.'))
}

fn with_points(row: &StringRecord) -> StringRecord {
    rewritten(row, |cell| {
        let point = cell.replacen(',', ".", 1);
        Some(if number(&point).is_some() { point } else { cell.to_owned() })
    })
}

fn named(name: &str, at: usize) -> String {
    if name.is_empty() { format!("x{at}") } else { name.to_owned() }
}

/// Whether the first row is not like the rest: no number in it, and a column of numbers under one of its words; or, in a
/// table without numbers, different words that do not occur below.
fn has_header(rows: &[StringRecord]) -> bool {
    let Some((first, rest)) = rows.split_first() else { return false };
    if rest.is_empty() || first.iter().any(|cell| number(cell).is_some()) {
        return false;
    }
    let column = |at: usize| rest.iter().map(move |row| &row[at]).filter(|cell| !is_missing(cell));
    let is_numeric = |at: usize| {
        let count = column(at).count();
        // A typing error below does not make a header a row.
        count > 0 && 10 * column(at).filter(|cell| number(cell).is_some()).count() >= 9 * count
    };
    if (0..first.len()).any(|at| !is_missing(&first[at]) && is_numeric(at)) {
        return true;
    }
    let mut words: Vec<&str> = first.iter().collect();
    words.sort_unstable();
    let are_different = words.windows(2).all(|pair| pair[0] != pair[1]);
    let is_new = |at: usize| column(at).all(|cell| cell != &first[at]);
    // Columns of a row's own names say nothing: in those the first row is new, too.
    let repeats = |at: usize| {
        let mut cells: Vec<&str> = column(at).collect();
        let count = cells.len();
        cells.sort_unstable();
        cells.dedup();
        2 * cells.len() <= count
    };
    let telling: Vec<usize> = (0..first.len()).filter(|&at| repeats(at)).collect();
    are_different && !telling.is_empty() && telling.into_iter().all(is_new)
}
