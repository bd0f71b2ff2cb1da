// What the JavaScript clients have in common: a job comes in on one line of stdin, reports leave as lines of JSON.
'use strict';

const readline = require('node:readline');

/** Longer than anything here takes on a busy machine; whoever started this process waits longer still. */
const DEADLINE_MS = 60_000;

function say(report) {
  const plain = (_key, value) => (typeof value === 'bigint' ? Number(value) : value);
  process.stdout.write(JSON.stringify(report, plain) + '\n');
}

async function run(scenarios) {
  const late = setTimeout(() => fail(new Error(`no end within ${DEADLINE_MS} ms`)), DEADLINE_MS);
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const job = JSON.parse(line);
    say({ done: await scenarios[job.scenario](job) });
    break;
  }
  clearTimeout(late);
  process.exit(0);
}

function fail(error) {
  console.error(error);
  process.exit(1);
}

/** A queue that subscriptions fill and scenarios read. */
class Inbox {
  #items = [];
  #wake = () => {};

  push(item) {
    this.#items.push(item);
    this.#wake();
  }

  /** The first item, past or to come, that `wanted` accepts. Those before it are dropped. */
  async next(wanted = () => true) {
    for (;;) {
      while (this.#items.length > 0) {
        const item = this.#items.shift();
        if (wanted(item)) return item;
      }
      await new Promise((resolve) => (this.#wake = resolve));
    }
  }
}

module.exports = { Inbox, fail, run, say };
