//! Following a run: its coordinator account, and the instance that names it.
//!
//! A run can be closed and created anew under its name. Its coordinator account is then another one, of which the old one
//! says nothing: it is just gone. The instance, whose address follows from the run's name, says where the run is now; it is
//! read on the slow timer, and whenever the coordinator account is lost.

use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Watch, WatchConfig, WatchEvent};
use crate::error::ChainError;
use crate::rpc::Rpc;
use crate::run::{CoordinatorView, RunInfo, watch_coordinator};

/// What the watch of a run reports.
#[derive(Debug)]
pub enum RunEvent {
    /// The run has another state.
    Changed(CoordinatorView),
    /// The run's account was closed and created anew: nothing that was known of the run holds.
    Anew(CoordinatorView),
    /// The run was closed and created anew with another account, which is followed from now on.
    Moved(RunInfo),
    /// The run's account is missing or can't be decoded. Reported once, until it can be read again.
    Lost(ChainError),
}

/// A running watch of a run. Dropping it ends it.
#[derive(Debug)]
pub struct RunWatch {
    rpc: Rpc,
    config: WatchConfig,
    info: RunInfo,
    account: Watch<CoordinatorView>,
    named: watch::Receiver<RunInfo>,
    doubt: Arc<Notify>,
    _tasks: JoinSet<()>,
}

impl RunWatch {
    /// The next event. Never ends by itself. Safe to cancel.
    pub async fn recv(&mut self) -> RunEvent {
        loop {
            tokio::select! {
                event = self.account.recv() => return match event {
                    WatchEvent::Changed(view) => RunEvent::Changed(view),
                    WatchEvent::Anew(view) => RunEvent::Anew(view),
                    WatchEvent::Lost(error) => {
                        self.doubt.notify_one();
                        RunEvent::Lost(error)
                    }
                },
                // An error would mean that the task is gone that reads the instance; it lives as long as this watch.
                Ok(()) = self.named.changed() => {
                    let info = self.named.borrow_and_update().clone();
                    if info != self.info {
                        return self.follow(info);
                    }
                }
            }
        }
    }

    fn follow(&mut self, info: RunInfo) -> RunEvent {
        if info.account != self.info.account {
            self.account = watch_coordinator(&self.rpc, info.account, self.config);
        }
        self.info = info.clone();
        RunEvent::Moved(info)
    }

    /// The run as it is followed now.
    #[must_use]
    pub const fn info(&self) -> &RunInfo {
        &self.info
    }

    /// The watch of the run's account.
    #[must_use]
    pub const fn account(&self) -> &Watch<CoordinatorView> {
        &self.account
    }
}

/// Follows the run `info` over all websockets of `rpc`'s endpoints. Must be called within a tokio runtime.
#[must_use]
pub fn watch_run(rpc: &Rpc, info: RunInfo, config: WatchConfig) -> RunWatch {
    let account = watch_coordinator(rpc, info.account, config);
    let (name, named) = watch::channel(info.clone());
    let doubt = Arc::new(Notify::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(read_instance(rpc.clone(), config, name, Arc::clone(&doubt)));
    RunWatch { rpc: rpc.clone(), config, info, account, named, doubt, _tasks: tasks }
}

async fn read_instance(rpc: Rpc, config: WatchConfig, name: watch::Sender<RunInfo>, doubt: Arc<Notify>) {
    // While the run is gone nobody knows when it comes back.
    let mut pause = config.refresh;
    loop {
        tokio::select! {
            () = doubt.notified() => {}
            () = sleep(pause) => {}
        }
        let known = name.borrow().clone();
        match rpc.run_info(&known.run_id).await {
            Ok(found) => {
                name.send_if_modified(|info| std::mem::replace(info, found.clone()) != found);
                pause = config.refresh;
            }
            Err(error) => {
                tracing::debug!(run_id = known.run_id.as_str(), %error, "the run's instance is not read");
                pause = config.poll;
            }
        }
        // Whoever is in doubt all the time is answered at the pace of polling.
        sleep(config.poll).await;
    }
}
