//! What must be in the environment when the process begins.
//!
//! OpenMP and the loader read their variables before `main` does anything. Without a policy, OpenMP's threads spin while
//! they wait, and two workers that share a core stop each other for whole time slices; nobody should have to know that. So
//! a process that is about to train without one starts itself anew, once, with the policy set. The same serves variables of
//! theirs that stand in the file of variables, which is read too late for them.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// How OpenMP's threads wait.
const WAIT_POLICY: &str = "OMP_WAIT_POLICY";
/// Does so too, in GNU's implementation: who sets it has chosen.
const SPIN_COUNT: &str = "GOMP_SPINCOUNT";

/// Whether a variable is read before `main`.
fn is_read_at_start(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("OMP_") || name.starts_with("GOMP_") || name == "LD_LIBRARY_PATH"
}

/// Starts the process anew if a variable that was `read_from_file` came too late, or if it `trains` and OpenMP has no
/// policy. Returns only if there is no need, or with what kept it from starting.
///
/// The new process reads its file of variables again, and finds none of these in it that the environment does not hold
/// already: it never starts itself anew a second time.
pub(crate) fn settle(read_from_file: &[OsString], trains: bool) -> io::Result<()> {
    let late: Vec<&OsString> = read_from_file.iter().filter(|name| is_read_at_start(name)).collect();
    let chosen = [WAIT_POLICY, SPIN_COUNT].iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    if late.is_empty() && (chosen || !trains) {
        return Ok(());
    }
    let mut args = std::env::args_os();
    let own_name = args.next().unwrap_or_else(|| "psyche-solana-client".into());
    let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    let mut command = Command::new(program);
    command.arg0(own_name).args(args);
    if !chosen {
        command.env(WAIT_POLICY, "passive");
    }
    // What else the file holds, keys among it, stays out of the environment that the system shows of a process.
    for name in read_from_file.iter().filter(|name| !is_read_at_start(name)) {
        command.env_remove(name);
    }
    Err(command.exec())
}
