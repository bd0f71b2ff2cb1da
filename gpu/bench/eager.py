"""A training step of a LLaMA in PyTorch, as a peer of the node's: eager, or through torch.compile.

    eager.py '{"weights": FOLDER, "device": "cpu", "precision": "f32", "threads": 1, "sequence": 256, "samples": 8,
               "micro_batch": 8, "learning_rate": 4e-4, "compile": null}'

FOLDER holds a config.json and safetensors files as Hugging Face names them. Each line "step" on the standard input trains
one step on that step's tokens and answers with one line of JSON: the loss, the norm of the gradient, and the seconds that
the forward and backward passes took, and the whole step with clipping and fused AdamW. The end of the input ends it.

It is written to be fast: fused attention, RMS norm, cross entropy and AdamW, separate projections like the model's own
weights, no needless copies. In bf16 the passes run on bf16 weights and gradients, as a model loaded in bf16 does, AdamW on
f32 masters of them, which is what mixed precision amounts to without casting each weight at each use.
"""

import glob
import json
import os
import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

BETAS, EPSILON, WEIGHT_DECAY, NORM_MAX = (0.9, 0.95), 1e-8, 0.01, 1.0


class Llama:
    """The network over a flat dictionary of leaves, without modules and their hooks."""

    def __init__(self, config, leaves, sequence, device, dtype):
        self.layers = [
            {name.split(f"layers.{number}.")[1]: leaf for name, leaf in leaves.items() if f"layers.{number}." in name}
            for number in range(config["num_hidden_layers"])
        ]
        self.embedding, self.norm = leaves["model.embed_tokens.weight"], leaves["model.norm.weight"]
        self.head = leaves.get("lm_head.weight", self.embedding)
        self.width, self.epsilon = config["hidden_size"], config.get("rms_norm_eps", 1e-6)
        heads = config["num_attention_heads"]
        self.head_width = config.get("head_dim") or self.width // heads
        self.grouped = config.get("num_key_value_heads", heads) != heads
        pairs = torch.arange(0, self.head_width, 2, dtype=torch.float64)
        frequencies = config.get("rope_theta", 10_000.0) ** (-pairs / self.head_width)
        angles = torch.outer(torch.arange(sequence, dtype=torch.float64), frequencies)
        angles = torch.cat([angles, angles], -1)
        self.cosine, self.sine = (table.to(device=device, dtype=dtype) for table in (angles.cos(), angles.sin()))

    def rotate(self, heads):
        left, right = heads.chunk(2, -1)
        return heads * self.cosine + torch.cat([-right, left], -1) * self.sine

    def rms_norm(self, hidden, weight):
        return F.rms_norm(hidden, (self.width,), weight, self.epsilon)

    def attention(self, layer, hidden):
        batch, sequence, _ = hidden.shape
        query, key, value = (
            F.linear(hidden, layer[f"self_attn.{name}_proj.weight"]).view(batch, sequence, -1, self.head_width).transpose(1, 2)
            for name in "qkv"
        )
        mixed = F.scaled_dot_product_attention(
            self.rotate(query), self.rotate(key), value, is_causal=True, enable_gqa=self.grouped
        )
        return F.linear(mixed.transpose(1, 2).reshape(batch, sequence, -1), layer["self_attn.o_proj.weight"])

    def feed_forward(self, layer, hidden):
        inner = F.silu(F.linear(hidden, layer["mlp.gate_proj.weight"])) * F.linear(hidden, layer["mlp.up_proj.weight"])
        return F.linear(inner, layer["mlp.down_proj.weight"])

    def loss_sum(self, inputs, labels):
        hidden = F.embedding(inputs, self.embedding)
        for layer in self.layers:
            hidden = hidden + self.attention(layer, self.rms_norm(hidden, layer["input_layernorm.weight"]))
            hidden = hidden + self.feed_forward(layer, self.rms_norm(hidden, layer["post_attention_layernorm.weight"]))
        logits = F.linear(self.rms_norm(hidden, self.norm), self.head)
        return F.cross_entropy(logits.float().view(-1, logits.shape[-1]), labels.reshape(-1), reduction="sum")


class Trainer:
    def __init__(self, job):
        torch.set_num_threads(job["threads"])
        self.job, self.device = job, torch.device(job["device"])
        with open(os.path.join(job["weights"], "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        self.vocabulary = config["vocab_size"]
        dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[job["precision"]]
        loaded = {}
        for path in sorted(glob.glob(os.path.join(job["weights"], "*.safetensors"))):
            loaded.update(load_file(path))
        masters = {name: loaded[name].to(device=self.device, dtype=torch.float32) for name in sorted(loaded)}
        leaves = masters if dtype == torch.float32 else {name: master.to(dtype) for name, master in masters.items()}
        self.masters, self.leaves = list(masters.values()), [leaf.requires_grad_() for leaf in leaves.values()]
        self.network = Llama(config, leaves, job["sequence"], self.device, dtype)
        self.loss_sum = self.network.loss_sum
        if job["compile"] is not None:
            self.loss_sum = torch.compile(self.loss_sum, backend=job["compile"])
        self.optimizer = torch.optim.AdamW(
            self.masters, lr=job["learning_rate"], betas=BETAS, eps=EPSILON, weight_decay=WEIGHT_DECAY, fused=True
        )

    def ready(self):
        return {"ready": True, "parameters": sum(leaf.numel() for leaf in self.leaves), "version": torch.__version__}

    def now(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def tokens(self, step):
        samples = torch.arange(self.job["samples"]).unsqueeze(1)
        positions = torch.arange(self.job["sequence"] + 1)
        return (samples * 7919 + positions * 104_729 + step * 31) % self.vocabulary

    def passes(self, tokens):
        count, total = tokens[:, 1:].numel(), 0.0
        for batch in tokens.split(self.job["micro_batch"]):
            batch = batch.to(self.device)
            loss = self.loss_sum(batch[:, :-1], batch[:, 1:])
            (loss * (1.0 / count)).backward()
            total += loss.item()
        return total / count

    def update(self):
        gradients = [leaf.grad for leaf in self.leaves]
        if self.leaves[0].dtype != torch.float32:
            if self.masters[0].grad is None:
                for master in self.masters:
                    master.grad = torch.empty_like(master)
            torch._foreach_copy_([master.grad for master in self.masters], gradients)
        norm = torch.nn.utils.clip_grad_norm_(self.masters, NORM_MAX)
        self.optimizer.step()
        if self.leaves[0].dtype != torch.float32:
            torch._foreach_copy_(self.leaves, self.masters)
        for leaf in self.leaves:
            leaf.grad = None
        return float(norm)

    def step(self, number):
        tokens = self.tokens(number)
        started = self.now()
        loss = self.passes(tokens)
        passed = self.now()
        with torch.no_grad():
            norm = self.update()
        ended = self.now()
        times = {"forward and backward": passed - started, "whole step": ended - started}
        return {"loss": loss, "gradient_norm": norm, "times": times}


class Peak:
    """The fastest bf16 matrix product that the device is seen to do, as a bound for what a model could use."""

    def __init__(self, job):
        torch.set_num_threads(job["threads"])
        self.device, self.edge, self.products = torch.device(job["device"]), job["edge"], job["products"]
        random = torch.Generator(device=self.device).manual_seed(1)
        self.left, self.right = (
            torch.randn(self.edge, self.edge, device=self.device, generator=random).bfloat16() for _ in range(2)
        )

    def ready(self):
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else "CPU"
        return {"ready": True, "device": name, "version": torch.__version__}

    def step(self, _number):
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(self.products):
            product = self.left @ self.right
        checked = float(product[0, 0])  # Waits for the device.
        seconds = (time.perf_counter() - started) / self.products
        return {"checked": checked, "flop": 2 * self.edge**3, "times": {"product": seconds}}


def main():
    job = json.loads(sys.argv[1])
    worker = Peak(job) if "edge" in job else Trainer(job)
    print(json.dumps(worker.ready()), flush=True)
    for number, line in enumerate(sys.stdin):
        if line.strip() != "step":
            sys.exit(f"eager.py: expected the line step, not {line.strip()[:40]!r}")
        print(json.dumps(worker.step(number)), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main()
