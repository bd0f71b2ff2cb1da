"""A peer of hivemind's averaging, driven by lines as the other nodes of this benchmark are (process.rs).

    averaging.py NUMBER NODES IP [AUTHOR]

`fill LEN` makes a vector of LEN bytes of f32, `match` answers once a group of all nodes has been found, `reduce` averages
within it and answers once that is done, `first` answers an element of the result.
"""

import ipaddress
import sys
import time

import hivemind
import torch
from hivemind.averaging.control import AveragingStage

# Longest wait for a group, or for a reduction.
TIMEOUT_S = 120.0
# How long peers look for others before they settle; all of them are there, so the group is full before.
MATCHMAKING_S = 5.0
LOOK_EVERY_S = 0.005


def main():
    number, nodes, ip = int(sys.argv[1]), int(sys.argv[2]), str(ipaddress.ip_address(sys.argv[3]))
    torch.set_num_threads(1)
    hosts = [f"/ip4/{ip}/tcp/0"]
    dht = hivemind.DHT(initial_peers=sys.argv[4:5], host_maddrs=hosts, announce_maddrs=[], start=True, use_ipfs=False)
    say(str(dht.get_visible_maddrs()[0]))
    averager = control = None
    for line in sys.stdin:
        words = line.split()
        if words[0] == "fill":
            # Each its own number, so that the mean tells whether everybody took part.
            vector = torch.full([int(words[1]) // 4], float(number))
            averager = hivemind.averaging.DecentralizedAverager(
                [vector],
                dht,
                start=True,
                prefix="bench",
                target_group_size=nodes,
                min_group_size=nodes,
                min_matchmaking_time=MATCHMAKING_S,
                request_timeout=3.0,
            )
            say("filled")
        elif words[0] == "match":
            control = averager.step(wait=False, require_trigger=True, timeout=TIMEOUT_S, allow_retries=True)
            until = time.monotonic() + TIMEOUT_S
            while control.stage != AveragingStage.AWAITING_TRIGGER:
                if control.done() or time.monotonic() > until:
                    raise SystemExit(f"hivemind found no group: {control}")
                # It offers no event to wait for.
                time.sleep(LOOK_EVERY_S)
            say("matched")
        elif words[0] == "reduce":
            control.allow_allreduce()
            group = control.result(TIMEOUT_S)
            say(f"reduced {len(group)}")
        elif words[0] == "first":
            with averager.get_tensors() as tensors:
                say(str(float(tensors[0][0])))
        else:
            raise SystemExit(f"unknown line: {line}")
    averager.shutdown()
    dht.shutdown()


def say(line):
    print(line, flush=True)


if __name__ == "__main__":
    main()
