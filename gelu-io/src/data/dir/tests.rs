use super::super::{Missing, ReadOptions};
use std::path::Path;

use super::*;

#[test]
fn an_explicit_folder_is_the_only_one() {
    let places = DataDir::with_environment(Some("here".into()), |_| Some("/elsewhere".into()));
    assert_eq!(places.places(), [Place { path: "here".into(), origin: "the caller" }]);
}

#[test]
fn then_the_variable_then_the_per_user_folder() {
    let paths = |pairs: &'static [(&str, &str)]| {
        DataDir::with_environment(None, |name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        })
        .places
        .into_iter()
        .map(|place| place.path)
        .collect::<Vec<_>>()
    };
    assert_eq!(
        paths(&[("GELU_DATA", "/d"), ("XDG_DATA_HOME", "/x"), ("HOME", "/h")]),
        [Path::new("/d"), Path::new("/x/gelu-net")]
    );
    assert_eq!(paths(&[("HOME", "/h"), ("GELU_DATA", "")]), [Path::new("/h/.local/share/gelu-net")]);
    assert_eq!(paths(&[("XDG_DATA_HOME", "relative")]), [] as [&Path; 0]);
}

#[test]
fn missing_data_says_where_it_was_looked_for() {
    let error = DataDir::locate(Some("nowhere".into())).mnist(Split::Test).unwrap_err();
    assert_eq!(
        error.to_string().replace('\\', "/"),
        "MNIST: expected nowhere/mnist/t10k-images-idx3-ubyte.gz or nowhere/mnist/t10k-images-idx3-ubyte, found \
         none of them"
    );
    let iris = KnownSet::by_name("iris").unwrap();
    let error = DataDir { places: Vec::new() }.find(iris).unwrap_err();
    assert!(error.to_string().contains("Iris"), "{error}");
}

#[test]
fn images_and_labels_must_be_as_many() {
    let folder = tempfile::tempdir().unwrap();
    let mnist = folder.path().join("mnist");
    std::fs::create_dir(&mnist).unwrap();
    let images = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28][..], &[0; 2 * 784]].concat();
    std::fs::write(mnist.join("t10k-images-idx3-ubyte"), &images).unwrap();
    std::fs::write(mnist.join("t10k-labels-idx1-ubyte"), [0, 0, 8, 1, 0, 0, 0, 1, 7]).unwrap();
    let data = DataDir::locate(Some(folder.path().to_owned()));
    let error = data.mnist(Split::Test).unwrap_err();
    assert!(matches!(error, Error::LabelCount { expected: 2, found: 1, .. }), "{error}");
    std::fs::write(mnist.join("t10k-labels-idx1-ubyte"), [0, 0, 8, 1, 0, 0, 0, 2, 7, 1]).unwrap();
    assert_eq!(data.mnist(Split::Test).unwrap().labels(), [7, 1]);
}

/// The data folder of the environment, or a line that says that the test is skipped.
fn real_data() -> Option<DataDir> {
    match std::env::var_os(VARIABLE) {
        Some(path) => Some(DataDir::locate(Some(path.into()))),
        None => {
            eprintln!("skipped: GELU_DATA names no data folder");
            None
        }
    }
}

#[test]
fn the_real_mnist() {
    let Some(data) = real_data() else { return };
    let test = data.mnist(Split::Test).unwrap();
    assert_eq!((test.len(), test.images().size()), (10_000, [28, 28]));
    assert_eq!(test.labels()[..5], [7, 2, 1, 0, 4]);
    assert_eq!(data.mnist(Split::Train).unwrap().len(), 60_000);
}

#[test]
fn torchvisions_folder_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("MNIST/raw");
    std::fs::create_dir_all(&raw).unwrap();
    let images = [&[0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 28, 0, 0, 0, 28][..], &[5; 784]].concat();
    std::fs::write(raw.join("t10k-images-idx3-ubyte"), &images).unwrap();
    std::fs::write(raw.join("t10k-labels-idx1-ubyte"), [0, 0, 8, 1, 0, 0, 0, 1, 7]).unwrap();
    let data = DataDir::locate(Some(folder.path().to_owned()));
    assert_eq!(data.mnist(Split::Test).unwrap().labels(), [7]);
    let found = data.find(KnownSet::by_name("mnist").unwrap()).unwrap();
    assert_eq!(found, folder.path().join("MNIST"));
}

/// Examples to train and to test with, features and classes of each known data set that comes as a file.
#[test]
fn the_real_known_sets() {
    let Some(data) = real_data() else { return };
    for (name, train, test, features, classes) in [
        ("iris", 120, 30, 4, 3),
        ("diabetes", 614, 154, 8, 2),
        ("kr-vs-kp", 2557, 639, 73, 2),
        ("wdbc", 455, 114, 30, 2),
        ("german-credit", 800, 200, 24, 2),
        ("heart-cleveland", 242, 61, 13, 5),
        ("pneumoniamnist", 4708, 624, 784, 2),
        ("breastmnist", 546, 156, 784, 2),
        ("mnist", 60_000, 10_000, 784, 10),
    ] {
        let known = KnownSet::by_name(name).unwrap();
        let options = ReadOptions { missing: Missing::Mean, ..ReadOptions::default() };
        let set = known.read(&data.find(known).unwrap(), &options).unwrap().training(0.2, 0).unwrap();
        assert_eq!(
            (set.train.len(), set.test.len(), set.train.shape().elements(), set.classes.len()),
            (train, test, features, classes),
            "{name}"
        );
    }
}
