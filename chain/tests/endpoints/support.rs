//! Clients of the servers, and waiting for predicates.

use std::time::{Duration, Instant};

use psyche_chain::{Circuit, EndpointHealth, Rpc, RpcConfig};
use psyche_messages::Address;

use crate::server::Server;

pub(crate) const WHO: Address = Address([7; 32]);
/// Longer than any test takes: whatever waits for it has failed.
pub(crate) const NEVER: Duration = Duration::from_secs(600);
const DEADLINE: Duration = Duration::from_secs(60);

/// The configuration of a client that neither a time-out of its own nor a second endpoint saves from waiting: a machine that
/// is busy for a second must not look like an endpoint that hangs.
pub(crate) fn config<'a>(servers: impl IntoIterator<Item = &'a Server>) -> RpcConfig {
    let mut config = RpcConfig::new(servers.into_iter().map(Server::pair).collect());
    config.request_timeout = NEVER;
    config.call_timeout = NEVER;
    config.survey_every = NEVER;
    (config.hedge_after_min, config.hedge_after_max) = (NEVER, NEVER);
    config.cooldown = Duration::from_millis(50);
    config.cooldown_max = Duration::from_millis(200);
    config
}

pub(crate) fn client<'a>(servers: impl IntoIterator<Item = &'a Server>) -> Rpc {
    Rpc::new(config(servers)).unwrap()
}

/// Makes a read, and expects that it needs no such wait as [`NEVER`].
pub(crate) async fn balance(rpc: &Rpc) -> u64 {
    within(rpc.balance(WHO)).await.unwrap().0
}

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.expect("it hangs")
}

pub(crate) async fn until(what: &str, mut predicate: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !predicate() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Makes reads until `predicate` holds: what is found out in the background is found out while calls are made.
pub(crate) async fn read_until(rpc: &Rpc, what: &str, predicate: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !predicate() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        let _read = rpc.balance(WHO).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn circuits(rpc: &Rpc) -> Vec<Circuit> {
    rpc.health().into_iter().map(|EndpointHealth { circuit, .. }| circuit).collect()
}
