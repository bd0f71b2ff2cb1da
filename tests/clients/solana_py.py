"""The local chain as solana-py and solders see it: a job comes in on one line of stdin, reports leave as lines of JSON."""

import asyncio
import json
import sys

from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Confirmed
from solana.rpc.core import RPCException
from solana.rpc.models import DataSliceOpts, MemcmpOpts, TokenAccountOpts, TxOpts
from solana.rpc.websocket_api import SolanaWsClient
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.rpc.responses import AccountNotification, SignatureNotification, SlotNotification
from solders.system_program import TransferParams, transfer
from solders.token.associated import get_associated_token_address
from solders.token.state import Mint, TokenAccount
from solders.transaction import VersionedTransaction

# Longer than anything here takes on a busy machine; whoever started this process waits longer still.
DEADLINE_S = 60
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def base58(data):
    """`data` in base58, as filters want it; it must not start with a zero byte."""
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = ALPHABET[digit] + text
    return text


def say(report):
    print(json.dumps(report), flush=True)


class Notifications:
    """One receiver for all subscriptions of a socket; a notification waits until it is asked for."""

    def __init__(self, socket):
        self.socket, self.waiting = socket, []

    async def next(self, kind, wanted=lambda _: True):
        while True:
            for index, notification in enumerate(self.waiting):
                if isinstance(notification, kind) and wanted(notification):
                    return self.waiting.pop(index)
            self.waiting.append(await self.socket.recv())


async def transaction(client, payer, receiver, lamports):
    latest = (await client.get_latest_blockhash()).value
    instruction = transfer(TransferParams(from_pubkey=payer.pubkey(), to_pubkey=receiver, lamports=lamports))
    message = MessageV0.try_compile(payer.pubkey(), [instruction], [], latest.blockhash)
    return VersionedTransaction(message, [payer]), latest.last_valid_block_height


async def wallet(job, client, socket):
    sender, receiver = Keypair(), Keypair().pubkey()
    notifications = Notifications(socket)

    async def balance(address):
        return (await client.get_balance(address)).value

    report = {"genesis": str((await client.get_genesis_hash()).value), "empty": await balance(sender.pubkey())}
    airdrop = (await client.request_airdrop(sender.pubkey(), job["airdrop"])).value
    status = await client.confirm_transaction(airdrop, sleep_seconds=0.05)
    report["airdrop_error"] = status.value[0].err
    report["airdropped"] = await balance(sender.pubkey())

    watching = await socket.account_subscribe(pubkey=receiver, commitment=Confirmed, encoding="base64")
    await socket.slot_subscribe()
    first = (await notifications.next(SlotNotification)).result.slot
    later = await notifications.next(SlotNotification, lambda it: it.result.slot > first)
    report["slots"] = [first, later.result.slot]

    signed, last_valid = await transaction(client, sender, receiver, job["transfer"])
    report["fee"] = (await client.get_fee_for_message(signed.message)).value
    report["simulated"] = (await client.simulate_transaction(signed)).value.err
    signature = signed.signatures[0]
    await socket.signature_subscribe(signature=signature, commitment=Confirmed)
    options = TxOpts(skip_confirmation=False, preflight_commitment=Confirmed, last_valid_block_height=last_valid)
    assert (await client.send_transaction(signed, options)).value == signature
    report["transfer_error"] = (await notifications.next(SignatureNotification)).result.value.err
    change = (await notifications.next(AccountNotification)).result
    report["change"] = change.value.lamports
    await socket.unsubscribe(watching)

    report["sender"], report["receiver"] = await balance(sender.pubkey()), await balance(receiver)
    accounts = (await client.get_multiple_accounts([receiver, Keypair().pubkey()])).value
    report["accounts"] = [account and account.lamports for account in accounts]
    history = (await client.get_signatures_for_address(receiver)).value
    report["history_matches"] = [entry.signature for entry in history] == [signature]
    found = (await client.get_transaction(signature, max_supported_transaction_version=0)).value
    meta = found.transaction.meta
    report["transaction"] = {"fee": meta.fee, "error": meta.err, "version": found.transaction.version}
    report["notified_slot_is_that_of_the_change"] = change.context.slot == found.slot
    await refusals(client, sender, report)
    return report


async def refusals(client, sender, report):
    """What must fail does so in the shapes that the client knows."""
    too_much, _ = await transaction(client, sender, sender.pubkey(), 10**15)
    try:
        await client.send_transaction(too_much)
    except RPCException as error:
        failure = error.args[0].data
        report["refused"] = {"logs": bool(failure.logs), "custom": failure.err.err.code}
    info = (await client.get_epoch_info()).value
    report["height_at_most_slot"] = info.block_height <= info.absolute_slot
    report["prioritization_fees"] = isinstance((await client.get_recent_prioritization_fees()).value, list)


async def rewards(job, client, socket):
    mint, owner = Pubkey.from_string(job["mint"]), Pubkey.from_string(job["owner"])
    program, coordinator = Pubkey.from_string(job["program"]), Pubkey.from_string(job["coordinator"])
    account = get_associated_token_address(owner, mint)
    notifications = Notifications(socket)
    await socket.account_subscribe(pubkey=account, commitment=Confirmed, encoding="base64")
    say({"ready": True})
    seen = []
    while not seen or seen[-1] != job["claimed"]:
        data = (await notifications.next(AccountNotification)).result.value.data
        seen.append(TokenAccount.from_bytes(data).amount)

    balance = (await client.get_token_account_balance(account)).value
    parsed = (await client.get_token_accounts_by_owner_json_parsed(owner, TokenAccountOpts(mint=mint))).value
    token = TokenAccount.from_bytes((await client.get_account_info(account)).value.data)
    minted = Mint.from_bytes((await client.get_account_info(mint)).value.data)
    read = (await client.get_account_info(coordinator, encoding="base64+zstd")).value
    data = read.data
    filters = [len(data), MemcmpOpts(offset=0, bytes=base58(data[:8]))]
    found = (
        await client.get_program_accounts(
            program, encoding="base64", filters=filters, data_slice=DataSliceOpts(offset=8, length=24)
        )
    ).value
    return {
        "seen": seen,
        "balance": int(balance.amount),
        "decimals": balance.decimals,
        "mint_decimals": minted.decimals,
        "supply": int((await client.get_token_supply(mint)).value.amount),
        "parsed": [int(it.account.data.parsed["info"]["tokenAmount"]["amount"]) for it in parsed],
        "token": {"amount": token.amount, "mint": str(token.mint), "owner": str(token.owner)},
        "coordinator": {"discriminator": data[:8].hex(), "bytes": len(data), "owner": str(read.owner)},
        "found": [{"address": str(it.pubkey), "slice": it.account.data.hex()} for it in found],
        "slice": data[8:32].hex(),
    }


async def follow(job, client, socket):
    """Follows a run's account to its end."""
    coordinator = Pubkey.from_string(job["coordinator"])
    notifications = Notifications(socket)
    await socket.account_subscribe(pubkey=coordinator, commitment=Confirmed, encoding="base64+zstd")
    say({"ready": True})
    seen = []
    while not seen or seen[-1].value.data[job["phase_offset"]] != job["finished"]:
        seen.append((await notifications.next(AccountNotification)).result)
    nonce = slice(job["nonce_offset"], job["nonce_offset"] + 8)
    read = (await client.get_account_info(coordinator)).value
    return {
        "nonces": [int.from_bytes(it.value.data[nonce], "little") for it in seen],
        "phases": [it.value.data[job["phase_offset"]] for it in seen],
        "slots": [it.context.slot for it in seen],
        "read_is_last_seen": read.data == seen[-1].value.data,
    }


async def main():
    job = json.loads(sys.stdin.readline())
    scenario = {"wallet": wallet, "rewards": rewards, "follow": follow}[job["scenario"]]
    async with asyncio.timeout(DEADLINE_S), AsyncClient(job["rpc"], Confirmed) as client, SolanaWsClient(job["ws"]) as socket:
        say({"done": await scenario(job, client, socket)})


if __name__ == "__main__":
    asyncio.run(main())
