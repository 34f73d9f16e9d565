use std::fs;

use super::super::Role;
use super::super::numpy::tests::npy;
use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Two images of 1x2 of the classes 1 and 2, under these names.
    fn idx(&self, images: &str, labels: &str) {
        self.write(images, &[&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2][..], &[1, 2, 3, 4]].concat());
        self.write(labels, &[0, 0, 8, 1, 0, 0, 0, 2, 1, 2]);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

#[expect(clippy::type_complexity, reason = "a shape, and examples by part")]
fn shape_of(path: &Path, options: &ReadOptions) -> Result<(Vec<usize>, Vec<(Role, usize)>), Error> {
    let summary = DataSet::read(path, options)?.summary(0.2)?;
    Ok((summary.shape, summary.parts.into_iter().map(|part| (part.role, part.examples)).collect()))
}

#[test]
fn every_usual_name_of_idx_files_is_read() {
    for [train, test] in [
        ["train-images-idx3-ubyte", "t10k-images-idx3-ubyte"],
        ["train-images.idx3-ubyte", "t10k-images.idx3-ubyte"],
        ["raw/train-images-idx3-ubyte", "raw/t10k-images-idx3-ubyte"],
        ["MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/t10k-images-idx3-ubyte"],
        ["emnist-letters-train-images-idx3-ubyte", "emnist-letters-test-images-idx3-ubyte"],
    ] {
        let folder = Folder::new();
        for images in [train, test] {
            folder.idx(images, &images.replace("images", "labels").replace("idx3", "idx1"));
        }
        let found = shape_of(&folder.path(""), &ReadOptions::default()).unwrap();
        assert_eq!(found, (vec![1, 1, 2], vec![(Role::Train, 2), (Role::Test, 2)]), "{train}");
        let data =
            DataSet::read(&folder.path(""), &ReadOptions::default()).unwrap().training(0.2, 0).unwrap();
        assert_eq!((data.classes, data.train.labels()), (vec!["1".to_owned(), "2".to_owned()], &[0, 1][..]));
    }
}

#[test]
fn one_of_several_sets_is_named_by_its_prefix_and_turned_on_request() {
    let folder = Folder::new();
    for set in ["emnist-letters", "emnist-digits"] {
        folder.idx(&format!("{set}-train-images-idx3-ubyte"), &format!("{set}-train-labels-idx1-ubyte"));
    }
    let error = DataSet::read(&folder.path(""), &ReadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("emnist-digits") && error.contains("emnist-letters"), "{error}");
    let options = ReadOptions { transpose: true, ..ReadOptions::default() };
    assert_eq!(shape_of(&folder.path("emnist-letters"), &options).unwrap().0, [1, 2, 1]);
    let table = folder.write("a.csv", b"1,2\n3,4\n");
    assert!(DataSet::read(&table, &options).unwrap_err().to_string().contains("IDX images to transpose"));
}

#[test]
fn files_of_images_find_their_labels() {
    let folder = Folder::new();
    folder.idx("my-images-idx3-ubyte", "my-labels-idx1-ubyte");
    let images = folder.path("my-images-idx3-ubyte");
    assert_eq!(
        DataSet::read(&images, &ReadOptions::default()).unwrap().summary(0.5).unwrap().parts[0].classes.len(),
        2
    );
    fs::rename(folder.path("my-labels-idx1-ubyte"), folder.path("other")).unwrap();
    assert!(DataSet::read(&images, &ReadOptions::default()).unwrap().training(0.5, 0).is_err());
    let options = ReadOptions { labels: Some(folder.path("other")), ..ReadOptions::default() };
    assert_eq!(DataSet::read(&images, &options).unwrap().summary(0.5).unwrap().parts[0].classes.len(), 2);
}

#[test]
fn no_images_are_said_to_be_none() {
    let folder = Folder::new();
    folder.idx("train-images-idx3-ubyte", "train-labels-idx1-ubyte");
    folder.write("t10k-images-idx3-ubyte", &[0, 0, 8, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
    folder.write("t10k-labels-idx1-ubyte", &[0, 0, 8, 1, 0, 0, 0, 0]);
    let error = DataSet::read(&folder.path(""), &ReadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("t10k-images-idx3-ubyte: expected images, found 0 images"), "{error}");
}

#[test]
fn arrays_are_read_as_pictures_or_as_they_are() {
    let folder = Folder::new();
    let pixels = folder.write("a.npy", &npy("|u1", false, "(2, 1, 2, 3)", &[9; 12]));
    assert_eq!(shape_of(&pixels, &ReadOptions::default()).unwrap(), (vec![3, 1, 2], vec![(Role::All, 2)]));
    let body: Vec<u8> = [0.5f32, -3.0, 2.0, 1.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let raw = folder.write("b.npy", &npy("<f4", false, "(2, 2)", &body));
    let labels = folder.write("c.npy", &npy("|u1", false, "(2,)", &[3, 4]));
    let options = ReadOptions { labels: Some(labels), ..ReadOptions::default() };
    let set = DataSet::read(&raw, &options).unwrap();
    assert_eq!(set.summary(0.5).unwrap().range, Some([-3.0, 2.0]));
    let pair = Folder::new();
    pair.write("images.npy", &npy("|u1", false, "(2, 2, 2)", &[9; 8]));
    pair.write("labels.npy", &npy("|u1", false, "(2,)", &[0, 1]));
    assert_eq!(Kind::of(&pair.path("")).unwrap(), Kind::ArrayFolder);
    assert_eq!(
        shape_of(&pair.path(""), &ReadOptions::default()).unwrap(),
        (vec![1, 2, 2], vec![(Role::All, 2)])
    );
}

#[test]
fn what_is_no_data_set_is_named() {
    let folder = Folder::new();
    let said = |path: &Path| DataSet::read(path, &ReadOptions::default()).unwrap_err().to_string();
    assert!(said(&folder.path("")).contains("an empty folder"));
    assert!(said(&folder.path("nowhere.csv")).contains("nowhere.csv"));
    folder.write("a.csv", b"1,2\n");
    assert!(said(&folder.path("")).contains("a.csv; name one of them"));
    assert!(said(&folder.write("a.png", b"\x89PNG\r\n\x1a\n\0\0")).contains("a table as text"));
    folder.write("cats/1.png", b"x");
    assert_eq!(Kind::of(&folder.path("")).unwrap(), Kind::Folders);
}

#[test]
fn only_digits_are_taken_for_digits() {
    let are = |path: &str| are_digits(Path::new(path));
    assert!(are("data/mnist") && are("MNIST/raw") && are("x/mnist.npz") && are("emnist/emnist-digits"));
    assert!(
        !are("fashion-mnist")
            && !are("FashionMNIST/MNIST")
            && !are("breastmnist")
            && !are("emnist/emnist-letters")
    );
}

#[test]
fn a_test_set_may_come_from_elsewhere() {
    let (train, test) = (Folder::new(), Folder::new());
    for folder in [&train, &test] {
        folder.idx("train-images-idx3-ubyte", "train-labels-idx1-ubyte");
    }
    let [train, test] =
        [train, test].map(|folder| DataSet::read(&folder.path(""), &ReadOptions::default()).unwrap());
    let both = train.with_test(test).unwrap();
    let data = both.training(0.2, 0).unwrap();
    assert_eq!((data.train.len(), data.test.len()), (2, 2));
}
