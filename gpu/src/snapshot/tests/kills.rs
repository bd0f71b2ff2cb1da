//! Processes that are killed with SIGKILL while they save: before every change to the disk, in the midst of writes, and
//! at random times.
//!
//! Each case is a fork that saves in earnest and ends itself at its point. Forking is only sound where no other thread
//! runs, so the tests start themselves once more, alone in a process.

use std::collections::BTreeMap;
use std::io;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::super::disk::Change;
use super::*;

/// Set in the process that has the test to itself.
const ALONE: &str = "PSYCHE_SNAPSHOT_KILLS";

/// Runs `test` again in a process of its own, in which `work` runs.
fn alone(test: &str, work: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return work();
    }
    let name = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", &name, "--test-threads=1", "--nocapture"]).env(ALONE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Where a process ends itself.
#[derive(Debug, Clone, Copy)]
struct Point {
    /// Before this change.
    change: usize,
    /// After so many bytes of it, if it is a write.
    bytes: usize,
}

/// Ends the process at a point.
struct Killer {
    point: Point,
    seen: AtomicUsize,
}

impl Watcher for Killer {
    fn before(&self, change: &Change<'_>) -> io::Result<()> {
        if self.seen.fetch_add(1, Ordering::Relaxed) == self.point.change {
            if let Change::Write(_, file, bytes) = change {
                io::Write::write_all(&mut &**file, &bytes[..self.point.bytes])?;
            }
            // SAFETY: no memory is involved; the process ends here.
            unsafe { libc::raise(libc::SIGKILL) };
        }
        Ok(())
    }
}

/// Notes the length of every write, and for other changes 0, and which change renames.
#[derive(Default)]
struct Counting {
    lengths: Mutex<Vec<usize>>,
    renamed: Mutex<Vec<usize>>,
}

impl Watcher for Counting {
    fn before(&self, change: &Change<'_>) -> io::Result<()> {
        let mut lengths = self.lengths.lock().unwrap();
        if matches!(change, Change::Rename(..)) {
            self.renamed.lock().unwrap().push(lengths.len());
        }
        lengths.push(if let Change::Write(_, _, bytes) = change { bytes.len() } else { 0 });
        Ok(())
    }
}

impl Counting {
    /// Before every change, and within every write at its first byte, its last one, or one between.
    fn points(&self) -> Vec<Point> {
        let lengths = self.lengths.lock().unwrap();
        let mut points = Vec::new();
        for (change, &length) in lengths.iter().enumerate() {
            let between = 1 + change * 7919 % length.max(2).saturating_sub(1);
            points.push(Point { change, bytes: 0 });
            let within = [1, between, length.saturating_sub(1)][change % 3];
            if (1..length).contains(&within) {
                points.push(Point { change, bytes: within });
            }
        }
        points
    }
}

/// A child process.
struct Fork(i32);

impl Fork {
    /// Starts a child that carries out `work` and ends.
    fn start(work: impl FnOnce()) -> Self {
        // SAFETY: this process has no other thread at work (see the module), so that the child finds every lock free; it
        // leaves without running anything that is the parent's.
        match unsafe { libc::fork() } {
            0 => {
                work();
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(0) }
            }
            child if child > 0 => Self(child),
            _ => panic!("can't fork: {}", io::Error::last_os_error()),
        }
    }

    fn kill(&self) {
        // SAFETY: the child was not waited for, so that its number is still its own.
        assert_eq!(unsafe { libc::kill(self.0, libc::SIGKILL) }, 0);
    }

    /// Waits for the end: whether it was killed.
    fn was_killed(self) -> bool {
        let mut status = 0;
        // SAFETY: the pointer is to a local.
        assert_eq!(unsafe { libc::waitpid(self.0, &raw mut status, 0) }, self.0);
        assert!(libc::WIFSIGNALED(status) || libc::WEXITSTATUS(status) == 0, "status {status}");
        libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for name in folders_in(from) {
        if from.join(&name).is_dir() {
            copy_folder(&from.join(&name), &to.join(&name));
        } else {
            fs::copy(from.join(&name), to.join(&name)).unwrap();
        }
    }
}

/// All snapshots are whole, nothing else is left; the newest.
fn check(root: &Path) -> Stored {
    let store = open(root);
    let all = store.list().unwrap();
    assert_eq!(folders_in(root).len(), all.len(), "{:?}", folders_in(root));
    for stored in &all {
        stored.verify(1).unwrap();
    }
    all.last().unwrap().clone()
}

/// Two large files of weights, two of momentum.
fn store_of(root: &Path, keep: usize, watcher: Arc<dyn Watcher>) -> SnapshotStore {
    let settings = StoreSettings { file_bytes_max: 60_000, ..settings(root, keep) };
    SnapshotStore::open_on(settings, Disk::watched(watcher, 8192)).unwrap()
}

/// Kills `act` at every point in copies of `template` and gives `after` what is left, with what renamed before.
fn sweep(template: &Path, act: impl Fn(&Path, Arc<dyn Watcher>), after: impl Fn(Point, &Path, usize)) -> usize {
    let out = quick_folder();
    let counting = Arc::new(Counting::default());
    let root = out.path().join("whole");
    copy_folder(template, &root);
    act(&root, counting.clone());
    let renamed = counting.renamed.lock().unwrap().clone();
    let points = counting.points();
    for &point in &points {
        let root = out.path().join("killed");
        copy_folder(template, &root);
        let killer = Arc::new(Killer { point, seen: AtomicUsize::new(0) });
        assert!(Fork::start(|| act(&root, killer)).was_killed(), "{point:?}");
        after(point, &root, renamed.iter().filter(|at| **at < point.change).count());
        fs::remove_dir_all(&root).unwrap();
    }
    points.len()
}

#[test]
fn a_process_killed_at_any_change_or_byte_leaves_the_old_or_the_new_snapshot_whole() {
    alone("a_process_killed_at_any_change_or_byte_leaves_the_old_or_the_new_snapshot_whole", || {
        let states = states(3);
        let out = quick_folder();
        let template = out.path().join("template");
        let none = Arc::new(Counting::default());
        let old = store_of(&template, 1, none).save(&states[0], &label(1)).unwrap();
        let survivors = Mutex::new(BTreeMap::new());
        let killed = sweep(
            &template,
            |root, watcher| drop(store_of(root, 1, watcher).save(&states[1], &label(2)).unwrap()),
            |point, root, renamed| {
                let left = check(root);
                // The first rename is that of the new snapshot.
                assert_eq!(left.manifest.round.step, Step(if renamed == 0 { 1 } else { 2 }), "{point:?}");
                assert!(renamed > 0 || left.manifest == old.manifest, "{point:?}");
                // Another save goes on as if nothing had happened.
                if point.bytes == 0 && point.change % 5 == 0 {
                    open(root).save(&states[2], &label(3)).unwrap();
                    assert_eq!(check(root).manifest.round.step, Step(3), "{point:?}");
                }
                if point.change % 40 == 0 {
                    let kept = out.path().join(format!("kept-{}-{}", point.change, point.bytes));
                    copy_folder(root, &kept);
                    survivors.lock().unwrap().insert(kept, ());
                }
            },
        );
        assert!(killed > 150, "only {killed} points");
        // What is left is not only whole: ranks go on from it.
        let survivors = survivors.into_inner().unwrap();
        let verified: Vec<_> = survivors.keys().map(|root| check(root).verify(1).unwrap()).collect();
        assert!(verified.len() > 3);
        let config = tiny_config();
        on_loaded_ranks((2, 1), (&config, one_bit()), weights_of(&config).path(), 2, |rank| {
            for verified in &verified {
                rank.resume(verified).unwrap();
                assert_eq!(rank.digest().unwrap(), verified.stored().manifest.digest.0);
            }
        });
    });
}

#[test]
fn a_process_killed_while_it_cleans_up_or_puts_aside_loses_nothing() {
    alone("a_process_killed_while_it_cleans_up_or_puts_aside_loses_nothing", || {
        let states = states(2);
        let out = quick_folder();
        let template = out.path().join("template");
        let store = open(&template);
        let old = store.save(&states[0], &label(1)).unwrap();
        let new = store.save(&states[1], &label(2)).unwrap();
        let leftovers = [("000003-epoch-1-step-3.partial", &new), ("000001-epoch-1-step-0.gone", &old)];
        let with_leftovers = out.path().join("with leftovers");
        copy_folder(&template, &with_leftovers);
        for (name, of) in leftovers {
            copy_folder(&of.folder, &with_leftovers.join(name));
        }
        let cleaning = sweep(
            &with_leftovers,
            |root, watcher| drop(store_of(root, 2, watcher)),
            |point, root, _| {
                assert_eq!(check(root).manifest, new.manifest, "{point:?}");
                assert_eq!(folders_in(root).len(), 2, "{point:?}");
            },
        );
        assert!(cleaning > 20, "only {cleaning} points");
        let aside = sweep(
            &template,
            |root, watcher| {
                let store = store_of(root, 2, watcher);
                store.put_aside(&store.newest().unwrap().unwrap()).unwrap();
            },
            |point, root, renamed| {
                let newest = open(root).newest().unwrap().unwrap();
                newest.verify(1).unwrap();
                assert_eq!(
                    newest.manifest,
                    if renamed == 0 { new.manifest.clone() } else { old.manifest.clone() },
                    "{point:?}"
                );
            },
        );
        assert!(aside >= 3);
    });
}

#[test]
fn a_process_killed_at_any_time_leaves_whole_snapshots() {
    alone("a_process_killed_at_any_time_leaves_whole_snapshots", || {
        let config = tiny_config();
        // Two ranks write at the same time.
        let captured = on_loaded_ranks((2, 1), (&config, one_bit()), weights_of(&config).path(), 2, |rank| {
            rank.train(&plan(0, 2)).unwrap();
            rank.capture().unwrap()
        });
        let captured = captured.into_iter().next().unwrap().unwrap();
        let out = quick_folder();
        open(out.path()).save(&captured, &label(0)).unwrap();
        let (mut step, mut most_us, mut kills) = (0, 20_000, 0_u64);
        while kills < 25 || step < 5 {
            kills += 1;
            assert!(kills < 1_000, "no save is ever finished");
            let child = Fork::start(|| {
                let store = open(out.path());
                for next in step + 1.. {
                    store.save(&captured, &label(next)).unwrap();
                }
            });
            #[expect(clippy::disallowed_methods, reason = "the moment of death is what is random here; nothing waits for it")]
            std::thread::sleep(Duration::from_micros(kills.wrapping_mul(0x9e37_79b9_7f4a_7c15) % most_us));
            child.kill();
            assert!(child.was_killed());
            let newest = check(out.path()).manifest.round.step.0;
            assert!(newest >= step, "step {newest} after step {step}");
            if newest == step {
                // A busy machine is given more time.
                most_us += most_us / 4;
            }
            step = newest;
        }
    });
}
