"""Fetches the libtorch that PyTorch 2.11.0 ships and unpacks what the node links against.

    fetch_libtorch.py DEST

The wheels come by way of wheels.py, which resumes downloads and checks them against the sums below, and DEST appears
all at once. Python 3.8 and the standard library are enough.
"""

import os
import shutil
import sys
import tempfile
import zipfile

from wheels import MIB, Failure, Fetcher, require_space, run

TORCH = "2.11.0"
# Requirement and sha256 of its wheel. The wheel's Python tag does not matter: only C++ libraries and headers are used.
# libtorch_cpu.so needs the two small CUDA libraries to load, also where there is no GPU.
WHEELS = {
    "torch==" + TORCH: "0f68f4ac6d95d12e896c3b7a912b5871619542ec54d3649cf48cc1edd4dd2756",
    "nvidia-cuda-runtime==13.0.96": "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
    "nvidia-cuda-cupti==13.0.85": "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
}
LIBRARIES = {
    "torch/lib/libtorch_cpu.so",
    "torch/lib/libc10.so",
    "torch/lib/libtorch.so",
    "torch/lib/libgomp.so.1",
    "nvidia/cu13/lib/libcudart.so.13",
    "nvidia/cu13/lib/libcupti.so.13",
}
PLATFORMS = ["manylinux_2_28_x86_64", "manylinux_2_25_x86_64", "manylinux2014_x86_64"]
# The three wheels, and what is unpacked from them.
DOWNLOAD_MIB, UNPACKED_MIB = 530, 510


def unpack(wheels, dest):
    """Unpacks into a folder beside `dest` and renames it, so that an interrupted run leaves nothing half done."""
    parent = os.path.dirname(os.path.abspath(dest))
    fresh = tempfile.mkdtemp(prefix=".libtorch-", dir=parent)
    try:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.infolist():
                    name = member.filename
                    if name in LIBRARIES:
                        # libtorch's own search path is its folder, so the two CUDA libraries go beside it.
                        out = os.path.join(fresh, "lib", os.path.basename(name))
                    elif name.startswith("torch/include/") and not name.endswith("/") and ".." not in name:
                        out = os.path.join(fresh, name.split("/", 1)[1])
                    else:
                        continue
                    os.makedirs(os.path.dirname(out), exist_ok=True)
                    with archive.open(member) as source, open(out, "wb") as target:
                        shutil.copyfileobj(source, target, MIB)
        missing = [name for name in LIBRARIES if not os.path.exists(os.path.join(fresh, "lib", os.path.basename(name)))]
        if missing:
            raise Failure("find %s in the wheels" % ", ".join(sorted(missing)))
        with open(os.path.join(fresh, "build-version"), "w", encoding="utf-8") as file:
            file.write(TORCH)
        os.chmod(fresh, 0o755)
        if os.path.islink(dest):
            os.remove(dest)
        elif os.path.isdir(dest):
            shutil.rmtree(dest)
        os.rename(fresh, dest)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def main():
    dest, fetcher = sys.argv[1], Fetcher("libtorch")
    with fetcher.locked():
        have = sum(os.path.getsize(os.path.join(fetcher.cache, name)) for name in os.listdir(fetcher.cache)) // MIB
        require_space(fetcher.cache, max(0, DOWNLOAD_MIB - have), "the downloads")
        require_space(os.path.dirname(os.path.abspath(dest)), UNPACKED_MIB, "libtorch")
        fetcher.say("fetching libtorch %s (%d MiB, once; kept in %s)" % (TORCH, DOWNLOAD_MIB, fetcher.cache))
        options = ["--python-version", "3.12", "--implementation", "cp"]
        for platform in PLATFORMS:
            options += ["--platform", platform]
        located = fetcher.locate({name: [digest] for name, digest in WHEELS.items()}, options)
        unpack([fetcher.fetch(*wheel) for wheel in located], dest)
    fetcher.say("version %s is in %s" % (TORCH, dest))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    run("libtorch", main)
