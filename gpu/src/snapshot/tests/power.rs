//! What a loss of power leaves: names that were synced, and of files the bytes that were. Everything else may be gone, or
//! there, or names may be there without the bytes.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use super::super::disk::Change;
use super::*;

/// A change as it is remembered.
#[derive(Debug, Clone)]
enum Done {
    MakeFolder(PathBuf),
    Create(PathBuf),
    Write(PathBuf, u64),
    Sync(PathBuf),
    SyncFolder(PathBuf),
    Rename(PathBuf, PathBuf),
    RemoveFile(PathBuf),
    RemoveFolder(PathBuf),
}

#[derive(Default)]
struct Recording(Mutex<Vec<Done>>);

impl Watcher for Recording {
    fn before(&self, change: &Change<'_>) -> io::Result<()> {
        let path = change.path().to_owned();
        self.0.lock().unwrap().push(match change {
            Change::MakeFolder(_) => Done::MakeFolder(path),
            Change::Create(_) => Done::Create(path),
            Change::Write(_, _, bytes) => Done::Write(path, bytes.len() as u64),
            Change::Sync(..) => Done::Sync(path),
            Change::SyncFolder(_) => Done::SyncFolder(path),
            Change::Rename(from, _) => Done::Rename(from.to_path_buf(), path),
            Change::RemoveFile(_) => Done::RemoveFile(path),
            Change::RemoveFolder(_) => Done::RemoveFolder(path),
        });
        Ok(())
    }
}

/// A file: bytes written, bytes synced.
type File = (u64, u64);
/// Names in a folder, as they are and as they are after a loss of power.
#[derive(Clone, Default)]
struct Folder {
    now: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
}

/// The disk as the changes leave it: folders under one root, and files in them.
#[derive(Default)]
struct Model {
    root: Folder,
    folders: Vec<Folder>,
    files: Vec<File>,
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

impl Model {
    fn folder(&mut self, path: &Path) -> &mut Folder {
        let at = self.root.now[&name_of(path)];
        &mut self.folders[at]
    }

    fn file(&mut self, path: &Path) -> &mut File {
        let at = self.folder(path.parent().unwrap()).now[&name_of(path)];
        &mut self.files[at]
    }

    /// A whole snapshot that was durable before.
    fn add_durable(&mut self, folder: &Path) {
        let mut entries = BTreeMap::new();
        for name in folders_in(folder) {
            let bytes = fs::metadata(folder.join(&name)).unwrap().len();
            entries.insert(name, self.files.len());
            self.files.push((bytes, bytes));
        }
        self.folders.push(Folder { now: entries.clone(), durable: entries });
        for names in [&mut self.root.now, &mut self.root.durable] {
            names.insert(name_of(folder), self.folders.len() - 1);
        }
    }

    fn apply(&mut self, root: &Path, done: &Done) {
        match done {
            Done::MakeFolder(path) => {
                self.folders.push(Folder::default());
                self.root.now.insert(name_of(path), self.folders.len() - 1);
            }
            Done::Create(path) => {
                self.files.push((0, 0));
                let at = self.files.len() - 1;
                self.folder(path.parent().unwrap()).now.insert(name_of(path), at);
            }
            Done::Write(path, bytes) => self.file(path).0 += bytes,
            Done::Sync(path) => {
                let file = self.file(path);
                file.1 = file.0;
            }
            Done::SyncFolder(path) if path == root => self.root.durable = self.root.now.clone(),
            Done::SyncFolder(path) => {
                let folder = self.folder(path);
                folder.durable = folder.now.clone();
            }
            Done::Rename(from, to) => {
                let at = self.root.now.remove(&name_of(from)).unwrap();
                self.root.now.insert(name_of(to), at);
            }
            Done::RemoveFile(path) => drop(self.folder(path.parent().unwrap()).now.remove(&name_of(path))),
            Done::RemoveFolder(path) => drop(self.root.now.remove(&name_of(path))),
        }
    }

    /// The folders that look like snapshots, with the lengths of their files.
    fn after_crash(&self, all_names: bool, all_bytes: bool) -> Vec<(String, BTreeMap<String, u64>)> {
        let names = |folder: &Folder| if all_names { folder.now.clone() } else { folder.durable.clone() };
        let of_file = |(name, at): (String, usize)| {
            let (written, synced) = self.files[at];
            (name, if all_bytes { written } else { synced })
        };
        let complete = names(&self.root).into_iter().filter(|(name, _)| !name.contains('.'));
        complete.map(|(name, at)| (name, names(&self.folders[at]).into_iter().map(of_file).collect())).collect()
    }
}

#[test]
fn a_loss_of_power_after_any_change_leaves_the_old_or_the_new_snapshot() {
    let states = states(2);
    let out = tempfile::tempdir().unwrap();
    let old = open(out.path()).save(&states[0], &label(1)).unwrap();
    let mut model = Model::default();
    model.add_durable(&old.folder);
    let recording = Arc::new(Recording::default());
    let new = open_watched(out.path(), 1, recording.clone()).unwrap().save(&states[1], &label(2)).unwrap();
    let lengths = |stored: &Stored| -> BTreeMap<String, u64> {
        let files = stored.manifest.files.iter().map(|file| (file.name.clone(), file.bytes));
        let manifest = stored.manifest.encode().unwrap().len() as u64;
        files.chain([(MANIFEST_FILE.to_owned(), manifest)]).collect()
    };
    let whole = BTreeMap::from([(name_of(&old.folder), lengths(&old)), (name_of(&new.folder), lengths(&new))]);
    assert!(!old.folder.exists() && new.folder.exists(), "the old one goes once the new one is there");
    let changes = recording.0.lock().unwrap().clone();
    assert!(changes.len() > 100);
    for done in [None].into_iter().chain(changes.iter().map(Some)) {
        if let Some(done) = done {
            model.apply(out.path(), done);
        }
        for (all_names, all_bytes) in [(false, false), (false, true), (true, false), (true, true)] {
            let left = model.after_crash(all_names, all_bytes);
            assert!(!left.is_empty(), "after {done:?} nothing is left");
            for (name, files) in left {
                assert_eq!(files, whole[&name], "after {done:?}, names {all_names}, bytes {all_bytes}: {name}");
            }
        }
    }
}
