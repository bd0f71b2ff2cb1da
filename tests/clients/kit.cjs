// The local chain as @solana/kit, the successor of web3.js, sees it.
'use strict';

const kit = require('@solana/kit');
const { decompress } = require('fzstd');
const { Inbox, fail, run, say } = require('./session.cjs');

const commitment = 'confirmed';

function connect(job) {
  const rpc = kit.createSolanaRpc(job.rpc);
  const rpcSubscriptions = kit.createSolanaRpcSubscriptions(job.ws);
  const abort = new AbortController();
  // The promise is kept only once the server has taken the subscription.
  const watch = async (subscription) => {
    const inbox = new Inbox();
    const notifications = await subscription.subscribe({ abortSignal: abort.signal });
    (async () => {
      for await (const notification of notifications) inbox.push(notification);
    })().catch(fail);
    return inbox;
  };
  return { rpc, rpcSubscriptions, abort, watch };
}

function transfer(from, to, lamports) {
  const data = kit.getStructEncoder([['kind', kit.getU32Encoder()], ['lamports', kit.getU64Encoder()]]).encode({ kind: 2, lamports });
  const { WRITABLE, WRITABLE_SIGNER } = kit.AccountRole;
  const accounts = [{ address: from.address, role: WRITABLE_SIGNER, signer: from }, { address: to, role: WRITABLE }];
  return { programAddress: kit.address('11111111111111111111111111111111'), accounts, data };
}

async function signed(rpc, payer, instruction) {
  const { value: latest } = await rpc.getLatestBlockhash({ commitment }).send();
  const message = kit.pipe(
    kit.createTransactionMessage({ version: 0 }),
    (it) => kit.setTransactionMessageFeePayerSigner(payer, it),
    (it) => kit.setTransactionMessageLifetimeUsingBlockhash(latest, it),
    (it) => kit.appendTransactionMessageInstruction(instruction, it),
  );
  return kit.signTransactionMessageWithSigners(message);
}

async function wallet(job) {
  const { rpc, rpcSubscriptions, abort, watch } = connect(job);
  const [from, to] = [await kit.generateKeyPairSigner(), (await kit.generateKeyPairSigner()).address];
  const balance = async (address) => (await rpc.getBalance(address, { commitment }).send()).value;
  const report = { genesis: await rpc.getGenesisHash().send(), empty: await balance(from.address) };
  const airdrop = kit.airdropFactory({ rpc, rpcSubscriptions });
  await airdrop({ commitment, lamports: kit.lamports(BigInt(job.airdrop)), recipientAddress: from.address });
  report.airdropped = await balance(from.address);

  const changes = await watch(rpcSubscriptions.accountNotifications(to, { commitment, encoding: 'base64' }));
  const slots = await watch(rpcSubscriptions.slotNotifications());
  const first = (await slots.next()).slot;
  report.slots = [first, (await slots.next((info) => info.slot > first)).slot];
  const transaction = await signed(rpc, from, transfer(from, to, job.transfer));
  const send = kit.sendAndConfirmTransactionFactory({ rpc, rpcSubscriptions });
  await send(transaction, { commitment });
  const change = await changes.next();
  report.change = change.value.lamports;

  const signature = kit.getSignatureFromTransaction(transaction);
  const found = await rpc.getTransaction(signature, { commitment, encoding: 'base64', maxSupportedTransactionVersion: 0 }).send();
  report.transaction = { fee: found.meta.fee, error: found.meta.err, version: found.version };
  report.notified_slot_is_that_of_the_change = change.context.slot === found.slot;
  const history = await rpc.getSignaturesForAddress(to, { commitment }).send();
  report.history_matches = history.map((entry) => entry.signature).join() === signature;
  report.sender = await balance(from.address);
  report.receiver = await balance(to);

  const tooMuch = await signed(rpc, from, transfer(from, to, 10n ** 15n));
  const refused = await send(tooMuch, { commitment }).catch((error) => error);
  const cause = kit.isSolanaError(refused, kit.SOLANA_ERROR__JSON_RPC__SERVER_ERROR_SEND_TRANSACTION_PREFLIGHT_FAILURE)
    ? { logs: refused.context.logs.length > 0, custom: refused.cause.context.code }
    : { text: String(refused) };
  report.refused = cause;
  abort.abort();
  return report;
}

async function rewards(job) {
  const { rpc, rpcSubscriptions, abort, watch } = connect(job);
  const [mint, owner, tokens] = [job.mint, job.owner, job.token_program].map(kit.address);
  const [program, coordinator] = [job.program, job.coordinator].map(kit.address);
  const encoder = kit.getAddressEncoder();
  const [account] = await kit.getProgramDerivedAddress({
    programAddress: kit.address(job.associated_token_program),
    seeds: [owner, tokens, mint].map((part) => encoder.encode(part)),
  });
  const changes = await watch(rpcSubscriptions.accountNotifications(account, { commitment, encoding: 'base64' }));
  say({ ready: true });
  const amountOf = ([data]) => Number(Buffer.from(data, 'base64').readBigUInt64LE(64));
  const seen = [];
  do seen.push(amountOf((await changes.next()).value.data)); while (seen.at(-1) !== job.claimed);

  const { value: balance } = await rpc.getTokenAccountBalance(account, { commitment }).send();
  const held = await rpc.getTokenAccountsByOwner(owner, { mint }, { commitment, encoding: 'jsonParsed' }).send();
  const supply = await rpc.getTokenSupply(mint, { commitment }).send();
  const read = await rpc.getAccountInfo(coordinator, { commitment, encoding: 'base64+zstd' }).send();
  const data = Buffer.from(decompress(Buffer.from(read.value.data[0], 'base64')));
  const filters = [{ memcmp: { offset: 0n, bytes: data.subarray(0, 8).toString('base64'), encoding: 'base64' } }, { dataSize: BigInt(data.length) }];
  const options = { commitment, encoding: 'base64', filters, dataSlice: { offset: 8, length: 24 } };
  const found = await rpc.getProgramAccounts(program, options).send();
  abort.abort();
  return {
    seen,
    balance: Number(balance.amount),
    decimals: balance.decimals,
    supply: Number(supply.value.amount),
    parsed: held.value.map((entry) => Number(entry.account.data.parsed.info.tokenAmount.amount)),
    coordinator: { discriminator: data.subarray(0, 8).toString('hex'), bytes: data.length, owner: read.value.owner },
    found: found.map((entry) => ({ address: entry.pubkey, slice: Buffer.from(entry.account.data[0], 'base64').toString('hex') })),
    slice: data.subarray(8, 32).toString('hex'),
  };
}

/** Follows a run's account to its end. */
async function follow(job) {
  const { rpc, rpcSubscriptions, abort, watch } = connect(job);
  const coordinator = kit.address(job.coordinator);
  const config = { commitment, encoding: 'base64+zstd' };
  const unpacked = (account) => Buffer.from(decompress(Buffer.from(account.data[0], 'base64')));
  const changes = await watch(rpcSubscriptions.accountNotifications(coordinator, config));
  say({ ready: true });
  const seen = [];
  do {
    const { context, value } = await changes.next();
    seen.push({ data: unpacked(value), slot: context.slot });
  } while (seen.at(-1).data[job.phase_offset] !== job.finished);
  const { value } = await rpc.getAccountInfo(coordinator, config).send();
  abort.abort();
  return {
    nonces: seen.map((change) => change.data.readBigUInt64LE(job.nonce_offset)),
    phases: seen.map((change) => change.data[job.phase_offset]),
    slots: seen.map((change) => change.slot),
    read_is_last_seen: unpacked(value).equals(seen.at(-1).data),
  };
}

run({ wallet, rewards, follow }).catch(fail);
