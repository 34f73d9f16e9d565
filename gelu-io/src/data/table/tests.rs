use proptest::prelude::*;

use super::*;

const NUMBERS: TableFormat = TableFormat { header: false, quote: b'"', columns: Columns::Numbers };

fn chess(encoding: Encoding) -> TableFormat {
    TableFormat { header: true, quote: b'\'', columns: Columns::Categories(encoding) }
}

fn parse(text: &str, format: &TableFormat) -> Result<Table, Error> {
    parse_table(text.as_bytes(), Path::new("t.csv"), format)
}

#[test]
fn numbers_with_a_named_class() {
    let table = parse("1,2.5,b\n3,-4e-1,a\n\n5,6,b\n", &NUMBERS).unwrap();
    assert_eq!((table.len(), table.features()), (3, 2));
    assert_eq!(table.values(), [1.0, 2.5, 3.0, -0.4, 5.0, 6.0]);
    assert_eq!(table.class_names(), ["a", "b"]);
    assert_eq!(table.labels(), [1, 0, 1]);
    assert_eq!(table.feature_names(), ["x0", "x1"]);
    assert_eq!(table.iter().nth(1).unwrap(), (&[3.0, -0.4][..], 0));
}

#[test]
fn categories_in_quotes_under_a_header() {
    let text = "p,q,class\n'f','n','won'\n't','g','nowin'\n't','w','won'\n";
    let table = parse(text, &chess(Encoding::Ordinal)).unwrap();
    assert_eq!(table.feature_names(), ["p", "q"]);
    assert_eq!(table.values(), [0.0, 1.0, 1.0, 0.0, 1.0, 2.0]);
    assert_eq!(table.labels(), [1, 0, 1]);
    let table = parse(text, &chess(Encoding::OneHot)).unwrap();
    assert_eq!(table.feature_names(), ["p=f", "p=t", "q=g", "q=n", "q=w"]);
    assert_eq!(table.iter().next().unwrap().0, [1.0, 0.0, 0.0, 1.0, 0.0]);
}

#[test]
fn errors_name_line_and_column() {
    let message = |text| parse(text, &NUMBERS).unwrap_err().to_string();
    assert_eq!(message("1,2,a\n1,x,a\n"), "t.csv: expected a finite number in line 2, column 2, found `x`");
    assert!(message("1,nan,a\n").contains("`nan`"));
    assert!(message("1,1e99,a\n").contains("`1e99`"));
    assert!(message("1,2,\n").contains("expected a category in line 1, column 3"));
    assert!(message("1,2,a\n1,a\n").contains("CSV table"));
    assert!(message("").contains("found 0 rows"));
    assert!(message("a\nb\n").contains("of 1 columns"));
    let classes: String = (0..257).map(|i| format!("1,c{i}\n")).collect();
    assert!(message(&classes).contains("found 257 in column 2"));
    assert!(parse_table(&[b'1', b',', 0xff], Path::new("t.csv"), &NUMBERS).is_err());
}

proptest! {
    #[test]
    fn any_text_is_a_table_or_an_error(text in "[0-9a-e.,'\n\"-]{0,200}", header: bool) {
        for columns in [Columns::Numbers, Columns::Categories(Encoding::OneHot)] {
            if let Ok(table) = parse(&text, &TableFormat { header, quote: b'\'', columns }) {
                prop_assert_eq!(table.values().len(), table.len() * table.features());
                prop_assert!(table.labels().iter().all(|&label| usize::from(label) < table.class_names().len()));
            }
        }
    }
}
