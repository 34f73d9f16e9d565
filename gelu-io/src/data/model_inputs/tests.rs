use std::path::Path;

use gelu_models::{ColumnValues, Normalization};
use ndarray::array;

use super::super::{Images, Missing, Role};
use super::*;

fn set(text: &str) -> DataSet {
    let table = Table::parse(text.as_bytes(), Path::new("test-table")).unwrap();
    DataSet::from_table(table, None, Missing::Refuse)
}

/// What a model knows that was trained on `text`.
fn trained(text: &str) -> ModelInfo {
    let data = set(text).training(0.25, 0).unwrap();
    ModelInfo {
        preprocessing: Some(data.preprocessing),
        classes: data.classes,
        provenance: data.label.map(|label| (LABEL.to_owned(), label)).into_iter().collect(),
    }
}

/// A model of the columns `size` (mean 2, deviation 1) and `kind` (x, y), and of the classes `a` and `b`.
fn info() -> ModelInfo {
    let size = ColumnValues::Number { mean: 2.0, std: 1.0, missing: None };
    let kind = ColumnValues::Category(vec!["x".to_owned(), "y".to_owned()]);
    ModelInfo {
        preprocessing: Some(Preprocessing::Columns(vec![
            Column { name: "size".to_owned(), values: size },
            Column { name: "kind".to_owned(), values: kind },
        ])),
        classes: vec!["a".to_owned(), "b".to_owned()],
        provenance: Default::default(),
    }
}

fn read(text: &str) -> Result<ModelInputs, Error> {
    set(text).for_model(&info(), &Shape::from([3]), 2)
}

#[test]
fn columns_are_found_by_name_and_encoded_as_the_models_own() {
    let inputs = read("note,kind,class,size\nq,y,b,5\nr,x,a,2\n").unwrap();
    assert_eq!(inputs.inputs, array![[3.0, 0.0, 1.0], [0.0, 1.0, 0.0]]);
    assert_eq!(
        (inputs.labels, inputs.names),
        (vec![Some(1), Some(0)], vec!["line 2".to_owned(), "line 3".to_owned()])
    );
}

#[test]
fn rows_need_no_label() {
    let bare = read("kind,size\ny,5\nx,2\n").unwrap();
    assert_eq!(bare.labels, [None, None]);
    // Without a header, places count.
    let places = read("5,y\n2,x\n").unwrap();
    assert_eq!((&places.inputs, &places.labels), (&bare.inputs, &bare.labels));
    assert_eq!(read("5,y,b\n2,x,a\n").unwrap().labels, [Some(1), Some(0)]);
    assert_eq!(read("size,kind,class\n5,y,?\n2,x,a\n").unwrap().labels, [None, Some(0)]);
}

#[test]
fn what_the_model_does_not_know_is_named() {
    let said = |text: &str| read(text).unwrap_err().to_string();
    assert!(
        said("size,kind\n5,y\n2,z\n3,y\n")
            .contains("line 3, column 2 (`kind`): expected one of `x`, `y`, found `z`")
    );
    assert!(said("size,sort\n5,y\n2,x\n").contains("expected a column `kind`, found size, sort"));
    assert!(said("size,kind\n5,y\n?,x\n").contains("line 3, column 1 (`size`): expected a value, found `?`"));
    assert!(said("size,kind,class\n5,y,c\n2,x,a\n").contains("line 2, column 3 (`class`)"));
    assert!(said("5,y,1,2\n2,x,1,2\n").contains("expected 2 columns"));
}

#[test]
fn a_label_in_front_stays_in_front() {
    let rows: String = (0..40).map(|i| format!("{},{i}.5,{}.25\n", ["red", "blue"][i % 2], i * 2)).collect();
    let info = trained(&rows);
    let inputs = set("red,1,2\nblue,3,4\nred,5,6\n").for_model(&info, &Shape::from([2]), 2).unwrap();
    assert_eq!(inputs.labels, [Some(1), Some(0), Some(1)]);
    let unlabelled = set("1,2\n3,4\n").for_model(&info, &Shape::from([2]), 2).unwrap();
    assert_eq!(unlabelled.labels, [None, None]);
    assert_eq!(unlabelled.inputs.row(0), inputs.inputs.row(0));
}

#[test]
fn the_rows_held_out_are_those_of_training() {
    let rows: String = (0..40).map(|i| format!("{i},{}\n", ["red", "blue"][i % 2])).collect();
    let data = set(&rows).training(0.25, 7).unwrap();
    let parts = set(&rows).divided_for_model(&trained_with(&data), &Shape::from([1]), 2, 0.25, 7).unwrap();
    for (found, expected) in parts.iter().zip([&data.train, &data.test]) {
        assert_eq!(found.inputs, expected.inputs());
        assert_eq!(found.labels, expected.labels().iter().map(|&label| Some(label)).collect::<Vec<_>>());
    }
}

#[test]
fn settings_are_chosen_by_the_validation_part_or_else_the_training_part() {
    let part = |role: Role, label: usize| Part {
        role,
        inputs: Inputs::Pixels(Images::new([1, 1], vec![0]).unwrap()),
        labels: Some(vec![label]),
        names: vec![],
    };
    let divided = |parts: Vec<Part>| {
        let classes = ["a", "b", "c"].map(str::to_owned).to_vec();
        let set = DataSet::new(Path::new("x"), "images", parts, classes).unwrap();
        let info = ModelInfo::default();
        set.divided_for_model(&info, &Shape::from([1, 1, 1]), 3, 0.2, 0).unwrap().map(|part| part.labels)
    };
    let [train, validation, test] =
        [(Role::Train, 0), (Role::Validation, 1), (Role::Test, 2)].map(|(role, label)| part(role, label));
    assert_eq!(divided(vec![train.clone(), validation, test.clone()]), [[Some(1)], [Some(2)]]);
    assert_eq!(divided(vec![train, test]), [[Some(0)], [Some(2)]]);
}

#[test]
fn a_table_to_test_with_is_not_chosen_by() {
    let rows = |count: usize| -> String {
        (0..count).map(|i| format!("{i},{}\n", ["red", "blue"][i % 2])).collect()
    };
    let data = set(&rows(12)).training(0.25, 0).unwrap();
    let both = set(&rows(12)).with_test(set(&rows(5))).unwrap();
    let [chosen_by, test] =
        both.divided_for_model(&trained_with(&data), &Shape::from([1]), 2, 0.25, 0).unwrap();
    assert_eq!((chosen_by.names.len(), test.names.len()), (12, 5));
}

fn trained_with(data: &super::super::TrainingData) -> ModelInfo {
    ModelInfo {
        preprocessing: Some(data.preprocessing.clone()),
        classes: data.classes.clone(),
        ..ModelInfo::default()
    }
}

fn pictures(labels: &[usize], classes: &[&str]) -> DataSet {
    let inputs = Inputs::Pixels(Images::new([1, 2], vec![51; 2 * labels.len()]).unwrap());
    let part = Part { role: Role::All, inputs, labels: Some(labels.to_vec()), names: vec![] };
    DataSet::new(
        Path::new("x"),
        "images",
        vec![part],
        classes.iter().map(|&class| class.to_owned()).collect(),
    )
    .unwrap()
}

#[test]
fn pictures_are_normalized_and_classes_matched_by_name() {
    let format = PixelFormat {
        normalization: Some(Normalization { mean: vec![0.1], std: vec![0.5] }),
        ..PixelFormat::default()
    };
    let info = ModelInfo {
        preprocessing: Some(Preprocessing::Pixels(format)),
        classes: ["cat", "dog", "cow"].map(str::to_owned).to_vec(),
        ..ModelInfo::default()
    };
    let shape = Shape::from([1, 1, 2]);
    let inputs = pictures(&[0, 1], &["cow", "cat"]).for_model(&info, &shape, 3).unwrap();
    assert_eq!(inputs.labels, [Some(2), Some(0)]);
    assert!((inputs.inputs[[0, 1]] - 0.2).abs() < 1e-6);
    let error = pictures(&[0, 1], &["cow", "pig"]).for_model(&info, &shape, 3).unwrap_err();
    assert!(error.to_string().contains("the class `pig`"), "{error}");
    let strange = pictures(&[0, 1], &["hen", "pig"]).for_model(&info, &shape, 3).unwrap();
    assert_eq!(strange.labels, [None, None]);
    let error = pictures(&[0, 1], &["cow", "cat"]).for_model(&info, &Shape::from([3, 1, 2]), 3).unwrap_err();
    assert_eq!(error.to_string(), "x: expected inputs of 3x1x2, as the model reads it, found 1x1x2");
    assert!(set("1,a\n2,b\n").for_model(&info, &shape, 3).unwrap_err().to_string().contains("a table"));
    assert!(
        pictures(&[0], &["a"])
            .for_model(&self::info(), &shape, 3)
            .unwrap_err()
            .to_string()
            .contains("2 columns")
    );
}
