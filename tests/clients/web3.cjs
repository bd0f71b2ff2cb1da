// The local chain as @solana/web3.js 1.x and @solana/spl-token see it.
'use strict';

const {
  ComputeBudgetProgram,
  Connection,
  Keypair,
  PublicKey,
  SystemProgram,
  Transaction,
  TransactionMessage,
  VersionedTransaction,
  sendAndConfirmTransaction,
} = require('@solana/web3.js');
const { getAccount, getAssociatedTokenAddressSync, getMint } = require('@solana/spl-token');
const { Inbox, fail, run, say } = require('./session.cjs');

/** Lamports for a million compute units, and how many may be used. */
const PRICE = 1_000_000;
const UNITS = 2_000;
const NOBODYS_SIGNATURE = '1'.repeat(64);

/** Told one address, the client looks for the websocket on the port after that of the JSON-RPC server. */
const connect = (job) => new Connection(job.rpc, 'confirmed');

/** Requests on a socket are served in order: once slots arrive, what was subscribed before is served as well. */
async function subscribed(connection) {
  const slots = new Inbox();
  const id = connection.onSlotChange((info) => slots.push(info.slot));
  const first = await slots.next();
  const later = await slots.next((slot) => slot > first);
  await connection.removeSlotChangeListener(id);
  return [first, later];
}

async function root(connection) {
  const roots = new Inbox();
  const id = connection.onRootChange((slot) => roots.push(slot));
  const first = await roots.next();
  const later = await roots.next();
  await connection.removeRootChangeListener(id);
  return [first, later];
}

async function airdrop(connection, address, lamports) {
  const latest = await connection.getLatestBlockhash();
  const signature = await connection.requestAirdrop(address, lamports);
  const { value } = await connection.confirmTransaction({ signature, ...latest });
  return value.err;
}

async function wallet(job) {
  const connection = connect(job);
  const [from, to] = [Keypair.generate(), Keypair.generate()];
  const report = { genesis: await connection.getGenesisHash(), empty: await connection.getBalance(from.publicKey) };
  report.airdrop_error = await airdrop(connection, from.publicKey, job.airdrop);
  report.airdropped = await connection.getBalance(from.publicKey);

  const [changes, logs] = [new Inbox(), new Inbox()];
  const watching = connection.onAccountChange(to.publicKey, (account, { slot }) => changes.push({ account, slot }));
  const listening = connection.onLogs(to.publicKey, (entry) => logs.push(entry));
  report.slots = await subscribed(connection);
  report.roots = await root(connection);

  const transfer = SystemProgram.transfer({ fromPubkey: from.publicKey, toPubkey: to.publicKey, lamports: job.transfer });
  const legacy = await sendAndConfirmTransaction(connection, new Transaction().add(transfer), [from]);
  report.change = (await changes.next()).account.lamports;
  report.logged = (await logs.next((entry) => entry.signature === legacy)).err;

  const latest = await connection.getLatestBlockhash();
  const message = new TransactionMessage({ payerKey: from.publicKey, recentBlockhash: latest.blockhash, instructions: [transfer] });
  const versioned = new VersionedTransaction(message.compileToV0Message());
  versioned.sign([from]);
  report.fee = (await connection.getFeeForMessage(versioned.message)).value;
  report.simulated = (await connection.simulateTransaction(versioned)).value.err;
  const signature = await connection.sendTransaction(versioned);
  report.transfer_error = (await connection.confirmTransaction({ signature, ...latest })).value.err;
  const second = await changes.next();
  report.second_change = second.account.lamports;
  await connection.removeAccountChangeListener(watching);
  await connection.removeOnLogsListener(listening);

  report.sender = await connection.getBalance(from.publicKey);
  report.receiver = await connection.getBalance(to.publicKey);
  const accounts = await connection.getMultipleAccountsInfo([to.publicKey, Keypair.generate().publicKey]);
  report.accounts = accounts.map((account) => account && account.lamports);
  const history = await connection.getSignaturesForAddress(to.publicKey);
  report.history_matches = history.map((entry) => entry.signature).join() === [signature, legacy].join();
  const found = await connection.getTransaction(signature, { maxSupportedTransactionVersion: 0 });
  report.transaction = { fee: found.meta.fee, error: found.meta.err, version: found.version };
  report.notified_slot_is_that_of_the_change = second.slot === found.slot;
  const status = await connection.getSignatureStatus(signature);
  report.status_slot_matches = status.value.slot === found.slot;
  await refusals(connection, from, transfer, report);
  return report;
}

/** What must fail does so in the shapes that the client knows. */
async function refusals(connection, from, transfer, report) {
  const latest = await connection.getLatestBlockhash();
  const hopeless = new Transaction({ feePayer: from.publicKey, ...latest });
  const price = ComputeBudgetProgram.setComputeUnitPrice({ microLamports: PRICE });
  const limit = ComputeBudgetProgram.setComputeUnitLimit({ units: UNITS });
  hopeless.add(price, limit, SystemProgram.transfer({ fromPubkey: from.publicKey, toPubkey: from.publicKey, lamports: 10 ** 15 }));
  hopeless.sign(from);
  const signature = await connection.sendRawTransaction(hopeless.serialize(), { skipPreflight: true });
  // The client returns the error where its subscription heard of it, and throws it where it had to ask.
  report.failed = await connection.confirmTransaction({ signature, ...latest }).then(({ value }) => value.err, (error) => error);
  const failed = await connection.getTransaction(signature, { maxSupportedTransactionVersion: 0 });
  report.failed_pays = failed.meta.fee;
  report.again = await connection.sendRawTransaction(hopeless.serialize()).then(() => 'taken', () => 'refused');

  const never = { ...latest, signature: NOBODYS_SIGNATURE, lastValidBlockHeight: (await connection.getBlockHeight()) + 3 };
  report.expired = await connection.confirmTransaction(never).then(() => 'confirmed', (error) => error.name);

  const tooMuch = SystemProgram.transfer({ fromPubkey: from.publicKey, toPubkey: from.publicKey, lamports: 10 ** 15 });
  const refused = await sendAndConfirmTransaction(connection, new Transaction().add(tooMuch), [from]).catch((error) => error);
  report.refused = { name: refused.name, logs: (refused.logs ?? []).length > 0, text: refused.message };
  const stale = new Transaction({ feePayer: from.publicKey, blockhash: Keypair.generate().publicKey.toBase58(), lastValidBlockHeight: 1 });
  stale.add(transfer).sign(from);
  const late = await connection.sendRawTransaction(stale.serialize()).catch((error) => error);
  report.stale = { name: late.name, text: late.message };
  const fees = await connection.getRecentPrioritizationFees();
  report.prices = fees.map((fee) => fee.prioritizationFee).filter((fee) => fee > 0);
  const { blockHeight, absoluteSlot } = await connection.getEpochInfo();
  report.height_at_most_slot = blockHeight <= absoluteSlot;
  const finalized = await connection.getLatestBlockhash('finalized');
  report.finalized_blockhash_is_valid = (await connection.isBlockhashValid(finalized.blockhash)).value;
}

/** Sees a claim arrive at a token account that does not exist yet, then reads it in every way that the client has. */
async function rewards(job) {
  const connection = connect(job);
  const [mint, owner] = [new PublicKey(job.mint), new PublicKey(job.owner)];
  const [program, coordinator] = [new PublicKey(job.program), new PublicKey(job.coordinator)];
  const account = getAssociatedTokenAddressSync(mint, owner);
  const changes = new Inbox();
  connection.onAccountChange(account, ({ data }) => changes.push(Number(data.readBigUInt64LE(64))));
  await subscribed(connection);
  say({ ready: true });
  const seen = [];
  do seen.push(await changes.next()); while (seen.at(-1) !== job.claimed);

  const { value: balance } = await connection.getTokenAccountBalance(account);
  const parsed = await connection.getParsedTokenAccountsByOwner(owner, { mint });
  const token = await getAccount(connection, account);
  const { data, owner: coordinatorOwner } = await connection.getAccountInfo(coordinator);
  const discriminator = data.subarray(0, 8);
  const filters = [{ memcmp: { offset: 0, bytes: discriminator.toString('base64'), encoding: 'base64' } }, { dataSize: data.length }];
  const found = await connection.getProgramAccounts(program, { filters, dataSlice: { offset: 8, length: 24 } });
  return {
    seen,
    balance: Number(balance.amount),
    decimals: balance.decimals,
    mint_decimals: (await getMint(connection, mint)).decimals,
    supply: Number((await connection.getTokenSupply(mint)).value.amount),
    parsed: parsed.value.map((entry) => Number(entry.account.data.parsed.info.tokenAmount.amount)),
    token: { amount: Number(token.amount), mint: token.mint.toBase58(), owner: token.owner.toBase58() },
    coordinator: { discriminator: discriminator.toString('hex'), bytes: data.length, owner: coordinatorOwner.toBase58() },
    found: found.map((entry) => ({ address: entry.pubkey.toBase58(), slice: entry.account.data.toString('hex') })),
    slice: data.subarray(8, 32).toString('hex'),
  };
}

/** Follows a run's account to its end. */
async function follow(job) {
  const connection = connect(job);
  const coordinator = new PublicKey(job.coordinator);
  const changes = new Inbox();
  connection.onAccountChange(coordinator, ({ data }, { slot }) => changes.push({ data, slot }));
  await subscribed(connection);
  say({ ready: true });
  const seen = [];
  do seen.push(await changes.next()); while (seen.at(-1).data[job.phase_offset] !== job.finished);
  const { data } = await connection.getAccountInfo(coordinator);
  return {
    nonces: seen.map((change) => Number(change.data.readBigUInt64LE(job.nonce_offset))),
    phases: seen.map((change) => change.data[job.phase_offset]),
    slots: seen.map((change) => change.slot),
    read_is_last_seen: data.equals(seen.at(-1).data),
  };
}

run({ wallet, rewards, follow }).catch(fail);
