use proptest::prelude::*;

use super::*;

fn parsed(text: &str) -> Result<Table, Error> {
    Table::parse(text.as_bytes(), Path::new("test-table"))
}

fn table(text: &str) -> Table {
    parsed(text).unwrap()
}

#[test]
fn headers_are_told_from_rows() {
    for (text, header) in [
        ("a,b,class\n1,2,red\n3,4,blue\n", true),
        ("1,2,red\n3,4,blue\n", false),
        ("red,1.5\ngreen,2.5\n", false),
        ("age,?\n1,2\n3,4\n", true),
        // Words only: different names that do not occur below.
        ("cap,gill,class\nx,y,won\nx,z,lost\nw,y,won\nx,y,won\n", true),
        ("f,t,won\nt,t,lost\nf,f,won\nt,f,lost\n", false),
        ("'f','t','won'\n't','f','lost'\n'f','f','won'\n't','t','lost'\n", false),
        // A year is a number, so the row above is no header.
        ("2019,2020\n1,2\n", false),
        ("a,b\n", false),
    ] {
        match parsed(text) {
            Ok(table) => assert_eq!(table.format().header, header, "{text:?}"),
            Err(error) => panic!("{text:?}: {error}"),
        }
    }
    assert_eq!(table("1,2\n3,4\n").names(), ["x0", "x1"]);
    assert_eq!(table("a,\n3,4\n").names(), ["a", "x1"]);
}

#[test]
fn spaces_quotes_and_decimal_commas_are_read() {
    let spaces = table("  5.1   3.5 red\n\n6.2  2.9 green \n");
    assert_eq!((spaces.len(), spaces.cell(1, 2), spaces.line(1)), (2, "green", 3));
    let quoted = table("\"a, b\",1\n\"c \"\"d\"\"\",2\n");
    assert_eq!((quoted.cell(0, 0), quoted.cell(1, 0)), ("a, b", "c \"d\""));
    let commas = table("5,5;red\n-6,25;a,b\n");
    assert!(commas.format().decimal_comma);
    assert_eq!((commas.cell(0, 0), commas.cell(1, 0), commas.cell(1, 1)), ("5.5", "-6.25", "a,b"));
    assert!(!table("5.5;1,5\n6;7\n").format().decimal_comma);
}

#[test]
fn lines_are_those_of_an_editor() {
    for (text, expected) in [
        ("1,2\r\n3,4\r\n\r\n5,6\r\n", [1, 2, 4]),
        ("\n1,2\n3,4\n5,6", [2, 3, 4]),
        ("1,2\r3,4\r5,6\r", [1, 2, 3]),
        ("1,2\n\"3\n\",4\n5,6\n", [1, 2, 4]),
    ] {
        let table = table(text);
        assert_eq!([0, 1, 2].map(|row| table.line(row)), expected, "{text:?}");
    }
}

#[test]
fn gzip_is_unpacked() {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(b"1,2\n3,4\n").unwrap();
    let packed = encoder.finish().unwrap();
    assert_eq!(Table::parse(&packed, Path::new("x")).unwrap().len(), 2);
}

#[test]
fn what_is_no_table_is_named() {
    let said = |text: &str| parsed(text).unwrap_err().to_string();
    assert_eq!(said("1,2,3\n4,5\n"), "test-table: line 2: expected 3 columns, as in the first line, found 2");
    assert!(said("").contains("an empty file"));
    assert!(said("one\ntwo\n").contains("lines of one column"));
    assert!(said("@relation iris\n@data\n1,2\n").contains("ARFF"));
    assert!(parsed(&"1,".repeat(20_000)).is_err());
}

#[test]
fn columns_are_found_by_name_or_number() {
    let table = table("Age,Sex\n1,2\n");
    let found = ["Age", "sex", "1", "2"].map(|wanted| table.column(wanted).unwrap());
    assert_eq!(found, [0, 1, 0, 1]);
    for wanted in ["3", "0", "-1", "height"] {
        assert!(table.column(wanted).is_err(), "{wanted}");
    }
}

#[test]
fn missing_values_are_known_in_every_spelling() {
    assert!(["", "?", "NA", "n/a", "NaN", "nan", "null", "NULL"].into_iter().all(is_missing));
    assert!(!["0", "none", "-", "Nan Goldin"].into_iter().any(is_missing));
    assert_eq!(number("1e3"), Some(1000.0));
    assert_eq!([number("inf"), number("1e99"), number("NaN"), number("1,5")], [None; 4]);
}

proptest! {
    #[test]
    fn any_bytes_are_taken_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Table::parse(&bytes, Path::new("x"));
    }

    #[test]
    fn any_text_of_rows_is_taken_without_a_panic(text in "[0-9a,;'\"?. \n\t-]{0,200}") {
        if let Ok(table) = parsed(&text) {
            let columns = table.names().len();
            prop_assert!(columns >= 2 && !table.is_empty());
            for row in 0..table.len() {
                prop_assert!(table.line(row) >= 1);
                let _ = table.cell(row, columns);
            }
        }
    }
}
