"""Answers a question about a node's event log, as JSON lines that it may still be writing.

    events.py LOG trained N             whether N steps were trained
    events.py LOG training              whether a step is being trained at the moment
    events.py LOG left                  how the node left: its last word must be that SIGTERM stopped it. Prints the last
                                        step that it applied
    events.py LOG interrupted           prints in which step it left
    events.py LOG resumed STEP          whether the node has started again since it left, from its own disk, and trained and
                                        applied a step beyond STEP. Prints what it started from

The exit code is 0 for yes. Python 3.8 and the standard library are enough.
"""

import json
import sys


def read(path):
    events = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                events.append(json.loads(line))
    return events


def named(events, name):
    return [event for event in events if event["event"] == name]


def training(events):
    phases = named(events, "phase_changed")
    ready = named(events, "model_ready")
    if not ready or not phases or phases[-1]["phase"] != "RoundTrain":
        return False
    ended = [event["step"] for event in named(events, "step_trained") + named(events, "step_skipped")]
    return phases[-1]["step"] not in ended


def left(events):
    if events[-1]["event"] != "stopped" or "SIGTERM" not in events[-1]["reason"]:
        sys.exit("the last event is %s" % events[-1])
    print(max((event["step"] for event in named(events, "step_applied")), default=0))
    return True


def interrupted(events):
    rounds = [event["step"] for event in named(events, "phase_changed") if event["phase"] == "RoundTrain"]
    done = [event["step"] for event in named(events, "step_trained")]
    print("step %d, which %s" % (rounds[-1], "it had just trained" if rounds[-1] in done else "it did not train to the end"))
    return True


def resumed(events, step):
    starts = [number for number, event in enumerate(events) if event["event"] == "started"]
    since = events[starts[-1]:] if len(starts) > 1 else []
    ready = named(since, "model_ready")
    beyond = lambda name: any(event["step"] > step for event in named(since, name))
    if not ready or not beyond("step_trained") or not beyond("step_applied"):
        return False
    if ready[0]["source"] != "disk":
        sys.exit("it did not start from its disk: %s" % ready[0])
    print("from its disk at step %d" % ready[0]["step"])
    return True


def main():
    events, question, rest = read(sys.argv[1]), sys.argv[2], [int(word) for word in sys.argv[3:]]
    answers = {
        "trained": lambda steps: len(named(events, "step_trained")) >= steps,
        "training": lambda: training(events),
        "left": lambda: left(events),
        "interrupted": lambda: interrupted(events),
        "resumed": lambda step: resumed(events, step),
    }
    sys.exit(0 if events and answers[question](*rest) else 1)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main()
