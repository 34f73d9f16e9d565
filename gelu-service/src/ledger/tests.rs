//! A server's account of its clients, on disks that are full or cannot be written, and with clocks that are wrong.

use super::*;

fn ledger() -> (tempfile::TempDir, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    (folder, ledger)
}

#[test]
fn a_budget_holds_over_restarts_and_for_each_client_and_model() {
    let (folder, ledger) = ledger();
    assert_eq!(ledger.take(("a", "m"), 6, Some(10)).unwrap(), Taken::Yes);
    assert_eq!(ledger.take(("a", "m"), 5, Some(10)).unwrap(), Taken::Spent { used: 6, allowed: 10 });
    drop(ledger);
    let ledger = Ledger::open(folder.path()).unwrap();
    assert_eq!(ledger.take(("a", "m"), 4, Some(10)).unwrap(), Taken::Yes);
    assert_eq!(ledger.take(("a", "m"), 1, Some(10)).unwrap(), Taken::Spent { used: 10, allowed: 10 });
    assert_eq!(ledger.take(("a", "other"), 10, Some(10)).unwrap(), Taken::Yes);
    assert_eq!(ledger.take(("b", "m"), 10, Some(10)).unwrap(), Taken::Yes);
    assert_eq!(ledger.take(("a", "m"), 1, None).unwrap(), Taken::Yes);
    let usage = ledger.usage().unwrap();
    let counts: Vec<_> =
        usage.iter().map(|of| (&of.client[..], &of.model[..], of.inputs, of.batches)).collect();
    assert_eq!(counts, [("a", "m", 11, 3), ("a", "other", 10, 1), ("b", "m", 10, 1)]);
    ledger.verify().unwrap();
}

#[test]
fn requests_of_many_threads_never_exceed_a_budget_together() {
    let (folder, ledger) = ledger();
    let other = Ledger::open(folder.path()).unwrap();
    let granted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = [&ledger, &other, &ledger, &other]
            .map(|ledger| {
                scope.spawn(move || {
                    (0..20).filter(|_| ledger.take(("a", "m"), 1, Some(50)).unwrap() == Taken::Yes).count()
                })
            })
            .into_iter()
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!((granted, ledger.usage().unwrap()[0].inputs), (50, 50));
}

#[test]
fn a_copy_has_what_the_ledger_has() {
    let (folder, ledger) = ledger();
    ledger.take(("a", "m"), 6, None).unwrap();
    let copies = folder.path().join("copies");
    std::fs::create_dir(&copies).unwrap();
    ledger.backup(&copies.join(FILE)).unwrap();
    assert_eq!(Ledger::open(&copies).unwrap().usage().unwrap(), ledger.usage().unwrap());
}

#[test]
fn files_that_are_no_ledger_are_refused_and_left_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    make_empty(&path).unwrap();
    let bytes = b"something else, longer than the header of a database would be, by far and on purpose";
    std::fs::write(&path, bytes).unwrap();
    let error = Ledger::open(folder.path()).unwrap_err();
    assert!(matches!(&error, ServiceError::State { .. }) && error.to_string().contains(FILE), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);

    let (later, ledger) = self::ledger();
    ledger.connection().pragma_update(None, "user_version", 99_u32).unwrap();
    drop(ledger);
    let error = Ledger::open(later.path()).unwrap_err();
    assert!(error.to_string().contains("version 4 or before, found 99"), "{error}");
    assert!(matches!(Ledger::open(&later.path().join("none")), Err(ServiceError::State { .. })));
}

/// Budgets count inputs, not time, and the time of the last stays the last.
#[test]
fn a_clock_that_was_set_back_changes_no_count() {
    let (_folder, ledger) = ledger();
    let hour = 60 * 60;
    let noon = 1_800_000_000;
    assert_eq!(ledger.take_at(noon, ("a", "m"), 6, Some(10)).unwrap(), Taken::Yes);
    assert_eq!(ledger.take_at(noon - hour, ("a", "m"), 3, Some(10)).unwrap(), Taken::Yes);
    let spent = Taken::Spent { used: 9, allowed: 10 };
    assert_eq!(ledger.take_at(noon - 2 * hour, ("a", "m"), 2, Some(10)).unwrap(), spent);
    let usage = &ledger.usage().unwrap()[0];
    assert_eq!((usage.inputs, usage.batches, usage.times), (9, 2, [noon, noon]));
    assert_eq!(ledger.take_at(noon + hour, ("a", "m"), 1, Some(10)).unwrap(), Taken::Yes);
    assert_eq!(ledger.usage().unwrap()[0].times, [noon, noon + hour]);
    ledger.verify().unwrap();
}

/// Says in which folder a test that runs again in a process of its own finds its ledger.
#[cfg(unix)]
const FOLDER: &str = "GELU_TEST_LEDGER";

/// Runs a test of this file in another process, which `prepare` sets up.
#[cfg(unix)]
fn again(test: &str, folder: &Path, prepare: impl Fn(&Path) -> std::process::Command) -> String {
    use std::os::unix::fs::PermissionsExt;

    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("tests");
    // Another user may have to run it.
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    // A process that another thread started while the copy was written holds it open until it runs its own program.
    let mut attempts = 0..50;
    loop {
        let mut command = prepare(&program);
        command.args(["--exact", test, "--nocapture", "--include-ignored"]).env(FOLDER, folder);
        let (text, is_done) = command.output().map_or_else(
            |error| (error.to_string(), false),
            |output| {
                let texts = [output.stdout, output.stderr];
                let texts = texts.map(|text| String::from_utf8_lossy(&text).into_owned());
                (texts.concat(), output.status.success())
            },
        );
        if is_done {
            return text;
        }
        assert!(text.contains("Text file busy") && attempts.next().is_some(), "{text}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// A disk is full where the system lets no file grow: the request is refused, what was there stays, and is gone on with.
#[cfg(unix)]
#[test]
fn a_full_disk_is_said_and_leaves_what_was_there() {
    let (folder, ledger) = ledger();
    ledger.take(("before", "m"), 6, None).unwrap();
    drop(ledger);
    let text = again("ledger::tests::until_the_disk_is_full", folder.path(), |program| {
        // 64 KiB at most, and an error in place of a signal.
        let mut shell = std::process::Command::new("sh");
        let script = "trap '' XFSZ; ulimit -f 128; exec \"$0\" \"$@\"";
        shell.arg("-c").arg(script).arg(program);
        shell
    });
    let noted = text.lines().find_map(|line| line.strip_prefix("noted: ")).unwrap().parse::<u64>().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    ledger.verify().unwrap();
    let usage = ledger.usage().unwrap();
    assert!(usage.iter().any(|of| of.client == "before" && of.inputs == 6));
    // All that was granted is there, and nothing that was not.
    assert_eq!(usage.iter().filter(|of| of.client != "before").map(|of| of.inputs).sum::<u64>(), noted);
    assert!(noted > 0);
    assert_eq!(ledger.take(("after", "m"), 1, None).unwrap(), Taken::Yes);
}

/// Runs where files cannot grow.
#[cfg(unix)]
#[test]
#[ignore = "another test runs it"]
fn until_the_disk_is_full() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let ledger = Ledger::open(Path::new(&folder)).unwrap();
    let mut noted = 0;
    let error = loop {
        let client = format!("{noted}{}", "-".repeat(500));
        match ledger.take((&client, "m"), 1, None) {
            Ok(_) => noted += 1,
            Err(error) => break error,
        }
        assert!(noted < 10_000, "the disk is full before");
    };
    let text = error.to_string();
    assert!(matches!(error, ServiceError::State { .. }) && text.contains(FILE), "{text}");
    assert!(text.contains("full") || text.contains("I/O"), "{text}");
    // It is no better at once, and reading still works.
    assert!(ledger.take(("another", "m"), 1, None).is_err());
    assert_eq!(ledger.usage().unwrap().len(), noted + 1);
    println!("\nnoted: {noted}");
}

/// A folder that cannot be written is said when the ledger is opened, and nothing in it changes.
#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written_is_said_and_left_as_it_is() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    let (folder, ledger) = ledger();
    ledger.take(("before", "m"), 6, None).unwrap();
    drop(ledger);
    let path = folder.path().join(FILE);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
    again("ledger::tests::where_nothing_can_be_written", folder.path(), |program| {
        let mut command = std::process::Command::new(program);
        // The superuser can write anywhere, and so becomes somebody else.
        if std::fs::write(folder.path().join("probe"), []).is_ok() {
            std::fs::remove_file(folder.path().join("probe")).unwrap();
            std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
            command.uid(65534).gid(65534);
        }
        command
    });
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    ledger.verify().unwrap();
    assert_eq!(ledger.usage().unwrap()[0].inputs, 6);
}

/// Runs where the folder cannot be written.
#[cfg(unix)]
#[test]
#[ignore = "another test runs it"]
fn where_nothing_can_be_written() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let error = Ledger::open(Path::new(&folder)).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ServiceError::State { .. }) && text.contains(FILE), "{text}");
    assert!(text.contains("readonly") || text.contains("unable to open"), "{text}");
}

#[cfg(unix)]
#[test]
fn a_ledger_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, ledger) = ledger();
    ledger.take(("a", "m"), 1, None).unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
    drop(ledger);
    std::fs::set_permissions(folder.path().join(FILE), PermissionsExt::from_mode(0o644)).unwrap();
    let error = Ledger::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("0600") || error.contains("600"), "{error}");
}
