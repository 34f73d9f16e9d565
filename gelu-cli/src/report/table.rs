use std::fmt;

/// A table of text with aligned columns. Columns of numbers stand to the right, others to the left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TextTable {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl TextTable {
    /// A table with these column heads.
    pub(crate) fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Self {
        Self { header: header.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row; cells that are missing are empty, cells without a head are dropped.
    pub(crate) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) -> &mut Self {
        let mut cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        cells.resize(self.header.len(), String::new());
        self.rows.push(cells);
        self
    }

    /// A column is one of numbers when all its cells start as numbers do.
    fn is_numeric(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().map(|row| &row[column]).filter(|cell| !cell.is_empty()).peekable();
        let number = |cell: &String| {
            let digits = cell.trim_start_matches(['-', '+', '~', '<', '>', ' ']);
            digits.starts_with(|c: char| c.is_ascii_digit())
        };
        cells.peek().is_some() && cells.all(number)
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| &row[column]);
        cells.chain([&self.header[column]]).map(|cell| cell.chars().count()).max().unwrap_or(0)
    }
}

/// One line a row, without spaces at the ends of lines.
impl fmt::Display for TextTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<(usize, bool)> =
            (0..self.header.len()).map(|column| (self.width(column), self.is_numeric(column))).collect();
        let rule: Vec<String> = columns.iter().map(|&(width, _)| "-".repeat(width)).collect();
        for row in [&self.header, &rule].into_iter().chain(&self.rows) {
            let cells = row.iter().zip(&columns).map(|(cell, &(width, numeric))| {
                if numeric { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_by_what_they_hold() {
        let mut table = TextTable::new(["name", "count", "note"]);
        table
            .row(["a", "1", "è"])
            .row(["long name", "-1,000", ""])
            .row(["b"])
            .row(["c", "7", "x", "dropped"]);
        let expected = "\
name        count  note
---------  ------  ----
a               1  è
long name  -1,000
b
c               7  x
";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn a_table_may_be_empty() {
        assert_eq!(TextTable::new(["a"]).to_string(), "a\n-\n");
        assert_eq!(TextTable::new([] as [&str; 0]).to_string(), "\n\n");
    }
}
