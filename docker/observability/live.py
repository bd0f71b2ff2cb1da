"""Lets a real Prometheus look at a real testnet: every target is up, every rule and every query of the dashboard evaluates
without error and says something.

    live.py PROGRAM       path of psyche-solana-client; `prometheus` is found on PATH

Prints one line and succeeds, or what is wrong, one a line. Python 3.8 and the standard library are enough.
"""

import json
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
NODES = 2
# More than the run gets to; it is stopped once everything was looked at.
STEPS = 5000
WITHIN = 240


def ask(base, path, **query):
    url = "%s/api/v1/%s?%s" % (base, path, urllib.parse.urlencode(query))
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)
    except OSError:
        return {"status": "error", "error": "no answer", "data": {}}


def until(what, look, *processes):
    """Asks `look` again and again until it says something."""
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        for process in processes:
            if process.poll() is not None:
                sys.exit("%s ended with %s before %s" % (process.args[0], process.returncode, what))
        time.sleep(0.2)
    sys.exit("waited in vain for %s" % what)


def addresses(folder):
    found = [path.read_text().strip() for path in sorted(folder.rglob("http-address"))]
    return found if len(found) == NODES and all(found) else None


def configuration(targets):
    """The committed configuration, with these targets and no patience."""
    text = (HERE / "prometheus.yml").read_text()
    text = re.sub(r"_interval: \d+s", "_interval: 1s", text)
    text, replaced = re.subn(r"- targets:\n(?: +- \S+\n)+", "- targets: %s\n" % json.dumps(targets), text)
    assert replaced == 1, "prometheus.yml has no list of targets"
    return text


def dashboard_queries():
    board = json.loads((HERE / "grafana" / "psyche.json").read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"].replace("$node", ".+").replace("$__rate_interval", "1m")


def look(base, problems):
    """Evaluates everything once."""
    rules = [rule for group in ask(base, "rules")["data"]["groups"] for rule in group["rules"]]
    for rule in rules:
        if rule["health"] != "ok" or rule.get("lastError"):
            problems.append("rule %s: %s %s" % (rule["name"], rule["health"], rule.get("lastError", "")))
    firing = {alert["labels"]["alertname"] for alert in ask(base, "alerts")["data"]["alerts"] if alert["state"] == "firing"}
    problems += ["alert %s fires although the nodes fare well" % name for name in sorted(firing)]
    queries = list(dashboard_queries())
    for title, query in queries:
        answer = ask(base, "query", query=query)
        if answer["status"] != "success":
            problems.append("panel %s: %s: %s" % (title, query, answer.get("error")))
        elif not answer["data"]["result"]:
            problems.append("panel %s: %s finds nothing" % (title, query))
    return len(rules), len(queries)


def main(program, prometheus, work):
    out = work / "testnet"
    arguments = ["testnet", "--nodes", str(NODES), "--devices", "1", "--steps", str(STEPS), "--out", str(out)]
    with open(work / "log", "w") as log:
        testnet = subprocess.Popen([program, *arguments], stdout=log, stderr=log)
    server = None
    try:
        targets = until("the nodes serve metrics", lambda: addresses(out), testnet)
        (work / "prometheus.yml").write_text(configuration(targets))
        shutil.copy(HERE / "alerts.yml", work)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            listen = "127.0.0.1:%d" % free.getsockname()[1]
        flags = ["--config.file=%s" % (work / "prometheus.yml"), "--storage.tsdb.path=%s" % (work / "data")]
        with open(work / "server-log", "w") as log:
            server = subprocess.Popen([prometheus, *flags, "--web.listen-address=" + listen], stdout=log, stderr=log)
        base = "http://" + listen

        def trained():
            query = "count(psyche_steps_applied_total > 3) == %d and count(up == 1) == %d" % (NODES, NODES)
            # Rates need some samples, and every rule at least one evaluation.
            since = ask(base, "query", query="min(count_over_time(psyche_loss[5m])) > 10")
            return ask(base, "query", query=query)["data"].get("result") and since["data"].get("result")

        until("both nodes are up and have applied steps", trained, testnet, server)
        problems = []
        rules, queries = look(base, problems)
        if problems:
            sys.exit("\n".join(problems))
        print("%d targets up, %d rules and %d queries of the dashboard evaluate" % (NODES, rules, queries))
    finally:
        for process in (server, testnet):
            if process and process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    found = shutil.which("prometheus")
    if not found:
        sys.exit("there is no prometheus on PATH")
    with tempfile.TemporaryDirectory() as folder:
        main(sys.argv[1], found, pathlib.Path(folder))
