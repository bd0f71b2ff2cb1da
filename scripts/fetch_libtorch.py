"""Fetches the libtorch that PyTorch 2.11.0 ships and unpacks what the node links against.

    fetch_libtorch.py DEST

The wheels come from whatever index pip is configured for: pip says where they are, this script downloads them, because
pip can't resume. Downloads are kept in PSYCHE_CACHE, checked against the sums below, and DEST appears all at once.
Python 3.8 and the standard library are enough.
"""

import fcntl
import hashlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile

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
MIB = 1 << 20
# The three wheels, and what is unpacked from them.
DOWNLOAD_MIB, UNPACKED_MIB = 530, 510
ATTEMPTS_MAX = 5
STALL_SECONDS = 60


class Failure(Exception):
    """Something that the user can mend; completes "failed to …"."""


def say(text):
    print("libtorch: " + text, flush=True)


def locate():
    """Asks pip for the wheels' addresses, so that mirrors, proxies and certificates are those that pip uses."""
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
        command += ["--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]
        command += ["--target", os.path.join(folder, "unused"), "--report", report]
        for platform in PLATFORMS:
            command += ["--platform", platform]
        done = subprocess.run(command + list(WHEELS), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if "no such option" in done.stdout:
            raise Failure("ask pip where the wheels are: it is older than 22.2 (python3 -m pip install --upgrade pip)")
        if done.returncode != 0:
            last = [line for line in done.stdout.splitlines() if line.strip()][-3:]
            raise Failure("ask pip where the wheels are; is there a network?\n  " + "\n  ".join(last))
        with open(report, encoding="utf-8") as file:
            infos = [item["download_info"] for item in json.load(file)["install"]]
    by_sum = {info["archive_info"].get("hashes", {}).get("sha256"): info["url"] for info in infos}
    missing = [name for name, digest in WHEELS.items() if digest not in by_sum]
    if missing:
        raise Failure("find the pinned builds of %s in pip's index: their sha256 differs" % ", ".join(missing))
    return [(name, digest, by_sum[digest]) for name, digest in WHEELS.items()]


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(4 * MIB), b""):
            digest.update(block)
    return digest.hexdigest()


def opener():
    bundle = next((os.environ[name] for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE") if os.environ.get(name)), None)
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=bundle)))


class Progress:
    """One line that is rewritten on a terminal; a line for each tenth elsewhere."""

    def __init__(self, name, total):
        self.name, self.total, self.tenth, self.tty = name, total, -1, sys.stderr.isatty()

    def show(self, have):
        tenth = have * 10 // self.total if self.total else 0
        text = "libtorch: %s %d of %d MiB" % (self.name, have // MIB, self.total // MIB)
        if self.tty:
            sys.stderr.write("\r" + text + ("\n" if have == self.total else ""))
        elif tenth > self.tenth and self.total > 20 * MIB:
            sys.stderr.write(text + "\n")
        self.tenth = max(self.tenth, tenth)
        sys.stderr.flush()


def fetch_rest(url, part, name):
    """Appends what `part` still lacks. True once the server has sent everything it announced."""
    have = os.path.getsize(part) if os.path.exists(part) else 0
    request = urllib.request.Request(url, headers={"Range": "bytes=%d-" % have} if have else {})
    try:
        response = opener().open(request, timeout=STALL_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # Everything is there already; the sum will tell whether it is right.
            return True
        raise
    with response:
        resumed = response.status == 206
        have = have if resumed else 0
        total = have + int(response.headers.get("Content-Length") or 0)
        progress = Progress(name, total)
        with open(part, "r+b" if resumed else "wb") as file:
            file.seek(have)
            while True:
                block = response.read(MIB)
                if not block:
                    break
                file.write(block)
                have += len(block)
                progress.show(have)
    return total == 0 or have >= total


def fetch(name, digest, url, cache):
    """Returns the verified wheel in the cache; downloads it, or the rest of it, where it is not there."""
    path = os.path.join(cache, os.path.basename(url.split("#")[0]))
    part = path + ".part"
    if os.path.exists(path):
        if sha256(path) == digest:
            return path
        say("the cached %s is damaged, fetching it again" % name)
        os.remove(path)
    for attempt in range(ATTEMPTS_MAX):
        try:
            if fetch_rest(url, part, name):
                if sha256(part) == digest:
                    os.replace(part, path)
                    return path
                say("%s arrived damaged, fetching it again" % name)
                os.remove(part)
            else:
                say("%s was cut off, going on where it stopped" % name)
        except (urllib.error.URLError, OSError) as error:
            if getattr(error, "errno", None) == 28:
                raise Failure("write %s: no space left in %s" % (name, cache)) from error
            say("%s: %s (attempt %d of %d)" % (name, getattr(error, "reason", error), attempt + 1, ATTEMPTS_MAX))
            time.sleep(min(2 ** attempt, 10))
    raise Failure("download %s after %d attempts; run this again, it goes on where it stopped" % (name, ATTEMPTS_MAX))


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


def require_space(folder, mib, what):
    free = shutil.disk_usage(folder).free // MIB
    if free < mib:
        raise Failure("make room for %s: %s has %d MiB free, %d are needed" % (what, folder, free, mib))


def main(dest):
    cache = os.path.join(os.environ.get("PSYCHE_CACHE") or os.path.expanduser("~/.cache/psyche"), "wheels")
    os.makedirs(cache, exist_ok=True)
    with open(os.path.join(cache, "lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        have = sum(os.path.getsize(os.path.join(cache, name)) for name in os.listdir(cache)) // MIB
        require_space(cache, max(0, DOWNLOAD_MIB - have), "the downloads")
        require_space(os.path.dirname(os.path.abspath(dest)), UNPACKED_MIB, "libtorch")
        say("fetching libtorch %s (%d MiB, once; kept in %s)" % (TORCH, DOWNLOAD_MIB, cache))
        wheels = [fetch(name, digest, url, cache) for name, digest, url in locate()]
        unpack(wheels, dest)
    say("version %s is in %s" % (TORCH, dest))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(sys.argv[1])
    except Failure as failure:
        sys.exit("libtorch: failed to " + str(failure))
    except KeyboardInterrupt:
        sys.exit("libtorch: stopped; run this again, it goes on where it stopped")
