//! The reads: accounts, balances, the clock, signatures.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use psyche_messages::{Address, ChainTime, Lamports, Points, Slot};
use psyche_protocol::ids;
use serde::Deserialize;
use serde_json::{Value, json};
use solana_account_decoder_client_types::{UiAccount, UiAccountData, UiAccountEncoding};
use solana_client::rpc_request::RpcRequest;
use solana_client::rpc_response::Response;
use solana_signature::Signature;
use solana_transaction_status_client_types::TransactionStatus;

use super::Rpc;
use super::breaker::Fault;
use crate::error::ChainError;

/// The Clock sysvar: `SysvarC1ock11111111111111111111111111111111`.
const CLOCK_SYSVAR: &str = "SysvarC1ock11111111111111111111111111111111";
/// Longest account that is unpacked: the chain's own limit.
const ACCOUNT_LEN_MAX: usize = 10 * 1024 * 1024;
/// Most addresses that one request may ask for, by the protocol.
const ACCOUNTS_PER_REQUEST: usize = 100;
/// How often a confirmation is looked for.
const POLL: Duration = Duration::from_millis(100);
/// How long an airdrop or a slot may take to be confirmed.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(60);

/// An account as it was at a slot.
#[derive(Clone, PartialEq, Eq)]
pub struct AccountRead {
    /// The slot at which it was read.
    pub slot: Slot,
    /// Its balance.
    pub lamports: Lamports,
    /// The program that owns it.
    pub owner: Address,
    /// Whether it is a program.
    pub executable: bool,
    /// Its bytes.
    pub data: Vec<u8>,
}

impl std::fmt::Debug for AccountRead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("AccountRead");
        debug.field("slot", &self.slot).field("lamports", &self.lamports).field("owner", &self.owner);
        debug.field("executable", &self.executable).field("len", &self.data.len()).finish()
    }
}

impl AccountRead {
    /// Unpacks what an endpoint sent; `None` if it is no account of permissible size.
    pub(crate) fn unpack(slot: Slot, account: UiAccount) -> Option<Self> {
        let data = match account.data {
            UiAccountData::Binary(text, UiAccountEncoding::Base64) => BASE64.decode(text).ok()?,
            UiAccountData::Binary(text, UiAccountEncoding::Base64Zstd) => {
                zstd::bulk::decompress(&BASE64.decode(text).ok()?, ACCOUNT_LEN_MAX).ok()?
            }
            _ => return None,
        };
        if data.len() > ACCOUNT_LEN_MAX {
            return None;
        }
        let (lamports, owner) = (Lamports(account.lamports), account.owner.parse().ok()?);
        Some(Self { slot, lamports, owner, executable: account.executable, data })
    }
}

/// A transaction that touched an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureRecord {
    /// Its signature.
    pub signature: Signature,
    /// The slot that holds it.
    pub slot: Slot,
    /// Whether it succeeded.
    pub succeeded: bool,
}

impl Rpc {
    /// The configuration object of reads: commitment, and no state older than any that was seen.
    pub(crate) fn read_config(&self) -> Value {
        json!({"commitment": "confirmed", "minContextSlot": self.seen_slot().0})
    }

    fn account_config(&self) -> Value {
        json!({"commitment": "confirmed", "minContextSlot": self.seen_slot().0, "encoding": "base64+zstd"})
    }

    pub(crate) async fn call_at<T: serde::de::DeserializeOwned>(
        &self,
        request: RpcRequest,
        params: Value,
    ) -> Result<(Slot, T), ChainError> {
        self.call_at_with(request, params, |_slot, value| Some(value)).await
    }

    /// As [`Rpc::call_with`] for answers that say from which slot they are: one from before the slot that was asked for is
    /// none, whether the endpoint minded the request's `minContextSlot` or not.
    async fn call_at_with<T: serde::de::DeserializeOwned, U>(
        &self,
        request: RpcRequest,
        params: Value,
        read: impl Fn(Slot, T) -> Option<U> + Send + Sync,
    ) -> Result<(Slot, U), ChainError> {
        let read = |response: Response<T>, floor: Slot| {
            let slot = Slot(response.context.slot);
            if slot < floor {
                return Err(Fault::Behind);
            }
            read(slot, response.value).map(|value| (slot, value)).ok_or(Fault::Bad)
        };
        let (index, (slot, value)) = self.call_with(request, params, read).await?;
        self.board(|board| board.read_from(index, slot, Instant::now()));
        Ok((slot, value))
    }

    pub(crate) fn malformed(&self, request: RpcRequest) -> ChainError {
        ChainError::Malformed { endpoint: self.current_name(), method: request.as_str() }
    }

    /// The account at `address`, and the slot of the answer even where there is none.
    ///
    /// # Errors
    /// [`ChainError`] where no endpoint answers.
    pub async fn account_at(&self, address: Address) -> Result<(Slot, Option<AccountRead>), ChainError> {
        let params = json!([address.to_string(), self.account_config()]);
        let unpack = |slot, account: Option<UiAccount>| match account {
            Some(account) => AccountRead::unpack(slot, account).map(Some),
            None => Some(None),
        };
        self.call_at_with(RpcRequest::GetAccountInfo, params, unpack).await
    }

    /// The account at `address`.
    ///
    /// # Errors
    /// [`ChainError`] where no endpoint answers.
    pub async fn account(&self, address: Address) -> Result<Option<AccountRead>, ChainError> {
        Ok(self.account_at(address).await?.1)
    }

    /// The accounts at `addresses`, in their order. Those of one hundred addresses are of one slot.
    ///
    /// # Errors
    /// [`ChainError`] where no endpoint answers.
    pub async fn accounts(&self, addresses: &[Address]) -> Result<Vec<Option<AccountRead>>, ChainError> {
        let mut accounts = Vec::with_capacity(addresses.len());
        for some in addresses.chunks(ACCOUNTS_PER_REQUEST) {
            let names: Vec<String> = some.iter().map(Address::to_string).collect();
            let params = json!([names, self.account_config()]);
            let unpack = |slot, found: Vec<Option<UiAccount>>| {
                let unpack = |account: Option<UiAccount>| match account {
                    Some(account) => AccountRead::unpack(slot, account).map(Some),
                    None => Some(None),
                };
                let complete = found.len() == some.len();
                found.into_iter().map(unpack).collect::<Option<Vec<_>>>().filter(|_| complete)
            };
            let (_slot, found) = self.call_at_with(RpcRequest::GetMultipleAccounts, params, unpack).await?;
            accounts.extend(found);
        }
        Ok(accounts)
    }

    /// The chain's slot and time, from its Clock sysvar.
    ///
    /// # Errors
    /// [`ChainError`] where no endpoint answers.
    pub async fn clock(&self) -> Result<(Slot, ChainTime), ChainError> {
        let params = json!([CLOCK_SYSVAR, self.account_config()]);
        // Layout: slot u64, epoch_start_timestamp i64, epoch u64, leader_schedule_epoch u64, unix_timestamp i64.
        let read = |slot, account: Option<UiAccount>| {
            let data = AccountRead::unpack(slot, account?)?.data;
            let at = |offset: usize| -> Option<[u8; 8]> { data.get(offset..offset + 8)?.try_into().ok() };
            Some((Slot(u64::from_le_bytes(at(0)?)), ChainTime(i64::from_le_bytes(at(32)?))))
        };
        self.call_at_with(RpcRequest::GetAccountInfo, params, read).await.map(|(_slot, clock)| clock)
    }

    /// The balance of `address`; 0 where there is no account.
    ///
    /// # Errors
    /// [`ChainError`] where no endpoint answers.
    pub async fn balance(&self, address: Address) -> Result<Lamports, ChainError> {
        let params = json!([address.to_string(), self.read_config()]);
        let (_slot, lamports) = self.call_at(RpcRequest::GetBalance, params).await?;
        Ok(Lamports(lamports))
    }

    /// What an account of `len` bytes must hold to stay.
    ///
    /// # Errors
    /// [`ChainError`] where no endpoint answers.
    pub async fn rent_minimum(&self, len: usize) -> Result<Lamports, ChainError> {
        let params = json!([len, {"commitment": "confirmed"}]);
        self.call(RpcRequest::GetMinimumBalanceForRentExemption, params).await.map(Lamports)
    }

    /// The hash that tells chains apart, in base58.
    ///
    /// # Errors
    /// [`ChainError`] where no endpoint answers.
    pub async fn genesis_hash(&self) -> Result<String, ChainError> {
        self.call(RpcRequest::GetGenesisHash, json!([])).await
    }

    /// How many blocks the chain has; transactions expire by it.
    ///
    /// # Errors
    /// [`ChainError`] where no endpoint answers.
    pub async fn block_height(&self) -> Result<u64, ChainError> {
        self.call(RpcRequest::GetBlockHeight, json!([self.read_config()])).await
    }

    /// Waits until the chain has confirmed `slot`.
    ///
    /// # Errors
    /// [`ChainError::Timeout`] if it does not within a minute; [`ChainError`] where no endpoint answers.
    pub async fn wait_for_slot(&self, slot: Slot) -> Result<(), ChainError> {
        let deadline = Instant::now() + CONFIRMED_WITHIN;
        while self.call::<u64>(RpcRequest::GetSlot, json!([{"commitment": "confirmed"}])).await? < slot.0 {
            self.pause_until(deadline).await?;
        }
        self.note_slot(slot);
        Ok(())
    }

    async fn pause_until(&self, deadline: Instant) -> Result<(), ChainError> {
        if Instant::now() > deadline {
            return Err(ChainError::Timeout { endpoint: self.current_name(), after: CONFIRMED_WITHIN });
        }
        tokio::time::sleep(POLL).await;
        Ok(())
    }

    /// The balance of the token account at `address`, in base units; `None` where there is no token account.
    ///
    /// # Errors
    /// [`ChainError`] where no endpoint answers.
    pub async fn token_balance(&self, address: Address) -> Result<Option<Points>, ChainError> {
        let account = self.account(address).await?;
        Ok(account.filter(|account| account.owner.0 == ids::TOKEN_PROGRAM).and_then(|account| token_amount(&account.data)))
    }

    /// Asks the chain's faucet for `lamports` and waits until they are there. Only test networks have one.
    ///
    /// # Errors
    /// [`ChainError::Refused`] or [`ChainError::Unfit`] without a faucet, [`ChainError::Timeout`] if nothing comes.
    pub async fn airdrop(&self, address: Address, lamports: Lamports) -> Result<Signature, ChainError> {
        let deadline = Instant::now() + CONFIRMED_WITHIN;
        let params = json!([address.to_string(), lamports.0, {"commitment": "confirmed"}]);
        let signature: String = self.call(RpcRequest::RequestAirdrop, params).await?;
        let signature: Signature = signature.parse().map_err(|_no_signature| self.malformed(RpcRequest::RequestAirdrop))?;
        loop {
            if let Some((slot, _error)) = self.confirmation(&signature, false).await? {
                self.note_slot(slot);
                return Ok(signature);
            }
            self.pause_until(deadline).await?;
        }
    }

    /// Slot and outcome of the transaction `signature`, once it is confirmed.
    pub(crate) async fn confirmation(
        &self,
        signature: &Signature,
        search_history: bool,
    ) -> Result<Option<(Slot, Option<solana_transaction_error::TransactionError>)>, ChainError> {
        let params = json!([[signature.to_string()], {"searchTransactionHistory": search_history}]);
        // This answer's context is the processed slot, which no confirmed read may be asked for.
        let answer: Response<Vec<Option<TransactionStatus>>> = self.call(RpcRequest::GetSignatureStatuses, params).await?;
        let confirmed = solana_commitment_config::CommitmentConfig::confirmed();
        let status = answer.value.into_iter().next().flatten().filter(|status| status.satisfies_commitment(confirmed));
        Ok(status.map(|status| (Slot(status.slot), status.err)))
    }

    /// Transactions that touched `address`, the newest first: at most `limit` (1,000 at most), only those before the
    /// transaction `before` if it is given.
    ///
    /// # Errors
    /// [`ChainError`] where no endpoint answers.
    pub async fn signatures(
        &self,
        address: Address,
        before: Option<Signature>,
        limit: usize,
    ) -> Result<Vec<SignatureRecord>, ChainError> {
        #[derive(Deserialize)]
        struct Record {
            signature: String,
            slot: u64,
            err: Option<Value>,
        }
        let mut config = json!({
            "commitment": "confirmed", "limit": limit.clamp(1, 1_000), "minContextSlot": self.seen_slot().0,
        });
        if let (Some(before), Some(config)) = (before, config.as_object_mut()) {
            config.insert("before".into(), before.to_string().into());
        }
        let params = json!([address.to_string(), config]);
        let records: Vec<Record> = self.call(RpcRequest::GetSignaturesForAddress, params).await?;
        let read = |record: Record| {
            let signature = record.signature.parse().map_err(|_none| self.malformed(RpcRequest::GetSignaturesForAddress))?;
            Ok(SignatureRecord { signature, slot: Slot(record.slot), succeeded: record.err.is_none() })
        };
        records.into_iter().map(read).collect()
    }
}

/// The amount in an SPL token account (165 bytes; amount at 64).
pub(crate) fn token_amount(data: &[u8]) -> Option<Points> {
    let amount: [u8; 8] = data.get(64..72)?.try_into().ok()?;
    Some(Points(u64::from_le_bytes(amount)))
}
