//! The learning rate of a step, with the same bits on every machine.
//!
//! Schedules are evaluated in f64 by `+ − × ÷` and this crate's own cosine, and rounded to f32 once, at the end.

use super::trig::cos_pi;

/// Why a schedule was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LrScheduleError {
    /// A rate that is not a finite f32, or below 0.
    #[error("use a learning rate schedule with {name} of {value}: must be finite and not negative")]
    Rate {
        /// Which of the schedule's rates.
        name: &'static str,
        /// Its value.
        value: f64,
    },
    /// The schedule's steps overflow, or it ends before its warmup does.
    #[error("use a learning rate schedule whose {total} steps end before its {warmup} warmup steps")]
    Steps {
        /// Steps of warmup.
        warmup: u32,
        /// Steps in total.
        total: u32,
    },
}

/// A learning rate schedule, as the coordinator account stores it (ABI section 1.2, "LR payloads").
///
/// Each begins with a linear warmup from `warmup_init` to `base`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "the fields carry the account's names; the variants say what they mean")]
pub enum LrSchedule {
    /// `base` after the warmup.
    Constant { base: f64, warmup_init: f64, warmup_steps: u32 },
    /// A line from `base` at the end of the warmup to `final_rate` at `total_steps`, then `final_rate`.
    Linear { base: f64, warmup_init: f64, final_rate: f64, warmup_steps: u32, total_steps: u32 },
    /// Half a cosine from `base` at the end of the warmup to `final_rate` at `total_steps`, then `final_rate`.
    Cosine { base: f64, warmup_init: f64, final_rate: f64, warmup_steps: u32, total_steps: u32 },
    /// `base` for `stable_steps`, half a cosine to `cosine_final` over `cosine_steps`, a line to `linear_final` over
    /// `linear_steps`, then `linear_final`.
    WarmupStableDecay {
        base: f64,
        warmup_init: f64,
        cosine_final: f64,
        linear_final: f64,
        warmup_steps: u32,
        stable_steps: u32,
        cosine_steps: u32,
        linear_steps: u32,
    },
}

/// A linear ramp from 0 at `start_step` to the schedule's own rate `steps` later: after a pause nobody has momentum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColdStart {
    /// Step at which the cold epoch started.
    pub start_step: u32,
    /// Length of the ramp in steps; 0 means none.
    pub steps: u32,
}

impl LrSchedule {
    /// Checks what a run's creator wrote.
    ///
    /// # Errors
    /// A rate that is negative or not finite in f32, a total below the warmup.
    pub fn validate(&self) -> Result<(), LrScheduleError> {
        for (name, value) in self.rates() {
            if !(value >= 0.0 && (value as f32).is_finite()) {
                return Err(LrScheduleError::Rate { name, value });
            }
        }
        if let Self::Linear { warmup_steps, total_steps, .. } | Self::Cosine { warmup_steps, total_steps, .. } = *self
            && total_steps < warmup_steps
        {
            return Err(LrScheduleError::Steps { warmup: warmup_steps, total: total_steps });
        }
        Ok(())
    }

    /// The rate of `step`, during a cold start scaled down.
    pub fn rate(&self, step: u32, cold_start: Option<ColdStart>) -> f32 {
        let scale = cold_start.map_or(1.0, |ramp| progress(step, ramp.start_step, ramp.steps));
        (self.rate_f64(step) * scale) as f32
    }

    fn rates(&self) -> Vec<(&'static str, f64)> {
        match *self {
            Self::Constant { base, warmup_init, .. } => vec![("base", base), ("warmup_init", warmup_init)],
            Self::Linear { base, warmup_init, final_rate, .. } | Self::Cosine { base, warmup_init, final_rate, .. } => {
                vec![("base", base), ("warmup_init", warmup_init), ("final", final_rate)]
            }
            Self::WarmupStableDecay { base, warmup_init, cosine_final, linear_final, .. } => vec![
                ("base", base),
                ("warmup_init", warmup_init),
                ("cosine_final", cosine_final),
                ("linear_final", linear_final),
            ],
        }
    }

    fn rate_f64(&self, step: u32) -> f64 {
        let (base, warmup_init, warmup_steps) = self.warmup();
        if step < warmup_steps {
            return line(warmup_init, base, progress(step, 0, warmup_steps));
        }
        match *self {
            Self::Constant { .. } => base,
            Self::Linear { final_rate, total_steps, .. } => {
                line(base, final_rate, progress(step, warmup_steps, total_steps.saturating_sub(warmup_steps)))
            }
            Self::Cosine { final_rate, total_steps, .. } => {
                half_cosine(base, final_rate, progress(step, warmup_steps, total_steps.saturating_sub(warmup_steps)))
            }
            Self::WarmupStableDecay { cosine_final, linear_final, stable_steps, cosine_steps, linear_steps, .. } => {
                let cosine_start = warmup_steps.saturating_add(stable_steps);
                let linear_start = cosine_start.saturating_add(cosine_steps);
                if step < cosine_start {
                    base
                } else if step < linear_start {
                    half_cosine(base, cosine_final, progress(step, cosine_start, cosine_steps))
                } else {
                    line(cosine_final, linear_final, progress(step, linear_start, linear_steps))
                }
            }
        }
    }

    fn warmup(&self) -> (f64, f64, u32) {
        match *self {
            Self::Constant { base, warmup_init, warmup_steps }
            | Self::Linear { base, warmup_init, warmup_steps, .. }
            | Self::Cosine { base, warmup_init, warmup_steps, .. }
            | Self::WarmupStableDecay { base, warmup_init, warmup_steps, .. } => (base, warmup_init, warmup_steps),
        }
    }
}

/// The share of `steps` that has passed at `step`, from 0 to 1; 1 where there are none.
fn progress(step: u32, start: u32, steps: u32) -> f64 {
    let passed = step.saturating_sub(start);
    if passed >= steps { 1.0 } else { f64::from(passed) / f64::from(steps) }
}

fn line(from: f64, to: f64, progress: f64) -> f64 {
    if progress >= 1.0 { to } else { from + (to - from) * progress }
}

fn half_cosine(from: f64, to: f64, progress: f64) -> f64 {
    if progress >= 1.0 { to } else { to + 0.5 * (from - to) * (1.0 + cos_pi(progress)) }
}
