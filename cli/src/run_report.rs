//! Where a run stands, as the chain says: for `status`, and the view that watches it.

use psyche_actors::telemetry::{EndpointReport, Schedule};
use psyche_chain::{ChainError, Rpc, about, epoch_left};
use psyche_messages::{Address, Epoch, Phase, Points, RunId, Slot, Step};
use psyche_protocol::layout::CoordinatorAccount;
use serde::Serialize;

/// Where a run stands. `status --run-id … --json` prints it: fields are added, never renamed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RunReport {
    pub(crate) run_id: RunId,
    pub(crate) account: Address,
    pub(crate) slot: Slot,
    pub(crate) phase: Phase,
    /// The chain's clock when the phase began.
    pub(crate) since: i64,
    /// Seconds of the chain's clock until the phase ends if nothing ends it before.
    pub(crate) phase_left_s: Option<u64>,
    /// Seconds until the epoch's time is up.
    pub(crate) epoch_left_s: Option<u64>,
    pub(crate) epoch: Epoch,
    /// The round within the epoch, from 0.
    pub(crate) round: Option<u32>,
    pub(crate) step: Step,
    pub(crate) total_steps: u32,
    pub(crate) clients: usize,
    pub(crate) pending: usize,
    pub(crate) min_clients: u16,
    /// Samples of a step, at its largest.
    pub(crate) batch_samples: u16,
    /// What an epoch pays to all of its clients together.
    pub(crate) epoch_points: Points,
    pub(crate) client_version: String,
    /// The epoch's clients, those that left it, and those that wait for the next one.
    pub(crate) members: Vec<MemberReport>,
    /// The endpoints that were asked.
    pub(crate) endpoints: Vec<EndpointReport>,
}

/// A client of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct MemberReport {
    pub(crate) address: Address,
    /// `healthy`, or how it left the epoch; `waiting` for the next one.
    pub(crate) state: String,
    pub(crate) earned: Points,
    pub(crate) slashed: Points,
}

impl RunReport {
    /// Asks the chain.
    pub(crate) async fn read(rpc: &Rpc, run_id: &RunId) -> Result<Self, ChainError> {
        let (info, view) = rpc.fetch_run(run_id).await?;
        let account = &view.account;
        let coordinator = &account.state.coordinator;
        let (_slot, now) = rpc.clock().await?;
        let schedule = Schedule::of(coordinator);
        Ok(Self {
            run_id: run_id.clone(),
            account: info.account,
            slot: view.slot,
            phase: view.phase(),
            since: view.since().0,
            phase_left_s: schedule.ends.map(|ends| u64::try_from(ends.0.saturating_sub(now.0)).unwrap_or(0)),
            epoch_left_s: epoch_left(account, now),
            epoch: view.epoch(),
            round: schedule.round,
            step: view.step(),
            total_steps: coordinator.config.total_steps,
            clients: account.clients().len(),
            pending: account.state.clients_state.pending().count(),
            min_clients: coordinator.config.min_clients,
            batch_samples: coordinator.config.global_batch_size_end,
            epoch_points: Points(account.state.clients_state.current_earning_rate),
            client_version: printable(account.state.client_version.as_str()),
            members: members(account),
            endpoints: rpc.health().into_iter().map(EndpointReport::from).collect(),
        })
    }

    /// For people.
    pub(crate) fn page(&self) -> String {
        let Self { phase, epoch, step, total_steps, clients, pending, slot, client_version, account, .. } = self;
        let run_id = printable(self.run_id.as_str());
        let left = self.epoch_left_s.map_or_else(String::new, |left| format!(", for about {}", about(left)));
        format!(
            "run      {run_id} ({account})\nphase    {phase}\nepoch    {epoch}{left}\nstep     {step} of {total_steps}\n\
             clients  {clients} in the epoch, {pending} wait for the next one\nversion  {client_version}\nslot     {slot}\n"
        )
    }

    /// In one line, for a log.
    pub(crate) fn line(&self) -> String {
        let Self { phase, epoch, step, total_steps, clients, pending, slot, .. } = self;
        let run_id = printable(self.run_id.as_str());
        format!(
            "run {run_id}  phase {phase}  epoch {epoch}  step {step} of {total_steps}  {clients} clients, {pending} wait  slot {slot}\n"
        )
    }
}

fn members(account: &CoordinatorAccount) -> Vec<MemberReport> {
    let of_roster = |signer| account.roster_client(signer).map_or((0, 0), |client| (client.earned, client.slashed));
    let exited = account.state.coordinator.epoch_state.exited_clients.as_slice();
    let here = account.clients().iter().chain(exited).map(|client| {
        let (earned, slashed) = of_roster(&client.id.signer);
        let state = format!("{:?}", client.client_state()).to_lowercase();
        MemberReport { address: Address(client.id.signer), state, earned: Points(earned), slashed: Points(slashed) }
    });
    let mut members: Vec<_> = here.collect();
    // Who goes on is pending from the moment that it joins again.
    for client in account.state.clients_state.pending() {
        let address = Address(client.id.signer);
        if !members.iter().any(|member| member.address == address) {
            let (earned, slashed) = (Points(client.earned), Points(client.slashed));
            members.push(MemberReport { address, state: "waiting".to_owned(), earned, slashed });
        }
    }
    members
}

/// What strangers wrote, without what a terminal would obey.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
