//! Every instruction once, whatever happens to its transaction on the way: the real programs on a real chain, behind an
//! endpoint that loses what it is given and forgets what it saw.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use psyche_chain::ops::{self, AuthorizationDeleted, ClaimKind, NewTreasury, RunUpdate};
use psyche_chain::{ChainError, EndpointPair, Rpc, RpcConfig, Wallet};
use psyche_localnet::Localnet;
use psyche_messages::{PeerKey, Phase, Points, RunId};
use psyche_protocol::instruction::{Args, JoinRunArgs, WarmupWitnessArgs, WitnessArgs};
use serde_json::{Value, json};
use solana_client::client_error::Result as ClientResult;
use solana_client::nonblocking::rpc_client::RpcClient;
use solana_client::rpc_request::RpcRequest;
use solana_client::rpc_sender::{RpcSender, RpcTransportStats};

use crate::run::{EVERYONE, new_run, play, update};
use crate::support::{chain, direct};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Transactions land, but nobody hears of it: no status is known, and the chain seems to have moved far on.
    LosesConfirmations,
    /// The first signature after [`Bad::begin`] goes nowhere until it seems to have expired.
    LosesTheFirst,
    /// It goes nowhere, and nobody lies: only time can tell that it expired.
    DropsTheFirst,
}

/// An endpoint with bad days in front of a real chain.
#[derive(Clone)]
struct Bad(Arc<Inner>);

struct Inner {
    sender: RpcClient,
    fault: Fault,
    sent: Mutex<Vec<String>>,
    since: Mutex<usize>,
    /// The blockhashes that were handed out, each with the last block in which it is valid.
    hashes: Mutex<Vec<(String, u64)>>,
    /// How many blocks the chain had at each of `sent`.
    heights: Mutex<Vec<u64>>,
}

impl Bad {
    fn before(chain: &Localnet, fault: Fault) -> Result<(Self, Rpc)> {
        let sender = RpcClient::new(chain.rpc_url());
        let bad = Self(Arc::new(Inner {
            sender,
            fault,
            sent: Mutex::default(),
            since: Mutex::default(),
            hashes: Mutex::default(),
            heights: Mutex::default(),
        }));
        let config = RpcConfig::new(vec![EndpointPair::parse(&chain.rpc_url(), "")?]);
        Ok((bad.clone(), Rpc::with_senders(config, vec![bad])?))
    }

    /// Different transactions sent so far.
    fn sent(&self) -> usize {
        self.0.sent.lock().unwrap().len()
    }

    /// From here on the next signature is the first.
    fn begin(&self) {
        *self.0.since.lock().unwrap() = self.sent();
    }

    fn fresh(&self) -> usize {
        self.sent() - *self.0.since.lock().unwrap()
    }

    async fn confirmed(&self) -> ClientResult<bool> {
        let sent = self.0.sent.lock().unwrap().clone();
        let Some(last) = sent.last() else { return Ok(false) };
        let statuses: Value = self.0.sender.send(RpcRequest::GetSignatureStatuses, json!([[last]])).await?;
        Ok(matches!(statuses["value"][0]["confirmationStatus"].as_str(), Some("confirmed" | "finalized")))
    }

    async fn answer(&self, request: RpcRequest, params: Value) -> ClientResult<Value> {
        let (sender, fault) = (&self.0.sender, self.0.fault);
        match request {
            RpcRequest::SendTransaction => {
                let signature = signature_of(params[0].as_str().unwrap());
                let mut sent = self.0.sent.lock().unwrap().clone();
                if !sent.contains(&signature) {
                    let tip = json!([{"commitment": "processed"}]);
                    let height: u64 = sender.send(RpcRequest::GetBlockHeight, tip).await?;
                    self.0.heights.lock().unwrap().push(height);
                    sent.push(signature.clone());
                    *self.0.sent.lock().unwrap() = sent;
                }
                if fault != Fault::LosesConfirmations && self.fresh() == 1 {
                    return Ok(json!(signature));
                }
                sender.send(request, params).await
            }
            RpcRequest::GetLatestBlockhash => {
                let latest: Value = sender.send(request, params).await?;
                let last_valid = latest["value"]["lastValidBlockHeight"].as_u64().unwrap();
                let hash = latest["value"]["blockhash"].as_str().unwrap().to_owned();
                self.0.hashes.lock().unwrap().push((hash, last_valid));
                Ok(latest)
            }
            RpcRequest::GetSignatureStatuses if fault == Fault::LosesConfirmations => {
                Ok(json!({"context": {"slot": 1}, "value": [null]}))
            }
            RpcRequest::GetEpochInfo => {
                let mut info: Value = sender.send(request, params).await?;
                let ahead = match fault {
                    Fault::LosesConfirmations => self.confirmed().await?,
                    Fault::LosesTheFirst => self.fresh() == 1,
                    Fault::DropsTheFirst => false,
                };
                if ahead {
                    info["blockHeight"] = json!(info["blockHeight"].as_u64().unwrap() + 100_000);
                }
                Ok(info)
            }
            request => sender.send(request, params).await,
        }
    }
}

fn signature_of(packet: &str) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(packet).unwrap();
    psyche_chain::Signature::try_from(&bytes[1..65]).unwrap().to_string()
}

impl RpcSender for Bad {
    fn send<'a, 'b>(
        &'a self,
        request: RpcRequest,
        params: Value,
    ) -> Pin<Box<dyn Future<Output = ClientResult<Value>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.answer(request, params))
    }

    fn get_transport_stats(&self) -> RpcTransportStats {
        RpcTransportStats::default()
    }

    fn url(&self) -> String {
        self.0.sender.url()
    }
}

/// How often the run was told what, by distinct transactions that succeeded.
fn told<'a, A: Args<'a>>(calls: &'a [ops::CoordinatorCall]) -> Vec<&'a ops::CoordinatorCall> {
    calls.iter().filter(|call| A::decode(&call.data).is_ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_lives_whole_and_once_while_every_confirmation_is_lost() -> Result<()> {
    let (owner, first, second) = (Wallet::new(), Wallet::new(), Wallet::new());
    let chain = chain(&[&owner, &first, &second]).await?;
    let honest = direct(&chain)?;
    let (bad, rpc) = Bad::before(&chain, Fault::LosesConfirmations)?;
    let run_id: RunId = "unheard".parse()?;

    let mint = ops::create_mint(&rpc, &owner, 6).await?;
    // What shows no effect is signed once, and said to have expired: nobody can know better through this endpoint.
    let minted = ops::mint_to(&rpc, &owner, mint, owner.address(), Points(1_000)).await.unwrap_err();
    ensure!(matches!(minted, ChainError::Expired { .. }), "{minted}");
    ensure!(bad.sent() == 2);
    let run = ops::create_run(&rpc, &owner, &new_run(&run_id, Some(NewTreasury { mint, index: None }))).await?;
    ensure!(bad.sent() == 3, "one signature made the run");
    let updates = ops::update_run(&rpc, &owner, &run_id, &update()).await?.len();
    ops::set_future_epoch_rates(&rpc, &owner, &run_id, Some(100), None).await?;
    let grant = ops::authorization_create(&rpc, &owner, EVERYONE).await?;
    ops::top_up(&honest, &owner, &run_id, Points(100)).await?;
    ops::set_paused(&rpc, &owner, &run_id, false).await?;
    ensure!(bad.sent() == 6 + updates, "{} transactions", bad.sent());
    let (_, begun) = honest.fetch_run(&run_id).await?;
    for client in [&first, &second] {
        ops::join_run(&rpc, client, &run, grant, PeerKey(client.address().0)).await?;
    }
    ensure!(bad.sent() == 8 + updates);
    let end = tokio::time::timeout(std::time::Duration::from_secs(120), play(&rpc, &run, &[&first, &second])).await??;
    ensure!((end.phase(), end.step().0) == (Phase::Finished, 3));

    let calls = ops::calls_since(&honest, &run, begun.slot, 500).await?;
    let by = |calls: Vec<&ops::CoordinatorCall>| {
        let users: Vec<_> = calls.iter().map(|call| call.user).collect();
        (users.len(), users.iter().copied().collect::<BTreeSet<_>>().len())
    };
    ensure!(by(told::<JoinRunArgs>(&calls)) == (2, 2), "each joined once");
    ensure!(by(told::<WarmupWitnessArgs>(&calls)) == (2, 2), "each was ready once");
    ensure!(by(told::<WitnessArgs>(&calls)) == (4, 2), "each testified once in each of two rounds");

    let before = bad.sent();
    for client in [&first, &second] {
        let claimed = ops::claim_rewards(&rpc, client, &run_id, None).await?;
        ensure!((claimed.kind, claimed.amount) == (ClaimKind::Paid, Points(50)), "{claimed:?}");
        let again = ops::claim_rewards(&rpc, client, &run_id, None).await?;
        ensure!(again.kind == ClaimKind::NothingToClaim);
    }
    ensure!(bad.sent() == before + 2);
    let gone = ops::authorization_delete(&rpc, &owner, EVERYONE, None).await?;
    ensure!(matches!(gone, AuthorizationDeleted::Closed { .. }) && bad.sent() == before + 3, "{gone:?}");
    Ok(chain.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_nowhere_until_it_expired_is_signed_anew_and_happens_once() -> Result<()> {
    let (owner, client, spill) = (Wallet::new(), Wallet::new(), Wallet::new());
    let chain = chain(&[&owner, &client]).await?;
    let honest = direct(&chain)?;
    let (bad, rpc) = Bad::before(&chain, Fault::LosesTheFirst)?;
    let run_id: RunId = "lost".parse()?;
    let twice = |what: &str| {
        let signed = bad.fresh();
        bad.begin();
        ensure!(signed == 2, "{what} was signed {signed} times");
        Ok(())
    };
    let run = ops::create_run(&rpc, &owner, &new_run(&run_id, None)).await?;
    twice("the creation")?;
    ops::update_run(&honest, &owner, &run_id, &update()).await?;
    let version = RunUpdate { client_version: Some("2.0.0".into()), ..RunUpdate::default() };
    ops::update_run(&rpc, &owner, &run_id, &version).await?;
    twice("the version")?;
    ops::set_future_epoch_rates(&rpc, &owner, &run_id, Some(5), Some(6)).await?;
    twice("the rates")?;
    let grant = ops::authorization_create(&rpc, &owner, client.address()).await?;
    twice("the grant")?;
    ops::authorization_delegate(&rpc, &client, owner.address(), false, &[owner.address()]).await?;
    twice("the delegation")?;
    let delegates = ops::authorization_read(&honest, owner.address(), client.address()).await?.unwrap().delegates;
    ensure!(delegates == [owner.address()], "{delegates:?}");
    ops::set_paused(&rpc, &owner, &run_id, false).await?;
    twice("the resumption")?;
    let resumed = honest.coordinator(run.account).await?;
    ops::join_run(&rpc, &client, &run, grant, PeerKey(client.address().0)).await?;
    twice("the join")?;
    let joined = honest.coordinator(run.account).await?;
    ensure!(joined.nonce().0 == resumed.nonce().0 + 1, "the run heard of one join");
    ops::set_paused(&rpc, &owner, &run_id, true).await?;
    twice("the pause")?;
    let closed = ops::close_run(&rpc, &owner, &run_id, Some(spill.address())).await?;
    twice("the end")?;
    ensure!(honest.balance(spill.address()).await? == closed.refunded);
    let calls = ops::calls_since(&honest, &run, resumed.slot, 100).await?;
    ensure!(told::<JoinRunArgs>(&calls).len() == 1);
    Ok(chain.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_dropped_is_signed_anew_once_its_blockhash_has_really_expired() -> Result<()> {
    let (owner, client) = (Wallet::new(), Wallet::new());
    let chain = chain(&[&owner, &client]).await?;
    let honest = direct(&chain)?;
    let (bad, rpc) = Bad::before(&chain, Fault::DropsTheFirst)?;
    let address = ops::authorization_create(&rpc, &owner, client.address()).await?;
    ensure!(bad.sent() == 2, "signed {} times", bad.sent());
    let (hashes, heights) = (bad.0.hashes.lock().unwrap().clone(), bad.0.heights.lock().unwrap().clone());
    let (first, last_valid) = &hashes[0];
    ensure!(heights[1] > *last_valid, "the first could have landed until block {last_valid}: {heights:?}");
    ensure!(hashes.len() == 2 && hashes[1].0 != *first, "each has a blockhash of its own: {hashes:?}");
    let valid: Value = bad.0.sender.send(RpcRequest::IsBlockhashValid, json!([first])).await?;
    ensure!(valid["value"] == json!(false), "{valid}");
    let records = honest.signatures(address, None, 10).await?;
    ensure!(records.len() == 1 && records[0].signature.to_string() == bad.0.sent.lock().unwrap()[1], "{records:?}");
    Ok(chain.stop().await?)
}
