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
    let error = DataDir { places: Vec::new() }.iris().unwrap_err();
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
fn the_real_tables() {
    let Some(data) = real_data() else { return };
    let iris = data.iris().unwrap();
    assert_eq!((iris.len(), iris.features(), iris.class_names().len()), (150, 4, 3));
    let diabetes = data.diabetes().unwrap();
    assert_eq!((diabetes.len(), diabetes.features(), diabetes.class_names().len()), (768, 8, 2));
    assert_eq!(diabetes.labels().iter().filter(|&&label| label == 1).count(), 268);
    let chess = data.chess(Encoding::Ordinal).unwrap();
    assert_eq!((chess.len(), chess.features()), (3196, 36));
    assert_eq!(chess.class_names(), ["nowin", "won"]);
    assert_eq!(chess.labels().iter().filter(|&&label| label == 1).count(), 1669);
    assert_eq!(data.chess(Encoding::OneHot).unwrap().features(), 73);
}
