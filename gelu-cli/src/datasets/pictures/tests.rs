use image::{GrayImage, Luma, Rgb};

use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn grey(&self, name: &str, [height, width]: [u32; 2]) {
        GrayImage::from_pixel(width, height, Luma([77])).save(self.path(name)).unwrap();
    }

    fn read(&self) -> DataSet {
        read(self.0.path(), &Form::default()).unwrap()
    }
}

#[test]
fn classes_are_folders_sorted_by_name() {
    let folder = Folder::new();
    for name in ["dog/1.png", "dog/2.png", "cat/1.png", "cat/deep/2.png"] {
        folder.grey(name, [4, 6]);
    }
    let summary = folder.read().summary(0.5).unwrap();
    assert_eq!(summary.shape, [1, 4, 6]);
    assert_eq!(summary.parts[0].classes, [("cat".to_owned(), 2), ("dog".to_owned(), 2)]);
    assert_eq!((summary.range, summary.fault), (Some([77.0, 77.0]), None));
}

#[test]
fn parts_may_be_above_or_below_the_classes() {
    for names in [
        ["train/cat/1.png", "train/dog/1.png", "test/cat/1.png", "val/dog/1.png"],
        ["cat/train/1.png", "dog/train/1.png", "cat/test/1.png", "dog/val/1.png"],
    ] {
        let folder = Folder::new();
        names.iter().for_each(|name| folder.grey(name, [2, 2]));
        let parts = folder.read().summary(0.5).unwrap().parts;
        let found: Vec<_> = parts.iter().map(|part| (part.role, part.examples)).collect();
        assert_eq!(found, [(Role::Train, 2), (Role::Validation, 1), (Role::Test, 1)], "{names:?}");
    }
}

#[test]
fn sizes_become_one_and_what_is_no_picture_is_named() {
    let folder = Folder::new();
    for name in ["a/1.png", "a/2.png", "b/1.png"] {
        folder.grey(name, [4, 4]);
    }
    folder.grey("b/2.png", [9, 7]);
    std::fs::write(folder.path("a/notes.txt"), "words").unwrap();
    std::fs::write(folder.path("a/.hidden.png"), "x").unwrap();
    std::fs::write(folder.path("b/broken.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    let summary = folder.read().summary(0.5).unwrap();
    assert_eq!((&summary.shape[..], summary.parts[0].examples), (&[1, 4, 4][..], 4));
    let notes = summary.notes.join("\n");
    for part in
        ["2 sizes; all scaled to 4x4, that of 3 of 4", "notes.txt", ".hidden.png: hidden", "broken.png"]
    {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    let form = Form { size: Some([3, 5]), ..Form::default() };
    assert_eq!(read(folder.0.path(), &form).unwrap().summary(0.5).unwrap().shape, [1, 3, 5]);
}

#[test]
fn color_makes_three_channels() {
    let folder = Folder::new();
    folder.grey("a/1.png", [2, 2]);
    RgbImage::from_pixel(2, 2, Rgb([200, 20, 90])).save(folder.path("b/1.png")).unwrap();
    let summary = folder.read().summary(0.5).unwrap();
    assert_eq!((&summary.shape[..], summary.range), (&[3, 2, 2][..], Some([20.0, 200.0])));
    let grey = Form { channels: Some(1), ..Form::default() };
    assert_eq!(read(folder.0.path(), &grey).unwrap().summary(0.5).unwrap().shape, [1, 2, 2]);
    // Grey that is stored in color is grey.
    let folder = Folder::new();
    RgbImage::from_pixel(2, 2, Rgb([90, 91, 90])).save(folder.path("b/1.jpg")).unwrap();
    assert_eq!(folder.read().summary(0.5).unwrap().shape, [1, 2, 2]);
}

#[test]
fn no_pictures_at_all_are_an_error() {
    let folder = Folder::new();
    std::fs::write(folder.path("a/notes.txt"), "words").unwrap();
    let error = read(folder.0.path(), &Form::default()).unwrap_err();
    assert!(format!("{error:#}").contains("folders of classes with pictures"), "{error:#}");
}
