//! The life of a transaction on a chain whose endpoints misbehave.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use psyche_messages::{Address, Retry};
use psyche_protocol::ids;
use psyche_protocol::machine::CoordinatorError;
use serde_json::json;
use solana_instruction::Instruction;

use super::call;
use super::fake::{Chain, Manner};
use crate::error::ChainError;
use crate::program_error::{ProgramIds, ProgramName, ProgramRefusal};
use crate::rpc::Rpc;
use crate::transaction::{Compute, Plan, Submitted};
use crate::wallet::Wallet;

fn honest() -> Manner {
    Manner::default()
}

fn swallowing() -> Manner {
    Manner { swallows: true, ..Manner::default() }
}

fn forgetful() -> Manner {
    Manner { forgets: true, ..Manner::default() }
}

struct Job {
    payer: Wallet,
    instructions: Vec<Instruction>,
}

impl Job {
    fn new() -> Self {
        let payer = Wallet::new();
        let instructions = vec![call(ids::COORDINATOR, payer.address(), 3)];
        Self { payer, instructions }
    }

    fn plan(&self) -> Plan<'_> {
        let compute = Compute::Simulated;
        Plan { purpose: "a test", payer: &self.payer, signers: &[], instructions: &self.instructions, compute }
    }

    /// Submits with an effect that is there from the `after`th look on; how often it was looked for.
    async fn until(&self, rpc: &Rpc, after: u32) -> (Result<Submitted, ChainError>, u32) {
        let looks = AtomicU32::new(0);
        let done = || async { Ok(looks.fetch_add(1, Ordering::Relaxed) >= after) };
        let submitted = rpc.submit_until(&self.plan(), done).await;
        (submitted, looks.load(Ordering::Relaxed))
    }
}

#[tokio::test]
async fn the_same_bytes_go_to_every_endpoint_and_one_confirmation_is_enough() {
    let (chain, rpc) = Chain::new(vec![forgetful(), honest(), forgetful()]);
    let job = Job::new();
    let confirmed = rpc.submit(&job.plan()).await.unwrap();
    let ledger = chain.ledger();
    assert_eq!(ledger.sent, [confirmed.signature.to_string()]);
    for index in 0..3 {
        assert!(ledger.sendings[&(index, confirmed.signature.to_string())] >= 1, "endpoint {index}");
    }
}

#[tokio::test]
async fn an_endpoint_that_hangs_holds_nobody_up() {
    let (chain, rpc) = Chain::new(vec![honest(), Manner { hangs: true, ..honest() }]);
    let confirmed = rpc.submit(&Job::new().plan()).await.unwrap();
    assert_eq!(chain.ledger().sendings[&(0, confirmed.signature.to_string())], 1, "it is confirmed before it is sent again");
}

#[tokio::test]
async fn what_expired_without_effect_is_signed_anew_with_another_blockhash_and_a_higher_price() {
    let (chain, rpc) = Chain::new(vec![swallowing()]);
    chain.ledger().pace = 100;
    let job = Job::new();
    let healed = async {
        while chain.ledger().sent.len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        chain.ledger().manners[0].swallows = false;
    };
    let ((submitted, looks), ()) = tokio::join!(job.until(&rpc, u32::MAX), healed);
    let Ok(Submitted::Confirmed(confirmed)) = submitted else { panic!("{submitted:?}") };
    let ledger = chain.ledger();
    assert_eq!(ledger.sent.len() as u32, looks + 1, "the effect is looked for before each new signature");
    assert_eq!(ledger.landed.len(), 1, "and one of them landed");
    assert_eq!(ledger.sent.last(), Some(&confirmed.signature.to_string()));
    assert_eq!(ledger.hashes.len(), ledger.sent.len());
    assert_ne!(ledger.packets[0].len(), ledger.packets[1].len(), "the first pays no price, the second does");
}

#[tokio::test]
async fn what_nobody_hears_of_is_sent_again_under_the_same_signature() {
    let (chain, rpc) = Chain::new(vec![swallowing()]);
    let job = Job::new();
    let healed = async {
        while chain.ledger().sent.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        chain.ledger().manners[0].swallows = false;
    };
    let ((submitted, looks), ()) = tokio::join!(job.until(&rpc, u32::MAX), healed);
    let Ok(Submitted::Confirmed(confirmed)) = submitted else { panic!("{submitted:?}") };
    let ledger = chain.ledger();
    assert_eq!((ledger.sent.len(), looks), (1, 0));
    assert_eq!(ledger.sendings[&(0, confirmed.signature.to_string())], 2);
}

#[tokio::test]
async fn every_transaction_has_a_compute_limit_and_the_price_that_others_pay() {
    use base64::Engine as _;
    let adjust = |config: &mut crate::rpc::RpcConfig| config.fee_ceiling_micro_lamports = 35;
    let (chain, rpc) = Chain::with(vec![honest()], adjust);
    chain.ledger().fees = vec![10, 20, 30, 40];
    rpc.submit(&Job::new().plan()).await.unwrap();
    let packet = base64::engine::general_purpose::STANDARD.decode(&chain.ledger().packets[0]).unwrap();
    let holds = |data: &[u8]| packet.windows(data.len()).any(|window| window == data);
    // What the simulation took, half as much again and a margin; three quarters paid at most 40, and the cap is 35.
    assert!(holds(&[&[5, 2][..], &135_000_u32.to_le_bytes()].concat()), "a limit");
    assert!(holds(&[&[9, 3][..], &35_u64.to_le_bytes()].concat()), "a price");
}

#[tokio::test]
async fn what_landed_while_its_confirmation_was_lost_is_not_signed_anew() {
    let (chain, rpc) = Chain::new(vec![forgetful(), forgetful()]);
    chain.ledger().pace = 100;
    let (submitted, looks) = Job::new().until(&rpc, 0).await;
    assert!(matches!(submitted, Ok(Submitted::AlreadyDone)), "{submitted:?}");
    assert_eq!((chain.ledger().sent.len(), looks), (1, 1));
}

#[tokio::test]
async fn an_endpoint_that_lies_about_the_height_does_not_make_us_sign_twice() {
    // The one says that the chain is far ahead and that it knows nothing; the other confirms late.
    let liar = Manner { height: Some(1_000_000), forgets: true, ..honest() };
    let (chain, rpc) = Chain::new(vec![liar, forgetful()]);
    let job = Job::new();
    let remembers = async {
        while chain.ledger().count("getEpochInfo") < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        chain.ledger().manners[1].forgets = false;
    };
    let ((submitted, looks), ()) = tokio::join!(job.until(&rpc, u32::MAX), remembers);
    assert!(matches!(submitted, Ok(Submitted::Confirmed(_))), "{submitted:?}");
    assert_eq!((chain.ledger().sent.len(), looks), (1, 0));
}

#[tokio::test]
async fn what_has_no_effect_to_look_for_is_never_signed_twice() {
    let (chain, rpc) = Chain::new(vec![swallowing()]);
    chain.ledger().pace = 100;
    let expired = rpc.submit(&Job::new().plan()).await.unwrap_err();
    assert!(matches!(expired, ChainError::Expired { .. }), "{expired}");
    assert_eq!(chain.ledger().sent.len(), 1);
}

#[tokio::test]
async fn signing_anew_has_an_end() {
    let (chain, rpc) = Chain::new(vec![swallowing()]);
    chain.ledger().pace = 1_000;
    let (submitted, _looks) = Job::new().until(&rpc, u32::MAX).await;
    assert!(matches!(submitted, Err(ChainError::Expired { .. })), "{submitted:?}");
    assert_eq!(chain.ledger().sent.len() as u32, super::super::SIGNATURES_MAX);
}

#[tokio::test]
async fn a_transaction_whose_fate_stays_unknown_is_said_to_be_so_and_not_signed_anew() {
    let (chain, rpc) = Chain::with(vec![forgetful()], |config| config.transaction_deadline = Duration::from_millis(900));
    chain.ledger().pace = 0;
    let (submitted, looks) = Job::new().until(&rpc, 0).await;
    let Err(error @ ChainError::Unsettled { .. }) = submitted else { panic!("{submitted:?}") };
    assert_eq!((chain.ledger().sent.len(), looks), (1, 0));
    assert_eq!(error.retry(), Retry::Never);
}

#[tokio::test]
async fn a_programs_refusal_is_final_and_sends_nothing() {
    let (chain, rpc) = Chain::new(vec![honest()]);
    chain.ledger().refuses = Some(json!({"InstructionError": [0, {"Custom": 6012}]}));
    let (refused, looks) = Job::new().until(&rpc, u32::MAX).await;
    let error = refused.unwrap_err();
    let refusal = ProgramRefusal::Coordinator(CoordinatorError::InvalidRunState);
    assert!(matches!(&error, ChainError::Program { refusal: found, .. } if *found == refusal), "{error:?}");
    assert_eq!(error.retry(), Retry::Never);
    let ledger = chain.ledger();
    assert_eq!((ledger.sent.len(), ledger.count("simulateTransaction"), looks), (0, 1, 1));
}

#[tokio::test]
async fn a_refusal_of_what_is_done_already_is_none() {
    let (chain, rpc) = Chain::new(vec![honest()]);
    chain.ledger().refuses = Some(json!({"InstructionError": [0, {"Custom": 6013}]}));
    let (submitted, _looks) = Job::new().until(&rpc, 0).await;
    assert!(matches!(submitted, Ok(Submitted::AlreadyDone)), "{submitted:?}");
    assert!(chain.ledger().sent.is_empty());
}

#[tokio::test]
async fn what_is_in_the_way_for_a_moment_is_waited_for() {
    let (chain, rpc) = Chain::new(vec![honest()]);
    chain.ledger().refuses = Some(json!("AccountInUse"));
    let job = Job::new();
    let plan = job.plan();
    let free = async {
        while chain.ledger().count("simulateTransaction") < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        chain.ledger().refuses = None;
    };
    let (confirmed, ()) = tokio::join!(rpc.submit(&plan), free);
    confirmed.unwrap();
    chain.ledger().refuses = Some(json!("AccountInUse"));
    let error = rpc.submit(&plan).await.unwrap_err();
    assert!(matches!(error.retry(), Retry::After(_)), "{error}");
    let text = "run a test: an account is being written by another transaction at this moment";
    assert_eq!(error.to_string(), text);
}

#[tokio::test]
async fn a_refusal_in_an_inner_call_is_attributed_by_the_log_of_what_landed() {
    let (chain, rpc) = Chain::new(vec![forgetful(), honest()]);
    let programs = ProgramIds::default();
    {
        let mut ledger = chain.ledger();
        ledger.fails = Some(json!({"InstructionError": [0, {"Custom": 6001}]}));
        ledger.logs = vec![
            format!("Program {} invoke [1]", programs.treasurer),
            format!("Program log: Program {} failed: a lie", programs.authorizer),
            format!("Program {} invoke [2]", programs.coordinator),
            format!("Program {} failed: custom program error: 0x1771", programs.coordinator),
            format!("Program {} failed: custom program error: 0x1771", programs.treasurer),
        ];
    }
    let payer = Wallet::new();
    let instructions = [call(ids::TREASURER, payer.address(), 1)];
    let compute = Compute::Limit(5_000);
    let plan = Plan { purpose: "a test", payer: &payer, signers: &[], instructions: &instructions, compute };
    let error = rpc.submit(&plan).await.unwrap_err();
    assert_eq!(error.program_code(ProgramName::Coordinator), Some(6001), "{error}");
    assert!(!error.to_string().contains("0x"));
}

#[tokio::test]
async fn many_submissions_at_once_share_a_blockhash_and_the_fees_but_no_signature() {
    let (chain, rpc) = Chain::new(vec![honest()]);
    chain.ledger().fees = vec![10, 20, 30, 40];
    let job = Job::new();
    let plan = job.plan();
    let all = futures::future::join_all((0..20).map(|_| rpc.submit(&plan))).await;
    let signatures: std::collections::HashSet<_> = all.into_iter().map(|confirmed| confirmed.unwrap().signature).collect();
    assert_eq!(signatures.len(), 20, "twenty were asked for, twenty are on the chain");
    assert_eq!(chain.ledger().landed.len(), 20);
    assert_eq!(chain.ledger().count("getLatestBlockhash"), 1);
    let before = chain.ledger().count("getRecentPrioritizationFees");
    rpc.submit(&plan).await.unwrap();
    assert_eq!(chain.ledger().count("getRecentPrioritizationFees"), before, "a fee that is fresh is not asked for again");
}

#[tokio::test]
async fn a_blockhash_is_asked_for_anew_once_the_chain_has_moved_on() {
    let (chain, rpc) = Chain::new(vec![honest()]);
    let job = Job::new();
    rpc.submit(&job.plan()).await.unwrap();
    chain.ledger().height += 200;
    rpc.balance(job.payer.address()).await.unwrap();
    rpc.submit(&job.plan()).await.unwrap();
    assert_eq!(chain.ledger().count("getLatestBlockhash"), 2);
}

#[tokio::test]
async fn a_connection_that_breaks_while_sending_may_have_delivered() {
    // An answer that makes no sense: the endpoint has taken the transaction and fails to say so.
    let (chain, rpc) = Chain::new(vec![Manner { breaks_off: true, ..honest() }]);
    let (submitted, _looks) = Job::new().until(&rpc, u32::MAX).await;
    assert!(matches!(submitted, Ok(Submitted::Confirmed(_))), "{submitted:?}");
    assert_eq!(chain.ledger().sent.len(), 1);
}

#[test]
fn every_failure_of_a_transaction_reads_without_hex_and_debug() {
    let purpose = "a test";
    let refusal = ProgramRefusal::of(ProgramName::Other(Address([9; 32])), 0x1771);
    let unknown = ChainError::Program { purpose, program: ProgramName::Other(Address([9; 32])), code: 0x1771, refusal };
    assert!(unknown.to_string().contains("6001") && !unknown.to_string().contains("0x"), "{unknown}");
    let reason = solana_transaction_error::TransactionError::InstructionError(
        0,
        solana_instruction::error::InstructionError::ComputationalBudgetExceeded,
    );
    let broken = ChainError::Transaction { purpose, reason: Box::new(reason) };
    let text = "run a test: the instruction takes more compute units than it was given";
    assert_eq!(broken.to_string(), text);
}
