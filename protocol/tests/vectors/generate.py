#!/usr/bin/env python3
"""Computes the protocol's test vectors without any of the crate's code.

Run `python3 generate.py > vectors.txt`; the tests read that file, and fail if it is not what this script prints.
One vector per line: a kind, then `key=value` pairs; bytes are hexadecimal, lists are joined by commas.
"""
import ctypes
import struct
from ctypes import c_uint8 as u8, c_uint16 as u16, c_uint32 as u32, c_uint64 as u64, c_float, c_double
from fractions import Fraction
from hashlib import sha256 as _sha

U64 = (1 << 64) - 1


def sha(*parts):
    return _sha(b"".join(parts)).digest()


def emit(kind, **fields):
    def show(value):
        if isinstance(value, (bytes, bytearray)):
            return value.hex()
        if isinstance(value, (list, tuple)):
            return ",".join(show(v) for v in value)
        return str(value)

    print(" ".join([kind] + [f"{key}={show(value)}" for key, value in fields.items()]))


# --- layouts, by the C compiler's rules as ctypes knows them ------------------------------------------------------


def record(name, *fields):
    return type(name, (ctypes.Structure,), {"_fields_": list(fields)})


def union(name, *fields):
    return type(name, (ctypes.Union,), {"_fields_": list(fields)})


def text(length):
    return u8 * length


def vec(item, capacity):
    return record("Vec", ("items", item * capacity), ("len", u64))


Metadata = record("Metadata", ("name", text(64)), ("description", text(280)), ("num_parameters", u64), ("vocab_size", u64))
Repo = record("Repo", ("optional_tag", u8), ("optional", text(64)), ("name", text(64)))
Checkpoint = record("Checkpoint", ("tag", u32), ("payload", Repo))
Numbered = record("Numbered", ("url_template", text(64)), ("start_index", u32), ("pad_zeros", u8), ("num_files", u32))
Gcp = record("Gcp", ("bucket", text(64)), ("filter", text(192)))
Source = record("Source", ("tag", u32), ("payload", union("SourceOf", ("single", text(192)), ("numbered", Numbered), ("gcp", Gcp))))
Shuffle = record("Shuffle", ("tag", u32), ("seed", text(32)))
Http = record("Http", ("source", Source), ("token_size", u32), ("shuffle", Shuffle))
Data = record("Data", ("tag", u32), ("payload", union("DataOf", ("server", text(64)), ("path", text(192)), ("http", Http))))
Constant = record("Constant", ("base", c_double), ("init", c_double), ("warmup", u32))
Decay = record("Decay", ("base", c_double), ("init", c_double), ("final", c_double), ("warmup", u32), ("total", u32))
Wsd = record("Wsd", ("base", c_double), ("init", c_double), ("cosine_final", c_double), ("linear_final", c_double),
             ("warmup", u32), ("stable", u32), ("cosine", u32), ("linear", u32))
Lr = record("Lr", ("tag", u32), ("payload", union("LrOf", ("constant", Constant), ("decay", Decay), ("wsd", Wsd))))
OptF32 = record("OptF32", ("tag", u32), ("value", c_float))
AdamW = record("AdamW", ("betas", c_float * 2), ("weight_decay", c_float), ("eps", c_float), ("clip", OptF32))
Distro = record("Distro", ("clip", OptF32), ("weight_decay", OptF32), ("decay", c_float), ("topk", u16), ("chunk", u16), ("one_bit", u8))
Opt = record("Opt", ("tag", u32), ("payload", union("OptOf", ("adamw", AdamW), ("distro", Distro))))
Llm = record("Llm", ("max_seq_len", u32), ("cold_start", u32), ("architecture", u32), ("checkpoint", Checkpoint),
             ("data_type", u32), ("data", Data), ("lr", Lr), ("optimizer", Opt))
Model = record("Model", ("tag", u32), ("llm", Llm))
Config = record("Config", *[(n, u64) for n in ("warmup_time", "cooldown_time", "max_round_train_time", "round_witness_time",
                "global_batch_size_warmup_tokens", "epoch_time")], ("total_steps", u32),
                *[(n, u16) for n in ("init_min_clients", "min_clients", "witness_nodes", "global_batch_size_start",
                "global_batch_size_end")], ("verification_percent", u8), ("waiting_for_members_extra_time", u8))
Progress = record("Progress", ("epoch", u16), ("step", u32), ("epoch_start_data_index", u64))
Bloom = record("Bloom", ("keys", u64 * 8), ("bits", u64 * 16))
Witness = record("Witness", ("position", u64), ("index", u64), ("witness", u8), ("participant_bloom", Bloom),
                 ("broadcast_bloom", Bloom), ("merkle", text(32)))
Round = record("Round", ("witnesses", vec(Witness, 32)), ("data_index", u64), ("random_seed", u64), ("height", u32),
               ("clients_len", u16), ("tie_breaker_tasks", u16))
EpochClient = record("EpochClient", ("signer", text(32)), ("p2p", text(32)), ("state", u8), ("exited_height", u32))
RosterClient = record("RosterClient", ("signer", text(32)), ("p2p", text(32)), ("unused", text(8)), ("earned", u64),
                      ("slashed", u64), ("active", u64))
Epoch = record("Epoch", ("rounds", Round * 4), ("clients", vec(EpochClient, 256)), ("exited_clients", vec(EpochClient, 256)),
               ("rounds_head", u32), ("start_step", u32), ("last_step", u32), ("start_timestamp", u64),
               ("first_round", u8), ("cold_start_epoch", u8))
Coordinator = record("Coordinator", ("run_id", text(32)), ("run_state", u8), ("model", Model), ("config", Config),
                     ("progress", Progress), ("epoch_state", Epoch), ("run_state_start_unix_timestamp", u64), ("pending_pause", u8))
ClientsState = record("ClientsState", ("clients", vec(RosterClient, 256)), ("next_active", u64), ("current_earning_rate", u64),
                      ("current_slashing_rate", u64), ("future_earning_rate", u64), ("future_slashing_rate", u64))
State = record("State", ("metadata", Metadata), ("coordinator", Coordinator), ("clients_state", ClientsState),
               ("is_warmup_first_tick", u8), ("is_training_first_tick", u8), ("client_version", text(96)))
Account = record("Account", ("discriminator", text(8)), ("version", u64), ("state", State), ("nonce", u64))


def layouts():
    for path in """version state.metadata.vocab_size state.coordinator.run_id state.coordinator.run_state state.coordinator.model
        state.coordinator.config state.coordinator.config.total_steps state.coordinator.config.waiting_for_members_extra_time
        state.coordinator.progress state.coordinator.progress.epoch_start_data_index state.coordinator.epoch_state
        state.coordinator.epoch_state.clients state.coordinator.epoch_state.exited_clients
        state.coordinator.epoch_state.rounds_head state.coordinator.epoch_state.start_timestamp
        state.coordinator.epoch_state.cold_start_epoch state.coordinator.run_state_start_unix_timestamp
        state.coordinator.pending_pause state.clients_state state.clients_state.next_active
        state.clients_state.future_slashing_rate state.is_training_first_tick state.client_version nonce""".split():
        kind, offset = Account, 0
        for name in path.split("."):
            offset += getattr(kind, name).offset
            kind = dict(kind._fields_)[name]
        emit("offset", path=path, at=offset)
    for name, kind in dict(Account=Account, Model=Model, Config=Config, Round=Round, Witness=Witness, EpochClient=EpochClient,
                           RosterClient=RosterClient, Bloom=Bloom, Metadata=Metadata).items():
        emit("size", of=name, bytes=ctypes.sizeof(kind))


def fill(target, value):
    ctypes.memmove(target, value, len(value))


def f32(value):
    return struct.pack("<f", value)


def f64(value):
    return struct.pack("<d", value)


def padded(value, length):
    return value.encode().ljust(length, b"\0")


def models():
    """The same descriptions in the raw layout and in Borsh; the tests build them as typed values."""
    # 1: hub with revision, numbered files, seeded, cosine, DisTrO
    m = Model()
    llm = m.llm
    llm.max_seq_len, llm.cold_start, llm.architecture, llm.data_type = 512, 7, 1, 0
    llm.checkpoint.tag, llm.checkpoint.payload.optional_tag = 2, 1
    fill(llm.checkpoint.payload.optional, b"main")
    fill(llm.checkpoint.payload.name, b"some-org/some-model")
    llm.data.tag = 3
    http = llm.data.payload.http
    http.source.tag = 1
    files = http.source.payload.numbered
    fill(files.url_template, b"https://data.example/{}.bin")
    files.start_index, files.pad_zeros, files.num_files = 3, 4, 99
    http.token_size, http.shuffle.tag = 1, 1
    fill(http.shuffle.seed, bytes(range(32)))
    llm.lr.tag = 2
    lr = llm.lr.payload.decay
    lr.base, lr.init, lr.final, lr.warmup, lr.total = 4e-4, 1e-6, 4e-5, 250, 5000
    llm.optimizer.tag = 2
    o = llm.optimizer.payload.distro
    o.clip.tag, o.clip.value, o.decay, o.topk, o.chunk, o.one_bit = 1, 1.0, 0.999, 8, 64, 1
    borsh = (b"\0" + struct.pack("<II", 512, 7) + b"\1" + b"\2" + padded("some-org/some-model", 64) + b"\1" + padded("main", 64)
             + b"\0" + b"\3\1" + padded("https://data.example/{}.bin", 64) + struct.pack("<IBI", 3, 4, 99) + b"\1"
             + b"\1" + bytes(range(32)) + b"\2" + f64(4e-4) + f64(1e-6) + f64(4e-5) + struct.pack("<II", 250, 5000)
             + b"\2\1" + f32(1.0) + b"\0" + f32(0.999) + struct.pack("<HHB", 8, 64, 1))
    emit("model", name="distro", raw=bytes(m), borsh=borsh)
    global DISTRO
    DISTRO = borsh
    # 2: bucket among peers, files of a bucket, warm-up stable decay, AdamW
    m = Model()
    llm = m.llm
    llm.max_seq_len, llm.architecture, llm.data_type = 2048, 3, 1
    llm.checkpoint.tag = 5
    fill(llm.checkpoint.payload.name, b"bucket")
    llm.data.tag = 3
    gcp = llm.data.payload.http.source
    gcp.tag = 2
    fill(gcp.payload.gcp.bucket, b"data")
    fill(gcp.payload.gcp.filter, b"a/folder")
    llm.lr.tag = 3
    lr = llm.lr.payload.wsd
    lr.base, lr.init, lr.cosine_final, lr.linear_final = 1e-3, 0.0, 1e-4, 1e-5
    lr.warmup, lr.stable, lr.cosine, lr.linear = 1, 2, 3, 4
    llm.optimizer.tag = 1
    o = llm.optimizer.payload.adamw
    o.betas[0], o.betas[1], o.weight_decay, o.eps, o.clip.tag, o.clip.value = 0.9, 0.95, 0.1, 1e-8, 1, 0.5
    borsh = (b"\0" + struct.pack("<II", 2048, 0) + b"\3" + b"\5" + padded("bucket", 64) + b"\0" + b"\1"
             + b"\3\2" + padded("data", 64) + padded("a/folder", 192) + b"\0" + b"\0"
             + b"\3" + f64(1e-3) + f64(0.0) + f64(1e-4) + f64(1e-5) + struct.pack("<IIII", 1, 2, 3, 4)
             + b"\1" + f32(0.9) + f32(0.95) + f32(0.1) + f32(1e-8) + b"\1" + f32(0.5))
    emit("model", name="adamw", raw=bytes(m), borsh=borsh)


# --- instructions --------------------------------------------------------------------------------------------------


def discriminator(namespace, name):
    return sha(f"{namespace}:{name}".encode())[:8]


def string(value):
    return struct.pack("<I", len(value.encode())) + value.encode()


def instructions():
    names = """init_coordinator free_coordinator update update_client_version set_future_epoch_rates set_paused join_run tick
        witness warmup_witness health_check checkpoint authorization_create authorization_grantor_update
        authorization_grantee_update authorization_close run_create run_update participant_create participant_claim"""
    for name in names.split():
        emit("global", name=name, bytes=discriminator("global", name))
    for name in "CoordinatorAccount CoordinatorInstance Authorization Run Participant".split():
        emit("account", name=name, bytes=discriminator("account", name))
    a, b = bytes([1] * 32), bytes([2] * 32)

    def ix(name, *parts):
        emit("ix", name=name, bytes=discriminator("global", name) + b"".join(parts))

    ix("init_coordinator", a, b, string("a-run"), string("v1"))
    ix("set_future_epoch_rates", b"\1", struct.pack("<Q", 1000), b"\0")
    ix("join_run", a, b)
    ix("health_check", a, b, b"\2", struct.pack("<QQ", 5, 6))
    bloom = struct.pack("<24Q", *range(24))
    report = struct.pack("<QQB", 3, 4, 1) + bloom + bloom + a
    metadata = (struct.pack("<I", 9) + f32(1.5) + f32(2.5) + f32(3.5) + padded("arc", 32) + f32(0.25) + bytes(7 * 36)
                + struct.pack("<Q", 1) + struct.pack("<2i", -1, 77) + bytes(14 * 4) + struct.pack("<Q", 2) + b"\5" + f32(0.75))
    ix("witness", report, metadata)
    ix("warmup_witness", report)
    ix("checkpoint", b"\4", padded("bucket", 64), b"\1", padded("folder", 64))
    ix("authorization_create", a, string("CoordinatorJoinRun"))
    ix("authorization_grantee_update", b"\1", struct.pack("<I", 2), a, b)
    ix("run_create", struct.pack("<Q", 7), string("a-run"), string("v1"), a, b)
    progress = struct.pack("<HIQ", 1, 2, 3)
    config = struct.pack("<6QI5HBB", 30, 31, 32, 33, 34, 600, 5000, 2, 1, 0, 16, 64, 0, 3)
    ix("run_update", b"\0", b"\1", config, b"\0", b"\1", progress, b"\1", struct.pack("<Q", 5), b"\0", b"\1\1", b"\1", string("v2"))
    ix("participant_claim", struct.pack("<Q", 55))
    ix("authorization_grantor_update", b"\1")
    ix("authorization_close")
    ix("participant_create")
    metadata = padded("a run", 64) + padded("for tests", 280) + struct.pack("<QQ", 11, 12)
    everything = (b"\1", metadata, b"\1", config, b"\1", DISTRO, b"\1", progress, b"\1", struct.pack("<Q", 5), b"\1", struct.pack("<Q", 6),
                  b"\1\0", b"\1", string("v2"))
    emit("whole", name="run_update", bytes=discriminator("global", "run_update") + b"".join(everything))


def accounts():
    """Accounts whole: discriminator, fields, and the zeros behind them."""
    a, b, c, d, e = (bytes([n] * 32) for n in range(1, 6))

    def acct(name, size, *parts):
        emit("acct", name=name, bytes=(discriminator("account", name) + b"".join(parts)).ljust(size, b"\0"))

    acct("CoordinatorInstance", 173, b"\xfe", a, b, c, string("a-run"))
    acct("Authorization", 108 + 64, b"\xfd", a, b, string("CoordinatorJoinRun"), b"\1", struct.pack("<I", 2), c, d, struct.pack("<q", -5))
    acct("Run", 200, b"\xfc", struct.pack("<Q", 7), a, b, c, d, e, struct.pack("<QQ", 8, 9))
    acct("Participant", 32, b"\xfb", struct.pack("<QQ", 10, 11))


# --- selections ----------------------------------------------------------------------------------------------------


def shuffled(index, count, seed):
    for r in range(90):
        pivot = int.from_bytes(sha(seed, bytes([r]))[:8], "little") % count
        flip = (pivot + count - index) % count
        pos = max(index, flip)
        source = sha(seed, bytes([r]), struct.pack("<I", pos // 256))
        if (source[pos % 256 // 8] >> (pos % 8)) & 1:
            index = flip
    return index


def role_seed(random_seed, role):
    return sha(sha(struct.pack("<Q", random_seed)), role)


def assignment(count, seed, data_index, batch):
    order = list(range(count))
    state = seed
    for i in range(count - 1, 0, -1):
        state = (state * 6364136223846793005 + 1442695040888963407) & U64
        j = state % (i + 1)
        order[i], order[j] = order[j], order[i]
    share, larger = divmod(batch, count)
    parts, at = [], data_index
    for k, client in enumerate(order):
        size = share + (1 if k < larger else 0)
        if size:
            parts.append(f"{client}:{at}:{at + size - 1}")
        at += size
    return parts


def fnv(key, item):
    for byte in item:
        key = ((key ^ byte) * 0x100000001B3) & U64
    return key % 1024


def batch_size(start, end, warmup, tokens):
    if tokens >= warmup:
        return end
    exact = start + (end - start) * Fraction(tokens, warmup)
    return int(exact + Fraction(1, 2))


def tree(leaves):
    if not leaves:
        return bytes(32)
    if len(leaves) == 1:
        return sha(b"\0", leaves[0])
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha(b"\1", tree(leaves[:split]), tree(leaves[split:]))


def elected(random_seed, signers, dropped):
    role = role_seed(random_seed, b"checkpoint")
    return sorted((s for s in signers if s not in dropped), key=lambda signer: sha(role, signer))[:3]


P = 2**255 - 19
D = -121665 * pow(121666, P - 2, P) % P


def point(key):
    """The point that the bytes name, or None (RFC 8032, 5.1.3; a y beyond the prime is reduced)."""
    number = int.from_bytes(key, "little")
    y = (number & (2**255 - 1)) % P
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    return (x, y) if x * x % P == square else None


def double(x, y):
    t = D * x * x * y * y
    return 2 * x * y * pow(1 + t, P - 2, P) % P, (y * y + x * x) * pow(1 - t, P - 2, P) % P


def is_public_key(key):
    found = point(key)
    for _ in range(3):
        found = found and double(*found)
    return found is not None and found != (0, 1)


def elections_and_keys():
    for random_seed in (0, 7, 0xDEADBEEFCAFEF00D, U64):
        for count in (1, 2, 3, 4, 33, 256):
            signers = [sha(b"signer", struct.pack("<I", i)) for i in range(count)]
            dropped = signers[:: max(4, count // 5)][1:]
            emit("elected", seed=random_seed, count=count, dropped=dropped, is_=elected(random_seed, signers, dropped))
    keys = [sha(b"key", bytes([i])) for i in range(40)]
    keys += [(y | sign << 255).to_bytes(32, "little") for y in (0, 1, 2, 3, 4, P - 1, P, P + 1, P + 2, P + 3, P + 4, 2**255 - 1) for sign in (0, 1)]
    for key in keys:
        emit("key", bytes=key, is_=int(is_public_key(key)))


def selections():
    for stamp, slot in ((0, 0), (1_700_000_000, 123_456_789), (-5, 7), ((1 << 63) - 1, U64)):
        emit("seed", time=stamp, slot=slot, is_=int.from_bytes(sha(struct.pack("<qQ", stamp, slot))[:8], "little"))
    for random_seed in (0, 1, 0xDEADBEEFCAFEF00D, U64):
        emit("roles", seed=random_seed, committee=role_seed(random_seed, b"committee"), witness=role_seed(random_seed, b"witness"))
        for count in (1, 2, 3, 7, 32, 33, 100, 256):
            order = [shuffled(i, count, role_seed(random_seed, b"witness")) for i in range(count)]
            assert sorted(order) == list(range(count))
            emit("shuffle", seed=random_seed, count=count, order=order)
    for count, seed, data_index, batch in ((1, 0, 0, 5), (2, 1, 10, 16), (3, 42, 1000, 64), (7, U64, 5, 3), (256, 9, 77, 512), (10, 3, 1 << 40, 65535)):
        emit("assign", count=count, seed=seed, data_index=data_index, batch=batch, parts=assignment(count, seed, data_index, batch))
    keys = [((k + 1) * 0x9E3779B97F4A7C15) & U64 for k in range(8)]
    items = [sha(bytes([i])) for i in range(20)]
    bits = [0] * 16
    for item in items:
        for key in keys:
            position = fnv(key, item)
            bits[position // 64] |= 1 << (position % 64)
    emit("bloom", keys=keys, items=items, bits=bits)
    for start, end, warmup, seq, index in ((16, 64, 1_000_000, 512, 0), (16, 64, 1_000_000, 512, 20), (16, 64, 1_000_000, 512, 21),
                                           (16, 64, 1_000_000, 512, 1953), (16, 64, 1_000_000, 512, 1954), (1, 2, 4, 1, 2), (1, 2, 4, 1, 1),
                                           (1, 65535, U64, 4096, 1 << 51), (1, 65535, U64, 1, U64 - 1), (1, 65535, U64, 4096, U64), (5, 5, 100, 1, 3), (3, 9, 0, 1, 0)):
        emit("batch", start=start, end=end, warmup=warmup, seq=seq, index=index, is_=batch_size(start, end, warmup, seq * index))
    for n in range(1, 33):
        emit("quorum", n=n, is_={1: 1, 2: 2, 3: 2}.get(n, max(1, n * 2 // 3)))
    for n in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 31, 100):
        leaves = [sha(struct.pack("<I", i)) for i in range(n)]
        emit("merkle", leaves=n, root=tree(leaves))
    for run_id in ("a", "test", "a-run-with-a-name-of-32-bytes-xx"):
        emit("treasurer", run_id=run_id, index=int.from_bytes(sha(run_id.encode())[:8], "little"))
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    for name, address in (("coordinator", "4SHugWqSXwKE5fqDchkJcPEqnoZE22VYKtSTVm7axbT7"), ("authorizer", "PsyAUmhpmiUouWsnJdNGFSX8vZ6rWjXjgDPHsgqPGyw"),
                          ("treasurer", "EnU7DRx5az5YWxaxgqEGbXSYtudcfnjXewyBRRZCjJPw")):
        number = 0
        for letter in address:
            number = number * 58 + alphabet.index(letter)
        emit("id", name=name, bytes=number.to_bytes(32, "big"))


layouts()
models()
instructions()
accounts()
selections()
elections_and_keys()
