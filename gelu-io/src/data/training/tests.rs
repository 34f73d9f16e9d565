use gelu_models::{Column, ColumnValues};
use proptest::prelude::*;

use super::*;

fn set(text: &str, missing: Missing) -> DataSet {
    DataSet::from_table(Table::parse(text.as_bytes(), Path::new("test-table")).unwrap(), None, missing)
}

/// Rows of one number each, of class `a` up to `a` of them and `b` for the rest.
fn numbered(rows: usize, a: usize) -> String {
    (0..rows).map(|i| format!("{i},{}\n", if i < a { "a" } else { "b" })).collect()
}

#[test]
fn a_table_is_divided_by_class_and_measured_on_its_training_part() {
    let data = set(&numbered(50, 10), Missing::Refuse).training(0.2, 3).unwrap();
    assert_eq!((data.train.len(), data.test.len()), (40, 10));
    assert_eq!(data.test.labels().iter().filter(|&&label| label == 0).count(), 2);
    assert_eq!((data.classes, data.label.as_deref()), (vec!["a".to_owned(), "b".to_owned()], Some("x1")));
    let column = data.train.inputs().column(0).to_owned();
    let mean = column.mean().unwrap();
    assert!(mean.abs() < 1e-6 && (column.std(0.0) - 1.0).abs() < 1e-5, "{mean}");
    let Preprocessing::Columns(columns) = data.preprocessing else { panic!("no columns") };
    let ColumnValues::Number { mean, std, missing: None } = columns[0].values else { panic!("{columns:?}") };
    // The raw numbers 0 to 49 come back.
    let mut raw: Vec<i64> = [&data.train, &data.test]
        .iter()
        .flat_map(|part| part.inputs().iter().map(|x| (x * std + mean).round() as i64).collect::<Vec<_>>())
        .collect();
    raw.sort_unstable();
    assert_eq!(raw, (0..50).collect::<Vec<_>>());
}

#[test]
fn too_little_to_train_on_is_said() {
    let said = |text: &str| set(text, Missing::Refuse).training(0.2, 0).unwrap_err().to_string();
    assert!(said("1,red\n2,green\n").contains("examples to test with, found none beside 2"));
    assert!(said(&numbered(20, 20)).contains("two classes at least to train with, found only `a`"));
    let real: String = (0..40).map(|i| format!("{i},{}.5\n", i * 3)).collect();
    assert!(said(&real).contains("line 1, column 2 (`x1`): expected the name of a class, found 0.5"));
    let missing = said(&numbered(20, 10).replace("\n4,", "\n?,"));
    assert!(missing.contains("line 5, column 1 (`x0`): expected a value, found `?`"), "{missing}");
}

#[test]
fn missing_values_are_dropped_or_filled() {
    let text = numbered(40, 20).replace("\n4,", "\n?,").replace("\n30,", "\nNA,");
    let dropped = set(&text, Missing::Drop).training(0.25, 0).unwrap();
    assert_eq!(dropped.train.len() + dropped.test.len(), 38);
    assert!(
        dropped.notes.iter().any(|note| note.contains("2 of 40 rows lack a value")),
        "{:?}",
        dropped.notes
    );
    let filled = set(&text, Missing::Value("0".to_owned())).training(0.25, 0).unwrap();
    assert_eq!(filled.train.len() + filled.test.len(), 40);
    let Preprocessing::Columns(columns) = filled.preprocessing else { panic!("no columns") };
    let [Column { values: ColumnValues::Number { missing, .. }, .. }] = &columns[..] else {
        panic!("{columns:?}")
    };
    assert_eq!(*missing, Some(0.0));
}

#[test]
fn a_table_of_its_own_tests() {
    let train = set("size,kind,class\n1,x,a\n3,y,b\n1,x,a\n3,y,b\n", Missing::Refuse);
    // Columns in another order, found by name.
    let test = set("class,size,kind\na,5,y\nb,2,x\n", Missing::Refuse);
    let data = train.clone().with_test(test).unwrap().training(0.2, 0).unwrap();
    assert_eq!((data.train.len(), data.test.labels()), (4, &[0, 1][..]));
    assert_eq!(data.test.inputs().row(0).to_vec(), [3.0, 0.0, 1.0]);
    let said = |text: &str| {
        let set = train.clone().with_test(set(text, Missing::Refuse)).unwrap();
        set.training(0.2, 0).unwrap_err().to_string()
    };
    assert!(said("size,kind,class\n1,z,a\n").contains("line 2, column 2 (`kind`): expected one of `x`, `y`"));
    assert!(
        said("size,kind,class\n1,x,c\n").contains("line 2, column 3 (`class`): expected one of the classes")
    );
    assert!(said("size,class\n1,a\n").contains("expected a column `kind`, found size, class"));
}

fn images(role: Role, labels: &[usize]) -> Part {
    let pixels = labels.iter().flat_map(|&label| [label as u8 * 100; 4]).collect();
    let inputs = Inputs::Pixels(super::super::Images::new([2, 2], pixels).unwrap());
    Part { role, inputs, labels: Some(labels.to_vec()), names: vec![] }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|class| format!("kind-{class}")).collect()
}

#[test]
fn images_keep_their_parts_and_say_how_they_are_prepared() {
    let parts =
        vec![images(Role::Train, &[0, 1, 0]), images(Role::Validation, &[1]), images(Role::Test, &[1])];
    let set = DataSet::new(Path::new("x"), "images", parts, names(2)).unwrap().with_digits(true);
    let data = set.training(0.2, 0).unwrap();
    assert_eq!((data.train.len(), data.test.len()), (3, 1));
    assert_eq!(data.train.inputs()[[1, 0]], 100.0 / 255.0);
    assert!(matches!(data.preprocessing, Preprocessing::Pixels(PixelFormat { digits: true, .. })));
    let whole =
        DataSet::new(Path::new("x"), "images", vec![images(Role::All, &[0, 1, 0, 1, 0])], names(2)).unwrap();
    assert_eq!(whole.training(0.4, 0).unwrap().test.len(), 2);
}

#[test]
fn parts_must_fit_together() {
    let said = |parts: Vec<Part>, classes: usize| {
        DataSet::new(Path::new("x"), "images", parts, names(classes)).unwrap_err().to_string()
    };
    assert!(said(vec![], 2).contains("found none"));
    assert!(said(vec![images(Role::Train, &[]), images(Role::Test, &[0])], 1).contains("0 inputs"));
    assert!(said(vec![images(Role::All, &[2])], 2).contains("below 2"));
    assert!(said(vec![images(Role::All, &[0]), images(Role::All, &[0])], 2).contains("two"));
    let mut short = images(Role::All, &[0, 1]);
    short.labels = Some(vec![0]);
    assert!(said(vec![short], 2).contains("expected 2 all labels"));
}

proptest! {
    #[test]
    fn any_small_table_trains_or_says_why(text in "([0-9a-c?]{0,2},[0-9a-c.?]{0,3},[xy01]{1}\n){1,30}") {
        if let Ok(table) = Table::parse(text.as_bytes(), Path::new("x")) {
            for missing in [Missing::Refuse, Missing::Drop, Missing::Mean, Missing::Value("0".to_owned())] {
                let set = DataSet::from_table(table.clone(), None, missing);
                if let Ok(data) = set.training(0.2, 1) {
                    prop_assert!(!data.test.is_empty());
                    prop_assert_eq!(data.train.shape().elements(), data.test.shape().elements());
                }
                let _ = set.summary(0.2);
            }
        }
    }
}
