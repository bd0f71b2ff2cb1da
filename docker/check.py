"""Judges a finished run by its nodes' event logs.

    check.py STEPS LOG...       JSON lines, one file a node

Prints one line and succeeds if the run came to its end, the loss fell, the nodes' digests were equal after every step,
and every node claimed everything that it earned. Python 3.8 and the standard library are enough.
"""

import json
import sys


def read(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def main():
    steps, logs = int(sys.argv[1]), [read(path) for path in sys.argv[2:]]
    problems, digests, losses = [], {}, {}
    for number, events in enumerate(logs, 1):
        of = lambda name: [event for event in events if event["event"] == name]
        for event in of("step_applied"):
            digests.setdefault(event["step"], {}).setdefault(event["digest"], set()).add(number)
        for event in of("step_trained"):
            losses.setdefault(event["step"], []).append(event["loss"])
        if any(not event["equal"] for event in of("digest_compared")):
            problems.append("node %d saw a digest that differs from its own" % number)
        points = of("points_changed")
        if not points or points[-1]["earned"] == 0 or points[-1]["claimed"] != points[-1]["earned"]:
            problems.append("node %d did not earn points and claim them all: %s" % (number, points[-1:]))
        # The results of the run's last step are nobody's to witness.
        if max((event["step"] for event in of("step_applied")), default=0) < steps - 1:
            problems.append("node %d did not come to the run's end" % number)
    problems += ["step %d ended with digests of %s" % (step, found) for step, found in sorted(digests.items()) if len(found) > 1]
    means = [sum(found) / len(found) for _, found in sorted(losses.items())]
    part = max(1, len(means) // 5)
    first, last = (sum(some) / len(some) for some in (means[:part] or [0], means[-part:] or [0]))
    if len(means) < 2 or last >= first:
        problems.append("the loss did not fall: %.3f at first, %.3f at last" % (first, last))
    if problems:
        sys.exit("\n".join(problems))
    print("%d nodes, %d steps trained, loss %.3f at first, %.3f at last, digests equal, rewards claimed" % (len(logs), len(means), first, last))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main()
