//! The folder in which a run keeps its state: one run at a time uses it, and what is in it is never overwritten unasked.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use gelu_io::files::make_folder;

use super::Args;
use super::interrupt::{self, Interrupted};
use super::settings::Settings;
use crate::lock::lock;
use crate::output::note;

/// What a checkpoint is called: that of training in the clear, and that of private training and its counterpart.
const NAMES: [&str; 2] = ["checkpoint.safetensors", "private.json"];

/// A run's folder, which is this run's alone until it is dropped.
pub(super) struct Store {
    folder: PathBuf,
    name: &'static str,
    /// What determines the run.
    pub(super) settings: Settings,
    /// Whether the run begins where the checkpoint stands.
    pub(super) resumes: bool,
    /// Whether it was opened with `--force`.
    forced: bool,
    every: Duration,
    /// None before the first save of a run that begins.
    saved: Option<Instant>,
    /// Held for as long as it is open, and given back by the system whatever ends the process.
    _lock: File,
}

impl Store {
    /// Opens the folder of `--checkpoint-dir`, if the run has one, and sees to it that Ctrl-C and SIGTERM keep the run.
    /// `settings` are asked for in that case only: they take a digest of all data.
    pub(super) fn open(
        args: &Args,
        is_private: bool,
        settings: impl FnOnce() -> anyhow::Result<Settings>,
    ) -> anyhow::Result<Option<Self>> {
        let Some(folder) = &args.checkpoint_dir else { return Ok(None) };
        make_folder(folder)?;
        let store = Self {
            folder: folder.clone(),
            name: NAMES[usize::from(is_private)],
            settings: settings()?,
            resumes: args.resume,
            forced: args.force,
            every: Duration::from_secs(args.checkpoint_every.into()),
            saved: args.resume.then(Instant::now),
            _lock: lock(&folder.join("lock"), || {
                format!("{}: another run keeps its state there at this moment", folder.display())
            })?,
        };
        let found: Vec<&str> = NAMES.into_iter().filter(|name| folder.join(name).exists()).collect();
        if args.resume {
            let own = store.path();
            ensure!(
                found.contains(&store.name),
                "{}: expected a checkpoint of this kind of run to go on with, found {}; without --resume a run begins anew",
                own.display(),
                found.first().copied().unwrap_or("none"),
            );
        } else if let Some(name) = found.first().filter(|_| !args.force) {
            bail!(
                "{}: expected no checkpoint, found that of another run; --resume goes on with it, --force overwrites it",
                folder.join(name).display()
            );
        }
        interrupt::install()?;
        Ok(Some(store))
    }

    /// The checkpoint's file.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.join(self.name)
    }

    /// Whether it is time to save: at the beginning of a run, in intervals, and when the run is asked to stop.
    pub(super) fn is_due(&self) -> bool {
        self.saved.is_none_or(|saved| saved.elapsed() >= self.every) || interrupt::is_asked()
    }

    /// Saves the run by `write`, and removes what the checkpoint replaces.
    pub(super) fn save(&mut self, write: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
        write(&self.path())?;
        if self.saved.is_none() {
            for other in NAMES.into_iter().filter(|name| *name != self.name) {
                match std::fs::remove_file(self.folder.join(other)) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(error).with_context(|| self.folder.join(other).display().to_string());
                    }
                    _ => {}
                }
            }
        }
        self.saved = Some(Instant::now());
        Ok(())
    }

    /// Fails with [`Interrupted`] when the run, which is `at` this point and saved, is asked to stop.
    pub(super) fn stop_if_asked(&self, at: String) -> anyhow::Result<()> {
        match interrupt::is_asked() {
            true => {
                let with = if self.forced { " with --resume in place of --force" } else { " with --resume" };
                Err(Interrupted { at, with }.into())
            }
            false => Ok(()),
        }
    }

    /// Fails, naming what differs, when the checkpoint is of a run of other settings. The epochs may be more than they
    /// were.
    pub(super) fn check(&self, kept: &Settings, epochs: [u32; 2]) -> anyhow::Result<()> {
        let mut differences = kept.differences(&self.settings);
        let [before, wanted] = epochs;
        if wanted < before {
            differences.push(format!(
                "--epochs: the checkpoint has {before}, this command {wanted} (they can be raised)"
            ));
        }
        ensure!(
            differences.is_empty(),
            "{}: the checkpoint is of another run:\n  {}\nwith --force in place of --resume, a run begins anew and overwrites \
             it",
            self.path().display(),
            differences.join("\n  ")
        );
        if wanted > before {
            note!("epochs raised from {before} to {wanted}");
        }
        Ok(())
    }
}
