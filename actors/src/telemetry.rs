//! What operators and their tools see of a node: health, metrics and status over HTTP, and metrics pushed by OTLP.
//!
//! [`Tally`] adds up events as they are reported; what is asked of other parts is asked at the moment somebody looks
//! (`gather.rs`). Nothing here changes what the node does.

mod catalogue;
mod devices;
mod gather;
mod health;
mod kinds;
mod otlp;
mod pulse;
mod report;
mod server;
mod sheet;
mod systemd;
mod tally;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix::ArbiterHandle;
use psyche_gpu::devices::Seat;

pub use catalogue::METRICS;
pub use gather::Sources;
pub use health::{CHAIN_SILENCE_SLOTS_MAX, Problem, Readiness};
pub use kinds::TxKind;
pub use otlp::OtlpConfig;
pub(crate) use pulse::Pulse;
pub use report::{ActorReport, BatchReport, DeviceReport, EndpointReport, NodeReport, PeerReport};
pub use sheet::{Kind, Metric, Sheet};
pub use systemd::ServiceManager;
pub use tally::{Membership, Schedule, Tally, TxOutcome};

use crate::chain_of;

/// Where the server listens where the operator does not say it.
pub const METRICS_BIND_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// File in the data folder with the address at which a running node is asked, or [`OFF`].
pub const ADDRESS_FILE: &str = "http-address";

/// Stands for no address: nothing is served.
pub const OFF: &str = "off";

/// How often the wallet's balance is read.
const BALANCE_INTERVAL: Duration = Duration::from_secs(60);

/// Where a node serves its health, metrics and status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsBind {
    /// At [`METRICS_BIND_DEFAULT`] if it is free.
    Default,
    /// There and nowhere else.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

/// Takes the address that `bind` names; `None` where nothing is to be served.
///
/// # Errors
/// What the system says, if the address is one that the operator asked for.
pub(crate) fn listen(bind: MetricsBind) -> io::Result<Option<TcpListener>> {
    let listener = match bind {
        MetricsBind::Off => return Ok(None),
        MetricsBind::At(address) => TcpListener::bind(address)?,
        MetricsBind::Default => match TcpListener::bind(METRICS_BIND_DEFAULT) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::warn!(
                    actor = "telemetry", %error,
                    "health and metrics are not served: {METRICS_BIND_DEFAULT} can't be used; set METRICS_BIND to another \
                     address, or to off"
                );
                return Ok(None);
            }
        },
    };
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
}

/// Starts to serve on the thread of `arbiter`, and names the address in the data folder.
pub(crate) fn start(
    arbiter: &ArbiterHandle,
    listener: Option<TcpListener>,
    otlp: Option<OtlpConfig>,
    seats: Vec<Seat>,
    sources: Sources,
    data_dir: &Path,
) -> Option<SocketAddr> {
    if let Some(otlp) = otlp {
        arbiter.spawn(otlp::follow(otlp, sources.clone()));
    }
    arbiter.spawn(follow_balance(sources.clone()));
    arbiter.spawn(devices::follow(seats, Arc::clone(&sources.tally)));
    let file = data_dir.join(ADDRESS_FILE);
    let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
    // Said as well, so that nobody asks another node that has the default address.
    let noted = address.map_or_else(|| OFF.to_owned(), |address| address.to_string());
    let named = std::fs::write(&file, format!("{noted}\n"));
    if let Err(error) = named {
        tracing::warn!(actor = "telemetry", %error, "the address of health and metrics can't be noted in the data folder");
    }
    if let (Some(listener), Some(address)) = (listener, address) {
        tracing::info!(actor = "telemetry", %address, "health and metrics are served");
        arbiter.spawn(server::serve(listener, sources));
    }
    address
}

async fn follow_balance(sources: Sources) {
    let mut ticks = tokio::time::interval(BALANCE_INTERVAL);
    loop {
        ticks.tick().await;
        match sources.rpc.balance(sources.address).await {
            Ok(lamports) => sources.tally.saw_lamports(lamports.0),
            Err(error) => tracing::debug!(actor = "telemetry", error = %chain_of(&error), "could not read the balance"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    #[test]
    fn an_address_that_is_taken_is_a_failure_where_the_operator_named_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(listen(MetricsBind::At(address)).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(listen(MetricsBind::Off).unwrap().is_none());
        let free = listen(MetricsBind::At("127.0.0.1:0".parse().unwrap())).unwrap().unwrap();
        assert_ne!(free.local_addr().unwrap().port(), 0);
        // Whether it is free here or not, the default address stops nobody.
        assert!(listen(MetricsBind::Default).is_ok());
    }
}
