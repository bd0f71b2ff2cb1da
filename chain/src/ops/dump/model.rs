//! A run's rules and model as JSON, with the names of the run's TOML, so that one can be compared with the other.

use psyche_protocol::layout::{Config, FixedString, TokenSize};
use psyche_protocol::model::{
    Checkpoint, DataLocation, DecayLr, GcsRepo, HttpSource, HubRepo, LrSchedule, Model, Optimizer, Shuffle,
};
use psyche_protocol::{F32Bits, F64Bits};
use serde_json::{Value, json};

pub(super) fn config(config: &Config) -> Value {
    json!({
        "warmup_time": config.warmup_time,
        "cooldown_time": config.cooldown_time,
        "epoch_time": config.epoch_time,
        "max_round_train_time": config.max_round_train_time,
        "round_witness_time": config.round_witness_time,
        "min_clients": config.min_clients,
        "init_min_clients": config.init_min_clients,
        "witness_nodes": config.witness_nodes,
        "global_batch_size_start": config.global_batch_size_start,
        "global_batch_size_end": config.global_batch_size_end,
        "global_batch_size_warmup_tokens": config.global_batch_size_warmup_tokens,
        "total_steps": config.total_steps,
        "verification_percent": config.verification_percent,
        "waiting_for_members_extra_time": config.waiting_for_members_extra_time,
    })
}

pub(super) fn model(model: &Model) -> Value {
    let llm = model.llm();
    json!({"LLM": {
        "architecture": format!("{:?}", llm.architecture),
        "data_type": format!("{:?}", llm.data_type),
        "max_seq_len": llm.max_seq_len,
        "cold_start_warmup_steps": llm.cold_start_warmup_steps,
        "checkpoint": checkpoint(&llm.checkpoint),
        "data_location": data_location(&llm.data_location),
        "lr_schedule": lr_schedule(&llm.lr_schedule),
        "optimizer": optimizer(&llm.optimizer),
    }})
}

/// A number that rounds back to the same bits; `null` for what is no number.
fn single(bits: F32Bits) -> Value {
    // By way of the shortest text, so that 0.999 stays 0.999.
    f32::from_bits(bits.0).to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

fn double(bits: F64Bits) -> Value {
    Value::from(f64::from_bits(bits.0))
}

fn checkpoint(checkpoint: &Checkpoint) -> Value {
    let hub = |repo: &HubRepo| json!({"repo_id": repo.repo_id.as_str(), "revision": text(repo.revision.as_ref())});
    let gcs = |repo: &GcsRepo| json!({"bucket": repo.bucket.as_str(), "prefix": text(repo.prefix.as_ref())});
    match checkpoint {
        Checkpoint::Ephemeral => json!("Ephemeral"),
        Checkpoint::Dummy(repo) => json!({"Dummy": hub(repo)}),
        Checkpoint::Hub(repo) => json!({"Hub": hub(repo)}),
        Checkpoint::P2P(repo) => json!({"P2P": hub(repo)}),
        Checkpoint::Gcs(repo) => json!({"Gcs": gcs(repo)}),
        Checkpoint::P2PGcs(repo) => json!({"P2PGcs": gcs(repo)}),
    }
}

fn text(text: Option<&FixedString<64>>) -> Option<&str> {
    text.map(FixedString::as_str)
}

fn data_location(location: &DataLocation) -> Value {
    let http = match location {
        DataLocation::Dummy => return json!("Dummy"),
        DataLocation::Server(server) => return json!({"Server": server.as_str()}),
        DataLocation::Local(path) => return json!({"Local": path.as_str()}),
        DataLocation::WeightedHttp(url) => return json!({"WeightedHttp": url.as_str()}),
        DataLocation::Preprocessed(place) => return json!({"Preprocessed": place.as_str()}),
        DataLocation::Http(http) => http,
    };
    let location = match &http.source {
        HttpSource::SingleUrl(url) => json!({"SingleUrl": url.as_str()}),
        HttpSource::NumberedFiles { url_template, start_index, n_left_pad_zeros, num_files } => json!({"NumberedFiles": {
            "url_template": url_template.as_str(), "start_index": start_index,
            "n_left_pad_zeros": n_left_pad_zeros, "num_files": num_files,
        }}),
        HttpSource::Gcp { bucket_name, filter_directory } => json!({"Gcp": {
            "bucket_name": bucket_name.as_str(), "filter_directory": filter_directory.as_str(),
        }}),
    };
    let shuffle = match http.shuffle {
        Shuffle::DontShuffle => json!("DontShuffle"),
        Shuffle::Seeded(seed) => json!({"Seeded": seed}),
    };
    let size = if http.token_size == TokenSize::TwoBytes { "TwoBytes" } else { "FourBytes" };
    json!({"Http": {"location": location, "token_size_in_bytes": size, "shuffle": shuffle}})
}

fn lr_schedule(schedule: &LrSchedule) -> Value {
    let decay = |lr: &DecayLr| {
        json!({
            "base_lr": double(lr.base_lr), "warmup_steps": lr.warmup_steps, "warmup_init_lr": double(lr.warmup_init_lr),
            "total_steps": lr.total_steps, "final_lr": double(lr.final_lr),
        })
    };
    match schedule {
        LrSchedule::Constant { base_lr, warmup_init_lr, warmup_steps } => json!({"Constant": {
            "base_lr": double(*base_lr), "warmup_steps": warmup_steps, "warmup_init_lr": double(*warmup_init_lr),
        }}),
        LrSchedule::Linear(lr) => json!({"Linear": decay(lr)}),
        LrSchedule::Cosine(lr) => json!({"Cosine": decay(lr)}),
        LrSchedule::WarmupStableDecay {
            base_lr,
            warmup_init_lr,
            cosine_decay_final_lr,
            linear_decay_final_lr,
            warmup_steps,
            stable_steps,
            cosine_decay_steps,
            linear_decay_steps,
        } => json!({"WarmupStableDecay": {
            "base_lr": double(*base_lr), "warmup_steps": warmup_steps, "warmup_init_lr": double(*warmup_init_lr),
            "stable_steps": stable_steps, "cosine_decay_steps": cosine_decay_steps,
            "cosine_decay_final_lr": double(*cosine_decay_final_lr), "linear_decay_steps": linear_decay_steps,
            "linear_decay_final_lr": double(*linear_decay_final_lr),
        }}),
    }
}

fn optimizer(optimizer: &Optimizer) -> Value {
    match optimizer {
        Optimizer::Dummy => json!("Dummy"),
        Optimizer::AdamW { betas: [first, second], weight_decay, eps, clip_grad_norm } => json!({"AdamW": {
            "betas": [single(*first), single(*second)], "weight_decay": single(*weight_decay), "eps": single(*eps),
            "clip_grad_norm": clip_grad_norm.map(single),
        }}),
        Optimizer::Distro {
            clip_grad_norm,
            weight_decay,
            compression_decay,
            compression_topk,
            compression_chunk,
            quantize_1bit,
        } => json!({"Distro": {
            "clip_grad_norm": clip_grad_norm.map(single), "weight_decay": weight_decay.map(single),
            "compression_decay": single(*compression_decay), "compression_topk": compression_topk,
            "compression_chunk": compression_chunk, "quantize_1bit": quantize_1bit,
        }}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_as_they_were_written() {
        assert_eq!(single(F32Bits(0.999_f32.to_bits())).to_string(), "0.999");
        assert_eq!(double(F64Bits(4e-4_f64.to_bits())).to_string(), "0.0004");
        assert_eq!(single(F32Bits(f32::NAN.to_bits())), Value::Null);
        assert_eq!(double(F64Bits(f64::INFINITY.to_bits())), Value::Null);
    }
}
