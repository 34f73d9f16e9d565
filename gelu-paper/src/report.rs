//! The report, made from the files of results alone.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use gelu_io::files::write_atomic;

use crate::machine::Machine;
use crate::output::note;
use crate::parts::Part;
use crate::picture::Picture;
use crate::results::{Figure, PartResult, Row, Table};

/// Writes `README.md` and the pictures of all results that a folder has.
pub(crate) fn write(folder: &Path) -> anyhow::Result<()> {
    let mut results = vec![];
    for part in Part::ALL {
        match PartResult::read(folder, part) {
            Ok(result) => results.extend(result),
            Err(error) => note(&format!("left out of the report: {error:#}")),
        }
    }
    for result in &results {
        for (number, picture) in result.findings.pictures.iter().enumerate() {
            let name = picture_name(result.part, number, picture);
            if let Some(svg) = picture.svg().with_context(|| name.clone())? {
                write_atomic(&folder.join(name), svg.as_bytes())?;
            }
        }
    }
    Ok(write_atomic(&folder.join("README.md"), text(&results).as_bytes())?)
}

fn picture_name(part: Part, number: usize, picture: &Picture) -> String {
    match picture {
        Picture::File { name } => name.clone(),
        Picture::Bars { .. } | Picture::Lines { .. } => format!("{}-{}.svg", part.name(), number + 1),
    }
}

fn text(results: &[PartResult]) -> String {
    let mut text = "# The GELU-Net paper, made anew\n\n\
        The tables and figures of *GELU-Net: A Globally Encrypted, Locally Unencrypted Deep Neural Network for Privacy-Preserved Learning* \
        (IJCAI 2018), measured on this machine by `gelu paper`, beside the paper's own figures. This page is made from the JSON \
        files in this folder, one for each part.\n\n\
        The paper's figures come from workstations with a 2.8 GHz Intel Core i7, from python-paillier with keys of an unstated \
        size and from SEAL with unstated parameters. A quotient of one of them and one of this machine's says how much faster or \
        slower the whole is, hardware of eight years included; only what ran on the same machine on the same day compares ways \
        to compute.\n"
        .to_owned();
    let mut machines: Vec<&Machine> = vec![];
    for result in results {
        if !machines.contains(&&result.conditions.machine) {
            machines.push(&result.conditions.machine);
        }
    }
    for result in results {
        let machine = machines.iter().position(|machine| **machine == result.conditions.machine);
        part(&mut text, result, &letter(machine.unwrap_or(0)));
    }
    text += "\n## Machines\n\n| | processor | threads | arithmetic of ours |\n|---|---|---|---|\n";
    for (number, machine) in machines.iter().enumerate() {
        let Machine { processor, threads, backend } = machine;
        line(&mut text, &[letter(number), processor.clone(), threads.to_string(), backend.clone()]);
    }
    text
}

/// A machine's letter.
fn letter(number: usize) -> String {
    u8::try_from(number)
        .ok()
        .filter(|&n| n < 26)
        .map_or_else(|| number.to_string(), |n| char::from(b'A' + n).into())
}

fn part(text: &mut String, result: &PartResult, machine: &str) {
    let PartResult { part, conditions, date, limit_ns: [before, after], seconds, findings } = result;
    // Writing to a String cannot fail.
    let _ = write!(text, "\n## {}\n\n", part.title());
    let mut commands: Vec<&str> = vec![];
    *text += "| | unit | paper | here | here / paper | command | machine | date |\n|---|---|---|---|---|---|---|---|\n";
    for row in &findings.rows {
        let Row { label, unit, paper, here, command } = row;
        let number = commands.iter().position(|known| known == command).unwrap_or_else(|| {
            commands.push(command);
            commands.len() - 1
        });
        let ratio = match (paper, here) {
            (Some(paper), Some(here)) if paper.value != 0.0 => digits(here.value / paper.value),
            _ => String::new(),
        };
        let cell = |figure: &Option<Figure>| figure.as_ref().map_or_else(|| "–".to_owned(), figure_text);
        let day = date.get(..10).unwrap_or(date).to_owned();
        let number = format!("[{}]", number + 1);
        line(
            text,
            &[label.clone(), unit.clone(), cell(paper), cell(here), ratio, number, machine.to_owned(), day],
        );
    }
    *text += "\nCommands:\n\n";
    for (number, command) in commands.iter().enumerate() {
        let _ = writeln!(text, "{}. `{command}`", number + 1);
    }
    let quick = if conditions.quick { ", with `--quick`" } else { "" };
    let _ = write!(
        text,
        "\nVersion {}{quick}; this part took {seconds:.0} s; limit_ns {before:.0} before and {after:.0} after it.\n",
        conditions.version
    );
    for (number, picture) in findings.pictures.iter().enumerate() {
        let _ = write!(text, "\n![{}]({})\n", part.title(), picture_name(*part, number, picture));
    }
    for Table { title, header, rows } in &findings.tables {
        let _ = write!(text, "\n{title}:\n\n");
        line(text, header);
        line(text, &vec!["---".to_owned(); header.len()]);
        rows.iter().for_each(|row| line(text, row));
    }
    if !findings.notes.is_empty() {
        *text += "\n";
    }
    for note in &findings.notes {
        let _ = writeln!(text, "- {note}");
    }
}

/// A line of a table.
fn line(text: &mut String, cells: &[String]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn figure_text(figure: &Figure) -> String {
    match figure.deviation {
        Some(deviation) => format!("{} ± {}", digits(figure.value), digits(deviation)),
        None => digits(figure.value),
    }
}

/// Four significant digits, without zeros at the end of a fraction.
pub(crate) fn digits(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let before = value.abs().log10().floor() as i32 + 1;
    let decimals = (4 - before).clamp(0, 12) as usize;
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::{Bar, Who};
    use crate::results::{Conditions, Findings};

    fn result() -> PartResult {
        let machine = Machine { processor: "P | Q".to_owned(), threads: 2, backend: "ifma".to_owned() };
        let conditions = Conditions {
            version: "0.1.0".to_owned(),
            quick: true,
            machine,
            data_sets: vec!["mnist".to_owned()],
        };
        let row = |paper: Option<Figure>, here: Option<Figure>| Row {
            label: "one image".to_owned(),
            unit: "s".to_owned(),
            paper,
            here,
            command: "gelu bench".to_owned(),
        };
        let bar = Bar { label: "ours".to_owned(), value: 0.1, who: Who::Ours };
        let findings = Findings {
            rows: vec![row(Some(Figure::with_deviation(85.5, 2.1)), Some(0.0171.into())), row(None, None)],
            tables: vec![Table {
                title: "Layers".into(),
                header: vec!["a".into()],
                rows: vec![vec!["1".into()]],
            }],
            pictures: vec![Picture::Bars { title: "Times".into(), unit: "s".into(), bars: vec![bar] }],
            notes: vec!["A note.".to_owned()],
        };
        let date = "2026-11-27T18:00:00Z".to_owned();
        PartResult { part: Part::Table4, conditions, date, limit_ns: [541.0, 542.0], seconds: 61.4, findings }
    }

    #[test]
    fn a_report_is_made_of_the_files() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(PartResult::read(folder.path(), Part::Table4).unwrap(), None);
        result().write(folder.path()).unwrap();
        assert_eq!(PartResult::read(folder.path(), Part::Table4).unwrap(), Some(result()));
        write(folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join("README.md")).unwrap();
        for line in [
            "| one image | s | 85.5 ± 2.1 | 0.0171 | 0.0002 | [1] | A | 2026-11-27 |",
            "| one image | s | – | – |  | [1] | A | 2026-11-27 |",
            "1. `gelu bench`",
            "Version 0.1.0, with `--quick`; this part took 61 s; limit_ns 541 before and 542 after it.",
            "| A | P \\| Q | 2 | ifma |",
            "- A note.",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n\n{text}");
        }
        let svg = std::fs::read_to_string(folder.path().join("table4-1.svg")).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("Times"));
        // What is no result is left out.
        std::fs::write(folder.path().join("table4.json"), "{}").unwrap();
        assert!(PartResult::read(folder.path(), Part::Table4).is_err());
        write(folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join("README.md")).unwrap();
        assert!(!text.contains("Table 4") && text.contains("# The GELU-Net paper"));
    }

    #[test]
    fn numbers_have_four_digits() {
        for (value, text) in [
            (0.0, "0"),
            (12345.6, "12346"),
            (85.5, "85.5"),
            (0.017_149, "0.01715"),
            (2.0, "2"),
            (-0.5, "-0.5"),
        ] {
            assert_eq!(digits(value), text);
        }
    }
}
