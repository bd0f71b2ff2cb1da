"""Downloads wheels from whatever index pip is configured for, because pip can't resume.

pip says where the wheels are, so mirrors, proxies and certificates are those that pip uses. Downloads are kept in
PSYCHE_CACHE/wheels and checked against the caller's sums. Python 3.8 and the standard library are enough.
"""

import contextlib
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

MIB = 1 << 20
ATTEMPTS_MAX = 5
STALL_SECONDS = 60


class Failure(Exception):
    """Something that the user can mend; completes "failed to …"."""


def cache_folder():
    return os.environ.get("PSYCHE_CACHE") or os.path.expanduser("~/.cache/psyche")


def require_space(folder, mib, what):
    free = shutil.disk_usage(folder).free // MIB
    if free < mib:
        raise Failure("make room for %s: %s has %d MiB free, %d are needed" % (what, folder, free, mib))


def pins(path):
    """Requirement → sums, from a requirements file as pip reads it."""
    found, sums = {}, None
    with open(path, encoding="utf-8") as file:
        for line in file:
            words = line.split("#")[0].replace("\\", " ").split()
            for word in words:
                if word.startswith("--hash=sha256:"):
                    sums.append(word.split(":", 1)[1])
                else:
                    sums = found[word] = []
    return found


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

    def __init__(self, text, total):
        self.text, self.total, self.tenth, self.tty = text, total, -1, sys.stderr.isatty()

    def show(self, have):
        tenth = have * 10 // self.total if self.total else 0
        text = "%s %d of %d MiB" % (self.text, have // MIB, self.total // MIB)
        if self.tty:
            sys.stderr.write("\r" + text + ("\n" if have == self.total else ""))
        elif tenth > self.tenth and self.total > 20 * MIB:
            sys.stderr.write(text + "\n")
        self.tenth = max(self.tenth, tenth)
        sys.stderr.flush()


class Fetcher:
    """Fetches wheels into the cache; `title` begins every line that it prints."""

    def __init__(self, title):
        self.title = title
        self.cache = os.path.join(cache_folder(), "wheels")
        os.makedirs(self.cache, exist_ok=True)

    def say(self, text):
        print("%s: %s" % (self.title, text), flush=True)

    @contextlib.contextmanager
    def locked(self):
        """One at a time: two runs would write the same files."""
        with open(os.path.join(self.cache, "lock"), "w", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.say("another run fetches wheels, waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def locate(self, pins, options):
        """Asks pip for the addresses. `pins` maps requirements to the sums that their wheels may have; `options` are
        pip's, about the kind of wheel. Returns (requirement, sha256, address) of each."""
        with tempfile.TemporaryDirectory() as folder:
            report = os.path.join(folder, "report.json")
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
            command += ["--only-binary=:all:", "--target", os.path.join(folder, "unused"), "--report", report]
            done = subprocess.run(command + options + list(pins), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if "no such option" in done.stdout:
                raise Failure("ask pip where the wheels are: it is older than 22.2 (python3 -m pip install --upgrade pip)")
            if done.returncode != 0:
                last = [line for line in done.stdout.splitlines() if line.strip()][-3:]
                raise Failure("ask pip where the wheels are; is there a network?\n  " + "\n  ".join(last))
            with open(report, encoding="utf-8") as file:
                infos = [item["download_info"] for item in json.load(file)["install"]]
        by_sum = {info["archive_info"].get("hashes", {}).get("sha256"): info["url"] for info in infos}
        found = {name: next((digest for digest in sums if digest in by_sum), None) for name, sums in pins.items()}
        missing = [name for name, digest in found.items() if digest is None]
        if missing:
            raise Failure("find the pinned builds of %s in pip's index: their sha256 differs" % ", ".join(missing))
        return [(name, digest, by_sum[digest]) for name, digest in found.items()]

    def fetch(self, name, digest, url):
        """Returns the verified wheel in the cache; downloads it, or the rest of it, where it is not there."""
        path = os.path.join(self.cache, os.path.basename(url.split("#")[0]))
        part = path + ".part"
        if os.path.exists(path):
            if sha256(path) == digest:
                return path
            self.say("the cached %s is damaged, fetching it again" % name)
            os.remove(path)
        for attempt in range(ATTEMPTS_MAX):
            try:
                if self.fetch_rest(url, part, name):
                    if sha256(part) == digest:
                        os.replace(part, path)
                        return path
                    self.say("%s arrived damaged, fetching it again" % name)
                    os.remove(part)
                else:
                    self.say("%s was cut off, going on where it stopped" % name)
            except (urllib.error.URLError, OSError) as error:
                if getattr(error, "errno", None) == 28:
                    raise Failure("write %s: no space left in %s" % (name, self.cache)) from error
                self.say("%s: %s (attempt %d of %d)" % (name, getattr(error, "reason", error), attempt + 1, ATTEMPTS_MAX))
                time.sleep(min(2 ** attempt, 10))
        raise Failure("download %s after %d attempts; run this again, it goes on where it stopped" % (name, ATTEMPTS_MAX))

    def fetch_rest(self, url, part, name):
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
            progress = Progress("%s: %s" % (self.title, name), total)
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


def run(title, main):
    """Runs `main`, turns what the user can mend into one line, and a Ctrl-C into advice."""
    try:
        main()
    except Failure as failure:
        sys.exit("%s: failed to %s" % (title, failure))
    except KeyboardInterrupt:
        sys.exit("%s: stopped; run this again, it goes on where it stopped" % title)
