//! The data folder: whether it can be used, and has room.

use std::ffi::CString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use psyche_actors::run::RunPlan;
use psyche_actors::{NodeConfig, NodeError};
use psyche_gpu::memory::RankMemory;
use psyche_net::NetConfig;

use super::{Found, Line, gib, refused, snapshot_bytes};

/// Lines on the folder, and whether this process may take it for a moment.
pub(super) fn check(
    config: &NodeConfig,
    found: Option<&Found>,
    plan: Option<&RunPlan>,
    needs: &[RankMemory],
) -> (Vec<Line>, bool) {
    let path = &config.data_dir;
    let shown = path.display().to_string();
    let there = match nearest(path).and_then(|there| writable(there).map(|()| there)) {
        Ok(there) => there,
        Err(source) => return (vec![refused("disk", &NodeError::Folder { path: shown, source })], false),
    };
    if is_locked(path) {
        return (vec![refused("disk", &NodeError::FolderInUse { path: shown })], false);
    }
    let Some(free) = free_bytes(there) else {
        return (vec![Line::not_checked("disk", format!("{shown} can be written; not checked: the space that is free"))], true);
    };
    let (Some(found), Some(plan), false) = (found, plan, needs.is_empty()) else {
        let words = format!("{shown} can be written, {} are free; what the run needs is not known", gib(free));
        return (vec![Line::fine("disk", words)], true);
    };
    // The newest snapshot is whole before the oldest goes.
    let kept = u64::try_from(config.snapshots_kept.get()).unwrap_or(u64::MAX);
    let snapshots = snapshot_bytes(needs).saturating_mul(kept.saturating_add(1));
    let blobs = blob_bytes(config, found, plan);
    let words = format!(
        "{shown} can be written, {} are free; {} snapshots take {}, blobs up to {}",
        gib(free),
        config.snapshots_kept,
        gib(snapshots),
        gib(blobs)
    );
    let line = if free < snapshots.saturating_add(blobs) {
        Line::warning("disk", words, "make room, name another folder as DATA_DIR, or keep fewer snapshots (SNAPSHOTS_KEPT)")
    } else {
        Line::fine("disk", words)
    };
    (vec![line], true)
}

/// The folder, or the nearest one above it that there is: a node makes what is missing.
fn nearest(path: &Path) -> io::Result<&Path> {
    for folder in path.ancestors() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        match std::fs::metadata(folder) {
            Ok(what) if what.is_dir() => return Ok(folder),
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Tries it, as permissions alone don't tell: file systems may be mounted for reading only.
fn writable(folder: &Path) -> io::Result<()> {
    let trial = folder.join(format!(".psyche-doctor-{}", std::process::id()));
    let made = OpenOptions::new().write(true).create_new(true).open(&trial)?;
    drop(made);
    std::fs::remove_file(trial)
}

/// Whether a node uses the folder.
fn is_locked(folder: &Path) -> bool {
    let Ok(lock) = File::open(folder.join("lock")) else { return false };
    matches!(lock.try_lock(), Err(TryLockError::WouldBlock))
}

/// What this user may still write to the file system of `folder`.
fn free_bytes(folder: &Path) -> Option<u64> {
    let path = CString::new(folder.as_os_str().as_bytes()).ok()?;
    // SAFETY: all-zero bytes are a valid value of this plain C struct.
    let mut told: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends in NUL and the struct is ours to be written to; both live through the call.
    let failed = unsafe { libc::statvfs(path.as_ptr(), &raw mut told) } != 0;
    (!failed).then(|| told.f_bavail.saturating_mul(told.f_frsize))
}

/// Most bytes of blobs at a time: every client's payload of every round within the time that unclaimed blobs stay, if rounds
/// were as short as they can be; never more than the store's quota.
fn blob_bytes(config: &NodeConfig, found: &Found, plan: &RunPlan) -> u64 {
    let net = psyche_actors::node::net_config(config, found.run.account);
    let NetConfig { blob_bytes_max, blob_ttl, .. } = net;
    let coordinator = &found.view.account.state.coordinator;
    let clients = found.view.account.clients().len().max(usize::from(coordinator.config.init_min_clients)).max(1);
    let rounds = blob_ttl.as_secs() / coordinator.config.round_witness_time.saturating_add(1).max(1);
    let payload = u64::try_from(plan.layout.payload_len()).unwrap_or(u64::MAX);
    payload.saturating_mul(clients as u64).saturating_mul(rounds.max(1)).min(blob_bytes_max)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    #[test]
    fn a_folder_that_does_not_exist_is_judged_by_the_one_above_it_and_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c");
        let there = nearest(&deep).unwrap();
        assert_eq!(there, folder.path());
        writable(there).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
        assert!(free_bytes(there).unwrap() > 0);
    }

    #[test]
    fn a_file_in_the_folders_place_and_a_lock_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(nearest(&folder.path().join("file/data")).is_err());
        assert!(!is_locked(folder.path()));
        let lock = File::create(folder.path().join("lock")).unwrap();
        lock.lock().unwrap();
        assert!(is_locked(folder.path()));
    }
}
