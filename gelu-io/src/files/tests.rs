use super::*;

#[test]
fn a_file_is_replaced_whole_and_nothing_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    write_atomic(&path, b"first").unwrap();
    write_atomic(&path, b"second, longer").unwrap();
    assert_eq!(read_limited(&path, 14).unwrap(), b"second, longer");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn names_that_are_taken_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let taken = |count| folder.path().join(format!(".gelu-{}-{count}.tmp", std::process::id()));
    // Other tests count in the same process.
    (0..100).for_each(|count| std::fs::write(taken(count), b"left behind").unwrap());
    let path = folder.path().join("a");
    write_atomic(&path, b"new").unwrap();
    assert_eq!(read_limited(&path, 3).unwrap(), b"new");
    assert!((0..100).all(|count| std::fs::read(taken(count)).unwrap() == b"left behind"));
}

#[test]
fn a_failed_write_leaves_no_temporary_file() {
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("inside"), b"x").unwrap();
    let error = write_atomic(&taken, b"new").unwrap_err();
    assert!(matches!(error, Error::Io { action: "write", .. }), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    let nowhere = folder.path().join("nowhere").join("file");
    assert!(write_atomic(&nowhere, b"new").unwrap_err().to_string().contains("nowhere"));
}

#[cfg(unix)]
#[test]
fn a_secret_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    write_atomic(&path, b"public").unwrap();
    assert_eq!(mode() & 0o600, 0o600);
    write_secret(&path, b"secret").unwrap();
    assert_eq!(mode(), 0o600);
}

#[test]
fn the_limit_is_exact() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    write_atomic(&path, &[7; 100]).unwrap();
    assert_eq!(read_limited(&path, 100).unwrap().len(), 100);
    let error = read_limited(&path, 99).unwrap_err();
    assert!(matches!(error, Error::TooLarge { limit: 99, found: 100, .. }), "{error}");
}

#[test]
fn what_cannot_be_written_is_known_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    check_writable(&path("new")).unwrap();
    check_folder_writable(&path("new/deep/er")).unwrap();
    check_folder_writable(Path::new("")).unwrap();
    for folder in [folder.path(), Path::new("."), Path::new(".."), Path::new("/"), Path::new("")] {
        let error = check_writable(folder).unwrap_err();
        assert!(matches!(error, Error::Io { action: "write", .. }), "{folder:?}: {error}");
    }
    assert!(check_writable(&path("none/file")).is_err());
    assert!(check_writable(&path("folder/")).is_err());
    std::fs::write(path("file"), b"x").unwrap();
    assert!(check_folder_writable(&path("file")).is_err());
    assert!(check_folder_writable(&path("file/below")).is_err());
    // Nothing is left behind.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_link_is_followed_and_permissions_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("below")).unwrap();
        std::fs::write(path("below/real"), b"old").unwrap();
        std::fs::set_permissions(path("below/real"), Permissions::from_mode(0o640)).unwrap();
        symlink("below/real", path("one")).unwrap();
        symlink("one", path("two")).unwrap();
        write_atomic(&path("two"), b"new").unwrap();
        assert_eq!(std::fs::read(path("below/real")).unwrap(), b"new");
        assert_eq!(mode(&path("below/real")), 0o640);
        assert!(path("two").is_symlink() && path("one").is_symlink());
        // One that leads nowhere yet.
        symlink("below/later", path("dangling")).unwrap();
        write_atomic(&path("dangling"), b"first").unwrap();
        assert_eq!(std::fs::read(path("below/later")).unwrap(), b"first");
        symlink("round", path("round")).unwrap();
        assert!(write_atomic(&path("round"), b"new").is_err());
    }

    #[test]
    fn devices_are_written_to() {
        write_atomic(Path::new("/dev/null"), b"gone").unwrap();
        check_writable(Path::new("/dev/null")).unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
        let full = Path::new("/dev/full");
        if full.exists() {
            assert!(matches!(write_atomic(full, b"x"), Err(Error::Io { action: "write", .. })));
        }
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_secret(&path, b"secret").unwrap();
        check_owner_only(&path).unwrap();
        for exposed in [0o644, 0o640, 0o604, 0o620] {
            std::fs::set_permissions(&path, Permissions::from_mode(exposed)).unwrap();
            let error = check_owner_only(&path).unwrap_err();
            assert!(matches!(error, Error::Exposed { mode, .. } if mode == exposed), "{error}");
        }
        // A secret that is written over them is closed again.
        write_secret(&path, b"new").unwrap();
        assert_eq!(mode(&path), 0o600);
    }
}
