//! How positions turn queries and keys: the kinds of rotary embedding that a `config.json` may ask for.
//!
//! The formulas and the defaults of absent fields are those of Hugging Face transformers 5 (`modeling_rope_utils.py`).

use serde::Serialize;
use serde_json::{Map, Value};

use super::{DIMENSION_MAX, RawConfig, Violations};

/// Base of the frequencies where a file names none.
const THETA: f64 = 10_000.0;
/// Upper bound of factors and of numbers of rotations.
const FACTOR_MAX: f64 = 1e6;
/// Fields that a file may hold for every kind.
const COMMON: [&str; 4] = ["rope_type", "type", "rope_theta", "partial_rotary_factor"];

/// Kind of rotary embedding, every value resolved.
///
/// Serialises as the object that Hugging Face reads from `rope_scaling`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "rope_type", rename_all = "lowercase")]
pub enum Rope {
    /// Frequencies `theta^(−2i / head_dim)` (Su et al., 2021).
    Default,
    /// Low frequencies slowed down, as LLaMA 3.1 does.
    Llama3(Llama3),
    /// Frequencies interpolated by parts (YaRN: Peng et al., 2023).
    Yarn(Yarn),
}

/// LLaMA 3.1's settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Llama3 {
    /// By how much low frequencies are slowed down; at least 1.
    pub factor: f64,
    /// Turns over the original context up to which a frequency is low.
    pub low_freq_factor: f64,
    /// Turns over the original context from which on a frequency is left alone; more than the other.
    pub high_freq_factor: f64,
    /// Context that the model was first trained with.
    pub original_max_position_embeddings: usize,
}

/// YaRN's settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Yarn {
    /// By how much the context was stretched; at least 1.
    pub factor: f64,
    /// What cosines and sines are multiplied with.
    pub attention_factor: f64,
    /// Turns over the original context from which on a frequency is left alone.
    pub beta_fast: f64,
    /// Turns over the original context up to which a frequency is divided by the factor.
    pub beta_slow: f64,
    /// Context that the model was first trained with.
    pub original_max_position_embeddings: usize,
    /// Whether the ramp between the two begins and ends at whole numbers.
    pub truncate: bool,
}

impl Rope {
    /// Whether nothing differs from the original rotary embedding.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::Default
    }

    /// Angle per position of each pair of features, in radians.
    ///
    /// # Shapes
    /// `head_dim / 2` numbers.
    pub fn frequencies(&self, theta: f64, head_dim: usize) -> Vec<f64> {
        let plain = (0..head_dim / 2).map(|pair| theta.powf(-2.0 * pair as f64 / head_dim as f64));
        match self {
            Self::Default => plain.collect(),
            Self::Llama3(llama3) => plain.map(|frequency| llama3.slowed(frequency)).collect(),
            Self::Yarn(yarn) => {
                let (low, high) = yarn.ramp(theta, head_dim);
                let kept = |pair: usize| 1.0 - ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                let mixed = |(pair, frequency)| {
                    let kept: f64 = kept(pair);
                    frequency / yarn.factor * (1.0 - kept) + frequency * kept
                };
                plain.enumerate().map(mixed).collect()
            }
        }
    }

    /// What cosines and sines are multiplied with.
    pub fn attention_factor(&self) -> f64 {
        match self {
            Self::Yarn(yarn) => yarn.attention_factor,
            Self::Default | Self::Llama3(_) => 1.0,
        }
    }
}

impl Llama3 {
    fn slowed(&self, frequency: f64) -> f64 {
        let turns = self.original_max_position_embeddings as f64 * frequency / std::f64::consts::TAU;
        let smooth = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor);
        let smooth = smooth.clamp(0.0, 1.0);
        (1.0 - smooth) * frequency / self.factor + smooth * frequency
    }
}

impl Yarn {
    /// Pairs between which frequencies pass from being left alone to being divided by the factor.
    fn ramp(&self, theta: f64, head_dim: usize) -> (f64, f64) {
        let pair_with = |turns: f64| {
            let position = self.original_max_position_embeddings as f64 / (turns * std::f64::consts::TAU);
            head_dim as f64 * position.ln() / (2.0 * theta.ln())
        };
        let (mut low, mut high) = (pair_with(self.beta_fast), pair_with(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(head_dim as f64 - 1.0));
        if low == high { (low, high + 0.001) } else { (low, high) }
    }
}

/// The rotary base and the kind, from either of the two places where Hugging Face has put them.
pub(super) fn read(raw: &RawConfig, max_positions: usize, violations: &mut Violations) -> (f64, Rope) {
    let places = [("rope_scaling", &raw.rope_scaling), ("rope_parameters", &raw.rope_parameters)];
    let mut given: Option<(&'static str, &Map<String, Value>)> = None;
    for (place, value) in places {
        match (value, given) {
            (None, _) => {}
            (Some(Value::Object(fields)), None) if !fields.is_empty() => given = Some((place, fields)),
            (Some(Value::Object(fields)), first) if fields.is_empty() || first.is_some_and(|(_, first)| first == fields) => {}
            (Some(Value::Object(_)), _) => {
                violations.check(false, place, || "says something else than rope_scaling".to_owned());
            }
            (Some(_), _) => violations.check(false, place, || "is no object".to_owned()),
        }
    }
    let empty = Map::new();
    let (place, fields) = given.unwrap_or(("rope_scaling", &empty));
    let mut reader = Reader { place, fields, violations };
    let theta = reader.number("rope_theta").or(raw.rope_theta).unwrap_or(THETA);
    let rope = kind(&mut reader, raw, max_positions);
    violations.check(theta.is_finite() && theta > 1.0, "rope_theta", || format!("{theta} is not a finite number above 1"));
    (theta, rope)
}

fn kind(reader: &mut Reader<'_>, raw: &RawConfig, max_positions: usize) -> Rope {
    let (new, old) = (reader.word("rope_type"), reader.word("type"));
    if let (Some(new), Some(old)) = (new, old) {
        reader.check(new == old, "type", || format!("{old:?} is not the rope_type, {new:?}"));
    }
    let partial = reader.number("partial_rotary_factor").unwrap_or(1.0);
    reader.check(partial == 1.0, "partial_rotary_factor", || format!("{partial} is not supported, only 1.0"));
    match new.or(old).unwrap_or("default") {
        "default" => {
            reader.known(&[]);
            Rope::Default
        }
        "llama3" => Rope::Llama3(llama3(reader, raw, max_positions)),
        "yarn" => Rope::Yarn(yarn(reader, raw, max_positions)),
        other => {
            let name = if new.is_some() { "rope_type" } else { "type" };
            reader.check(false, name, || format!("{other:?} is not supported, only \"default\", \"llama3\" and \"yarn\""));
            Rope::Default
        }
    }
}

fn llama3(reader: &mut Reader<'_>, raw: &RawConfig, max_positions: usize) -> Llama3 {
    reader.known(&["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"]);
    let factor = reader.required("factor");
    let low_freq_factor = reader.required("low_freq_factor");
    let high_freq_factor = reader.required("high_freq_factor");
    reader.within("factor", factor, 1.0);
    reader.within("low_freq_factor", low_freq_factor, f64::MIN_POSITIVE);
    reader.within("high_freq_factor", high_freq_factor, f64::MIN_POSITIVE);
    let both = ["low_freq_factor", "high_freq_factor"].iter().all(|name| reader.fields.contains_key(*name));
    reader.check(!both || high_freq_factor > low_freq_factor, "high_freq_factor", || {
        format!("{high_freq_factor} is not above low_freq_factor, {low_freq_factor}")
    });
    let original_max_position_embeddings = original(reader, raw, max_positions);
    Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings }
}

fn yarn(reader: &mut Reader<'_>, raw: &RawConfig, max_positions: usize) -> Yarn {
    reader.known(&[
        "factor",
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "original_max_position_embeddings",
        "truncate",
    ]);
    let original_max_position_embeddings = original(reader, raw, max_positions);
    let factor = reader.number("factor").unwrap_or(max_positions as f64 / original_max_position_embeddings.max(1) as f64);
    reader.within("factor", factor, 1.0);
    // Zero stands for an absent value here.
    let [beta_fast, beta_slow, mscale, mscale_all_dim] = ["beta_fast", "beta_slow", "mscale", "mscale_all_dim"].map(|name| {
        let value = reader.number(name).filter(|&value| value != 0.0);
        if let Some(value) = value {
            reader.within(name, value, f64::MIN_POSITIVE);
        }
        value
    });
    let scaled = |mscale: f64| 0.1 * mscale * factor.max(1.0).ln() + 1.0;
    let implied = match (mscale, mscale_all_dim) {
        (Some(mscale), Some(all)) => scaled(mscale) / scaled(all),
        _ => scaled(1.0),
    };
    let attention_factor = reader.number("attention_factor").unwrap_or(implied);
    reader.within("attention_factor", attention_factor, f64::MIN_POSITIVE);
    let (beta_fast, beta_slow) = (beta_fast.unwrap_or(32.0), beta_slow.unwrap_or(1.0));
    reader.check(beta_fast >= beta_slow, "beta_fast", || format!("{beta_fast} is below beta_slow, {beta_slow}"));
    let truncate = reader.flag("truncate").unwrap_or(true);
    Yarn { factor, attention_factor, beta_fast, beta_slow, original_max_position_embeddings, truncate }
}

/// The original context, which a file may also hold outside the object, and which is the whole one if it is nowhere.
fn original(reader: &mut Reader<'_>, raw: &RawConfig, max_positions: usize) -> usize {
    const NAME: &str = "original_max_position_embeddings";
    let inside = reader.size(NAME);
    if let (Some(inside), Some(outside)) = (inside, raw.original_max_position_embeddings) {
        reader.check(inside == outside, NAME, || format!("{inside} is not what the file says outside, {outside}"));
    }
    let original = inside.or(raw.original_max_position_embeddings).unwrap_or(max_positions);
    reader.check((1..=DIMENSION_MAX).contains(&original), NAME, || format!("{original} is not in 1..={DIMENSION_MAX}"));
    original
}

/// Reads the object's fields; null counts as absent, and what has the wrong type as absent and refused.
struct Reader<'a> {
    place: &'static str,
    fields: &'a Map<String, Value>,
    violations: &'a mut Violations,
}

impl<'a> Reader<'a> {
    fn check(&mut self, holds: bool, name: &str, problem: impl FnOnce() -> String) {
        self.violations.check(holds, format!("{}.{name}", self.place), problem);
    }

    /// Refuses every field that this kind does not have.
    fn known(&mut self, names: &[&str]) {
        let fields = self.fields;
        for name in fields.keys().filter(|name| !COMMON.contains(&name.as_str()) && !names.contains(&name.as_str())) {
            self.check(false, name, || "is not supported for this rope_type".to_owned());
        }
    }

    fn within(&mut self, name: &str, value: f64, least: f64) {
        let holds = (least..=FACTOR_MAX).contains(&value);
        let from = if least < 1.0 { "above 0" } else { "at least 1" };
        self.check(holds, name, || format!("{value} is not {from} and at most {FACTOR_MAX}"));
    }

    fn value<T>(&mut self, name: &str, what: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Option<T> {
        let value = self.fields.get(name).filter(|value| !value.is_null())?;
        let read = read(value);
        self.check(read.is_some(), name, || format!("is no {what}"));
        read
    }

    fn number(&mut self, name: &str) -> Option<f64> {
        self.value(name, "number", Value::as_f64)
    }

    /// A number that must be there; 1 in its place, so that nothing else is found wrong because of it.
    fn required(&mut self, name: &str) -> f64 {
        let there = self.fields.get(name).is_some_and(|value| !value.is_null());
        self.check(there, name, || "is missing".to_owned());
        self.number(name).unwrap_or(1.0)
    }

    fn size(&mut self, name: &str) -> Option<usize> {
        self.value(name, "whole number", |value| usize::try_from(value.as_u64()?).ok())
    }

    fn flag(&mut self, name: &str) -> Option<bool> {
        self.value(name, "true or false", Value::as_bool)
    }

    fn word(&mut self, name: &str) -> Option<&'a str> {
        self.value(name, "text", Value::as_str)
    }
}
