//! Which columns of a table are features and which is the label, which rows count, and what the labels are.

use std::collections::{BTreeMap, BTreeSet};

use super::table::{Table, is_missing, number};
use crate::Error;

/// The most classes.
pub(super) const MAX_CLASSES: usize = 1000;
/// So many different numbers can be classes, whatever the number of rows.
const FEW_NUMBERS: usize = 20;
/// Words of a column's name that say that it holds the labels.
const LABEL_WORDS: [&str; 5] = ["label", "labels", "class", "classes", "target"];

/// What is done about missing values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// They are an error.
    #[default]
    Refuse,
    /// Rows that lack a value are left out.
    Drop,
    /// The mean of the column over the training part stands in their place; in a column of words, none of the words.
    Mean,
    /// This value stands in their place.
    Value(String),
}

/// The column of labels, and how it was found, for people.
pub(super) struct Label {
    pub(super) column: usize,
    pub(super) reason: String,
}

/// Chooses the column of labels: `wanted` by name or by number from 1; else one that the header names so; else the last,
/// or the only column of text where the last holds measurements.
pub(super) fn label_of(table: &Table, wanted: Option<&str>) -> Result<Label, Error> {
    let said = |column: usize, why: &str| {
        let reason = format!("labels: column {} (`{}`), {why}", column + 1, table.names()[column]);
        Label { column, reason }
    };
    if let Some(wanted) = wanted {
        return Ok(said(table.column(wanted)?, "as asked for"));
    }
    if let Some(column) = named_label(table) {
        return Ok(said(column, "as the header says"));
    }
    let last = table.names().len() - 1;
    let rows: Vec<usize> = (0..table.len()).collect();
    if target(table, &rows, last).is_some() || !could_be_classes(table, last) {
        let is_text = |column: &usize| {
            let cells = (0..table.len()).map(|row| table.cell(row, *column));
            cells.filter(|cell| !is_missing(cell)).all(|cell| number(cell).is_none())
        };
        let texts: Vec<usize> = (0..last).filter(is_text).collect();
        if let [column] = texts[..] {
            return Ok(said(column, "the only one of text"));
        }
    }
    Ok(said(last, "the last one"))
}

/// Whether numbers could stand for classes: whole ones, and more than one. Words could.
fn could_be_classes(table: &Table, column: usize) -> bool {
    let cells = (0..table.len()).map(|row| table.cell(row, column)).filter(|cell| !is_missing(cell));
    let Some(numbers) = cells.map(number).collect::<Option<Vec<_>>>() else { return true };
    let differ = numbers.windows(2).any(|pair| pair[0] != pair[1]);
    differ && numbers.iter().all(|number| number.fract() == 0.0)
}

/// The column that the header calls the label.
pub(super) fn named_label(table: &Table) -> Option<usize> {
    if !table.format().header {
        return None;
    }
    let words = |name: &String| -> Vec<String> {
        name.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase).collect()
    };
    let is_label = |word: &String| LABEL_WORDS.contains(&word.as_str());
    let find = |test: &dyn Fn(&[String]) -> bool| table.names().iter().rposition(|name| test(&words(name)));
    find(&|words| words.len() == 1 && words.iter().all(is_label))
        .or_else(|| find(&|words| words.iter().any(is_label)))
}

/// The rows that count: all, or those that lack no value in `columns`.
pub(super) fn kept(table: &Table, columns: &[usize], missing: &Missing) -> Result<Vec<usize>, Error> {
    let lacking = |row: &usize| columns.iter().any(|&column| is_missing(table.cell(*row, column)));
    match missing {
        Missing::Mean | Missing::Value(_) => Ok((0..table.len()).collect()),
        Missing::Drop => {
            let kept: Vec<usize> = (0..table.len()).filter(|row| !lacking(row)).collect();
            if kept.is_empty() {
                return Err(Error::TooFew {
                    path: table.path().to_owned(),
                    expected: "rows that lack no value",
                    found: format!("none of {}", table.len()),
                });
            }
            Ok(kept)
        }
        Missing::Refuse => match (0..table.len()).find(lacking) {
            None => Ok((0..table.len()).collect()),
            Some(row) => Err(missing_value(table, row, columns)),
        },
    }
}

/// The error about the first of the values that `row` lacks.
pub(super) fn missing_value(table: &Table, row: usize, columns: &[usize]) -> Error {
    let missing = |row: usize| columns.iter().filter(move |&&column| is_missing(table.cell(row, column)));
    let column = missing(row).next().copied().unwrap_or(0);
    Error::MissingValue {
        path: table.path().to_owned(),
        line: table.line(row),
        column: column + 1,
        name: table.names()[column].clone(),
        found: table.cell(row, column).to_owned(),
        count: (0..table.len()).map(|row| missing(row).count()).sum(),
    }
}

/// A label as classes are named: whole numbers without a point.
pub(super) fn class_name(cell: &str) -> String {
    match cell.parse::<f64>() {
        Ok(value) if value.fract() == 0.0 && value.abs() < 1e15 => format!("{value:.0}").replace("-0", "0"),
        _ => cell.to_owned(),
    }
}

/// The classes in the column `label`, and how many rows each has: numbers in their order, or names in theirs.
pub(super) fn classes(table: &Table, rows: &[usize], label: usize) -> Result<Vec<(String, usize)>, Error> {
    if let Some(&row) = rows.iter().find(|&&row| is_missing(table.cell(row, label))) {
        return Err(missing_value(table, row, &[label]));
    }
    if let Some(error) = target(table, rows, label) {
        return Err(error);
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    rows.iter().for_each(|&row| *counts.entry(class_name(table.cell(row, label))).or_default() += 1);
    if counts.len() > MAX_CLASSES {
        let (what, limit) = ("classes in the column of labels", MAX_CLASSES as u64);
        return Err(Error::TooLarge {
            path: table.path().to_owned(),
            what,
            limit,
            found: counts.len() as u64,
        });
    }
    let mut classes: Vec<(String, usize)> = counts.into_iter().collect();
    let value = |name: &str| name.parse::<f64>().ok().filter(|value| value.is_finite());
    if classes.iter().all(|(name, _)| value(name).is_some()) {
        classes.sort_by(|(a, _), (b, _)| value(a).unwrap_or(0.0).total_cmp(&value(b).unwrap_or(0.0)));
    }
    Ok(classes)
}

/// The error about a column of measurements: all numbers, and many different ones.
fn target(table: &Table, rows: &[usize], column: usize) -> Option<Error> {
    let mut distinct: BTreeSet<u32> = BTreeSet::new();
    let (mut count, mut fraction) = (0, None);
    for &row in rows {
        let cell = table.cell(row, column);
        if is_missing(cell) {
            continue;
        }
        let value = number(cell)?;
        if value.fract() != 0.0 && fraction.is_none() {
            fraction = Some(row);
        }
        count += 1;
        distinct.insert(value.to_bits());
    }
    let distinct = distinct.len();
    let many = distinct > FEW_NUMBERS && 2 * distinct > count;
    let example = match fraction {
        // Grades such as 1.5 may be classes when there are few.
        Some(row) if distinct > FEW_NUMBERS / 2 => row,
        _ if many => *rows.first()?,
        _ => return None,
    };
    Some(Error::Target {
        path: table.path().to_owned(),
        line: table.line(example),
        column: column + 1,
        name: table.names()[column].clone(),
        found: table.cell(example, column).to_owned(),
        distinct,
        rows: count,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn table(text: &str) -> Table {
        Table::parse(text.as_bytes(), Path::new("test-table")).unwrap()
    }

    fn label(text: &str, wanted: Option<&str>) -> usize {
        label_of(&table(text), wanted).unwrap().column
    }

    /// Rows of two measurements, after `before` and before `behind`.
    fn measured(before: &str, behind: &str) -> String {
        (0..40).map(|i| format!("{before}{}.25,{i}.5{behind}\n", i % 7)).collect()
    }

    #[test]
    fn the_label_is_what_is_asked_for_or_named_or_last_or_the_only_text() {
        assert_eq!(label("a,b,c\n1,2,3\n4,5,6\n", None), 2);
        assert_eq!(label("Class,b,c\n1,2,3\n4,5,6\n", None), 0);
        assert_eq!(label("a,income_class,pclass\n1,2,3\n4,5,6\n", None), 1);
        assert_eq!(label("class,b,c\n1,2,3\n4,5,6\n", Some("B")), 1);
        assert_eq!(label("1,2,3\n4,5,6\n", Some("1")), 0);
        assert_eq!(label("1,2,3\n4,5,6\n", Some("x1")), 1);
        assert_eq!(label(&measured("red,", ""), None), 0);
        assert_eq!(label(&measured("red,blue,", ""), None), 3);
        assert_eq!(label(&measured("", ",red"), None), 2);
        let error = label_of(&table("a,b\n1,2\n"), Some("c")).err().unwrap().to_string();
        assert_eq!(error, "test-table: expected a column `c`, found 1 `a`, 2 `b`");
    }

    #[test]
    fn measurements_are_no_classes() {
        let measured = table(&measured("", ""));
        let error = classes(&measured, &(0..40).collect::<Vec<_>>(), 1).unwrap_err();
        assert!(matches!(error, Error::Target { line: 1, column: 2, distinct: 40, .. }), "{error}");
        let whole = table(&(0..50).map(|i| format!("a,{}\n", i * i)).collect::<String>());
        assert!(classes(&whole, &(0..50).collect::<Vec<_>>(), 1).is_err());
        let grades = table("1,1.5\n2,1.0\n3,2\n4,1.5\n");
        let named = classes(&grades, &[0, 1, 2, 3], 1).unwrap();
        assert_eq!(named, [("1".to_owned(), 1), ("1.5".to_owned(), 2), ("2".to_owned(), 1)]);
    }

    #[test]
    fn numbers_are_sorted_as_numbers_and_names_as_names() {
        let numbers = table("a,10\nb,9\nc,10.0\nd,-1\n");
        let names: Vec<String> =
            classes(&numbers, &[0, 1, 2, 3], 1).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["-1", "9", "10"]);
        let words = table("1,b\n2,a\n3,b\n");
        assert_eq!(classes(&words, &[0, 1, 2], 1).unwrap(), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
    }

    #[test]
    fn missing_values_are_refused_by_line_and_column_or_dropped() {
        let table = table("1,2,a\n?,3,b\n4,NaN,a\n5,6,b\n");
        let error = kept(&table, &[0, 1, 2], &Missing::Refuse).unwrap_err();
        assert!(
            matches!(&error, Error::MissingValue { line: 2, column: 1, count: 2, found, .. } if found == "?"),
            "{error}"
        );
        assert_eq!(kept(&table, &[0, 1, 2], &Missing::Drop).unwrap(), [0, 3]);
        assert_eq!(kept(&table, &[2], &Missing::Refuse).unwrap(), [0, 1, 2, 3]);
        assert_eq!(kept(&table, &[0], &Missing::Mean).unwrap().len(), 4);
    }
}
