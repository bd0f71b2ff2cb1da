"""An all-reduce among processes by gloo, as a peer of the node's among threads.

    gloo.py '{"ranks": 2, "elements": 5250000, "repeats": 8}'

Each line "step" on the standard input reduces a f32 tensor of ones that often and answers with one line of JSON: the mean
seconds of one all-reduce, and an element of the result. The end of the input ends all processes.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

import torch
import torch.distributed as dist


def reduce_repeatedly(tensor, repeats):
    tensor.fill_(1.0)
    dist.barrier()
    started = time.perf_counter()
    for _ in range(repeats):
        dist.all_reduce(tensor)
    dist.barrier()
    return (time.perf_counter() - started) / repeats


def main():
    job = json.loads(sys.argv[1])
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    rank = job.get("rank", 0)
    with tempfile.TemporaryDirectory() as folder:
        others = []
        if rank == 0:
            job["meeting"] = f"file://{folder}/meeting"
            for other in range(1, job["ranks"]):
                command = [sys.executable, "-s", __file__, json.dumps(dict(job, rank=other))]
                others.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True))
        dist.init_process_group("gloo", init_method=job["meeting"], rank=rank, world_size=job["ranks"])
        tensor = torch.empty(job["elements"])
        print(json.dumps({"ready": True, "version": torch.__version__}), flush=True)
        for _ in sys.stdin:
            for other in others:
                other.stdin.write("step\n")
                other.stdin.flush()
            seconds = reduce_repeatedly(tensor, job["repeats"])
            answer = {"element": float(tensor[job["elements"] // 2]), "times": {"all-reduce": seconds}}
            print(json.dumps(answer), flush=True)
        for other in others:
            other.stdin.close()
            other.wait()
        dist.destroy_process_group()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main()
