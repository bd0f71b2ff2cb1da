"""Fetches the libtorch that PyTorch 2.11.0 ships and unpacks what the node links against.

    fetch_libtorch.py DEST          what the node links against, and trains with on CPUs
    fetch_libtorch.py --cuda DEST   what it loads on machines with NVIDIA GPUs besides: DEST/torch/lib and DEST/nvidia

The wheels come by way of wheels.py, which resumes downloads and checks them against the sums below and in python.txt,
and DEST appears all at once. Python 3.8 and the standard library are enough.
"""

import os
import shutil
import sys
import tempfile
import zipfile

from wheels import MIB, Failure, Fetcher, pins, require_space, run

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
# Of the CUDA half: what libtorch_cuda.so loads, and NVRTC for kernels of our own.
CUDA_LIBRARIES = {"libtorch_cuda.so", "libc10_cuda.so", "libtorch_nvshmem.so", "libcaffe2_nvrtc.so"}
# Sums of the wheels of the CUDA half.
PYTHON = os.path.join(os.path.dirname(os.path.abspath(__file__)), "python.txt")
PLATFORMS = ["manylinux_2_%d_x86_64" % minor for minor in range(28, 16, -1)] + ["manylinux2014_x86_64"]
# The wheels, and what is unpacked from them.
DOWNLOAD_MIB, UNPACKED_MIB = 530, 510
CUDA_DOWNLOAD_MIB, CUDA_UNPACKED_MIB = 2400, 3400


def place(member):
    """Where a member of a wheel goes below DEST; None for what is not wanted."""
    if member in LIBRARIES:
        # libtorch's own search path is its folder, so the two CUDA libraries go beside it.
        return os.path.join("lib", os.path.basename(member))
    if member.startswith("torch/include/") and not member.endswith("/") and ".." not in member:
        return member.split("/", 1)[1]
    return None


def place_cuda(member):
    """The same for the CUDA half, whose libraries look for each other at the places that they have in the wheels."""
    folder, name = os.path.split(member)
    library = name.endswith(".so") or ".so." in name
    if ".." in member or not library:
        return None
    nvidia = folder.startswith("nvidia/") and folder.endswith("/lib")
    return member if nvidia or (folder == "torch/lib" and name in CUDA_LIBRARIES) else None


def unpack(wheels, dest, place, expected):
    """Unpacks into a folder beside `dest` and renames it, so that an interrupted run leaves nothing half done."""
    parent = os.path.dirname(os.path.abspath(dest))
    fresh = tempfile.mkdtemp(prefix=".libtorch-", dir=parent)
    try:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.infolist():
                    path = place(member.filename)
                    if path is None:
                        continue
                    out = os.path.join(fresh, path)
                    os.makedirs(os.path.dirname(out), exist_ok=True)
                    with archive.open(member) as source, open(out, "wb") as target:
                        shutil.copyfileobj(source, target, MIB)
        missing = [path for path in expected if not os.path.exists(os.path.join(fresh, path))]
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


def main(dest, cuda):
    fetcher = Fetcher("libtorch")
    pinned = {name: [digest] for name, digest in WHEELS.items()}
    download, unpacked, what = DOWNLOAD_MIB, UNPACKED_MIB, "libtorch " + TORCH
    layout = (place, [place(name) for name in LIBRARIES])
    if cuda:
        wanted = lambda name: name.split("==")[0] == "torch" or name.startswith("nvidia-")
        pinned = {name: sums for name, sums in pins(PYTHON).items() if wanted(name)}
        download, unpacked, what = CUDA_DOWNLOAD_MIB, CUDA_UNPACKED_MIB, "the CUDA half of libtorch " + TORCH
        layout = (place_cuda, [os.path.join("torch", "lib", name) for name in CUDA_LIBRARIES])
    with fetcher.locked():
        have = sum(os.path.getsize(os.path.join(fetcher.cache, name)) for name in os.listdir(fetcher.cache)) // MIB
        require_space(fetcher.cache, max(0, download - have), "the downloads")
        require_space(os.path.dirname(os.path.abspath(dest)), unpacked, "libtorch")
        fetcher.say("fetching %s (%d MiB, once; kept in %s)" % (what, download, fetcher.cache))
        options = ["--python-version", "3.12", "--implementation", "cp"]
        for platform in PLATFORMS:
            options += ["--platform", platform]
        located = fetcher.locate(pinned, options)
        unpack([fetcher.fetch(*wheel) for wheel in located], dest, *layout)
    fetcher.say("%s is in %s" % (what, dest))


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--cuda"]
    if len(arguments) != 1:
        sys.exit(__doc__)
    run("libtorch", lambda: main(arguments[0], "--cuda" in sys.argv[1:]))
