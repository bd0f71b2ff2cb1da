"""Hugging Face's transformers as the other side of a comparison: makes models, loads ours, and computes logits.

  peer.py make FOLDER            random small models, one folder each, with their tokens and logits
  peer.py load FOLDER...         loads models that another program wrote and computes their logits
  peer.py smollm2 GGUF MODEL OUT the small real model that GGUF holds, converted to MODEL once; its logits go to OUT

Beside each model lie tokens.json (samples of equal length) and logits.bin (f32, little-endian: sample, position, token).
"""

import json
import os
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

PROMPT = "The capital of France is"
NEW_TOKENS = 4

LLAMA3 = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}

# Name, changes of the configuration, element type on disk, largest file. Sequences go beyond the original context.
MODELS = [
    ("grouped", {}, torch.float32, "5GB"),
    ("tied-wide-heads", {"num_key_value_heads": 4, "head_dim": 24, "tie_word_embeddings": True}, torch.bfloat16, "5GB"),
    ("one-key-head", {"num_key_value_heads": 1, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}, torch.float16, "5GB"),
    ("llama3", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}}, torch.float32, "60KB"),
    ("llama3-tied", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 100.0, **LLAMA3, "factor": 32.0}, "tie_word_embeddings": True, "head_dim": 8}, torch.bfloat16, "40KB"),
    ("yarn", {"rope_parameters": YARN}, torch.float32, "5GB"),
    ("yarn-all-fields", {"rope_parameters": {**YARN, "rope_theta": 1e3, "beta_fast": 8.0, "beta_slow": 0.5, "mscale": 1.5, "mscale_all_dim": 0.5, "truncate": False}, "head_dim": 32}, torch.bfloat16, "5GB"),
    ("yarn-attention", {"rope_parameters": {**YARN, "attention_factor": 0.8}, "tie_word_embeddings": True}, torch.float16, "5GB"),
]


def logits_of(model, tokens, path):
    with torch.no_grad():
        logits = model(torch.tensor(tokens), use_cache=False).logits.float()
    path.write_bytes(logits.contiguous().numpy().tobytes())


def make(folder):
    for seed, (name, changes, dtype, file_size) in enumerate(MODELS):
        torch.manual_seed(seed)
        config = LlamaConfig(**{
            "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": 160, "max_position_embeddings": 128, "initializer_range": 0.15,
            "attn_implementation": "eager", **changes,
        })
        model = LlamaForCausalLM(config).eval()
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if key.endswith("norm.weight"):
                    parameter.add_(torch.randn_like(parameter) * 0.2)
        target = Path(folder, name)
        model.to(dtype).save_pretrained(target, max_shard_size=file_size)
        tokens = torch.randint(160, (2, 96)).tolist()
        (target / "tokens.json").write_text(json.dumps(tokens))
        # Loaded again, because a conversion of the whole model also rounds the rotary frequencies, which loading does not.
        for kind, file in ((torch.float32, "logits.bin"), (torch.bfloat16, "logits-bf16.bin")):
            loaded = LlamaForCausalLM.from_pretrained(target, dtype=kind, attn_implementation="eager").eval()
            logits_of(loaded, tokens, target / file)


def load(folders):
    reports = []
    for folder in map(Path, folders):
        model, info = LlamaForCausalLM.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, attn_implementation="eager"
        )
        logits_of(model.eval(), json.loads((folder / "tokens.json").read_text()), folder / "logits.bin")
        odd = {name: sorted(map(str, keys)) for name, keys in info.items() if keys}
        reports.append({"odd": odd, "rope": model.config.rope_parameters})
    print(json.dumps(reports))


def convert(gguf, folder):
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    config = LlamaConfig(**load_gguf_checkpoint(gguf)["config"])
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    tensors = load_gguf_checkpoint(gguf, return_tensors=True, model_to_load=model)["tensors"]
    # Tied to the embedding, which is the only one that the file holds.
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    model.load_state_dict(tensors, strict=True, assign=True)
    model.tie_weights()
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="smollm2-") as partial:
        model.to(torch.bfloat16).save_pretrained(partial)
        AutoTokenizer.from_pretrained(Path(gguf).parent, gguf_file=Path(gguf).name).save_pretrained(partial)
        try:
            os.rename(partial, folder)
        except OSError:
            # Somebody else was first. What is there is whole, because it appeared by a rename, too.
            if not (folder / "config.json").exists():
                raise
        else:
            os.mkdir(partial)


def smollm2(gguf, folder, out):
    folder, out = Path(folder), Path(out)
    if not folder.exists():
        convert(gguf, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = tokenizer(PROMPT, return_tensors="pt").input_ids
    output = model.generate(
        inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=NEW_TOKENS, do_sample=False,
        pad_token_id=tokenizer.eos_token_id,
    )
    (out / "tokens.json").write_text(json.dumps(inputs.tolist()))
    logits_of(model, inputs.tolist(), out / "logits.bin")
    print(json.dumps({"output": output[0].tolist(), "text": tokenizer.decode(output[0])}))


def main():
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    command, *arguments = sys.argv[1:]
    match command:
        case "make":
            make(*arguments)
        case "load":
            load(arguments)
        case "smollm2":
            smollm2(*arguments)
        case _:
            sys.exit(f"no command {command}")


main()
