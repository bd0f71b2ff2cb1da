use super::*;

const CONSTANT: LrSchedule = LrSchedule::Constant { base: 4e-4, warmup_init: 1e-5, warmup_steps: 10 };
const LINEAR: LrSchedule =
    LrSchedule::Linear { base: 4e-4, warmup_init: 0.0, final_rate: 4e-5, warmup_steps: 10, total_steps: 110 };
const COSINE: LrSchedule =
    LrSchedule::Cosine { base: 4e-4, warmup_init: 0.0, final_rate: 4e-5, warmup_steps: 250, total_steps: 25_000 };
const DECAY: LrSchedule = LrSchedule::WarmupStableDecay {
    base: 4e-4,
    warmup_init: 0.0,
    cosine_final: 1e-4,
    linear_final: 1e-6,
    warmup_steps: 10,
    stable_steps: 20,
    cosine_steps: 30,
    linear_steps: 40,
};

#[test]
fn schedules_pass_through_their_corners() {
    // schedule, step, rate
    let cases = [
        (CONSTANT, 0, 1e-5),
        (CONSTANT, 5, 2.05e-4),
        (CONSTANT, 10, 4e-4),
        (CONSTANT, u32::MAX, 4e-4),
        (LINEAR, 5, 2e-4),
        (LINEAR, 10, 4e-4),
        (LINEAR, 60, 2.2e-4),
        (LINEAR, 110, 4e-5),
        (LINEAR, 111, 4e-5),
        (COSINE, 0, 0.0),
        (COSINE, 250, 4e-4),
        (COSINE, 12_625, 2.2e-4),
        (COSINE, 25_000, 4e-5),
        (COSINE, 49_000, 4e-5),
        (DECAY, 10, 4e-4),
        (DECAY, 29, 4e-4),
        (DECAY, 45, 2.5e-4),
        (DECAY, 60, 1e-4),
        (DECAY, 80, 5.05e-5),
        (DECAY, 100, 1e-6),
        (DECAY, 1000, 1e-6),
    ];
    for (schedule, step, expected) in cases {
        let found = f64::from(schedule.rate(step, None));
        assert!((found - expected).abs() <= expected * 1e-7, "{schedule:?} at {step}: {found}, not {expected}");
    }
}

#[test]
fn the_cosine_agrees_with_the_library_to_the_last_bits() {
    for step in 250..25_000 {
        let progress = f64::from(step - 250) / 24_750.0;
        let expected = 4e-5 + 0.5 * (4e-4 - 4e-5) * (1.0 + (PI * progress).cos());
        let found = f64::from(COSINE.rate(step, None));
        assert!((found - expected).abs() < 4e-11, "step {step}: {found}, not {expected}");
    }
}

#[test]
fn rates_are_the_committed_ones() {
    for (key, schedule) in [("lr.constant", CONSTANT), ("lr.linear", LINEAR), ("lr.cosine", COSINE), ("lr.decay", DECAY)] {
        let mut hasher = blake3::Hasher::new();
        (0..30_000).for_each(|step| _ = hasher.update(&schedule.rate(step, None).to_le_bytes()));
        assert_eq!(hasher.finalize().to_hex().as_str(), golden(GOLDEN, key));
    }
}

#[test]
fn a_cold_start_scales_from_zero_to_the_schedule() {
    let ramp = Some(ColdStart { start_step: 1000, steps: 8 });
    for (step, share) in [(1000, 0.0), (1002, 0.25), (1007, 0.875), (1008, 1.0), (5000, 1.0)] {
        assert_eq!(CONSTANT.rate(step, ramp), (4e-4 * share) as f32);
    }
    let none = Some(ColdStart { start_step: 1000, steps: 0 });
    assert_eq!(CONSTANT.rate(1000, none), 4e-4);
}

#[test]
fn schedules_without_steps_are_their_final_rate() {
    let instant = LrSchedule::Cosine { base: 1.0, warmup_init: 0.0, final_rate: 0.5, warmup_steps: 0, total_steps: 0 };
    assert_eq!(instant.validate(), Ok(()));
    assert_eq!(instant.rate(0, None), 0.5);
}

#[test]
fn unusable_schedules_are_refused() {
    for schedule in [CONSTANT, LINEAR, COSINE, DECAY] {
        assert_eq!(schedule.validate(), Ok(()));
    }
    for bad in [f64::NAN, f64::INFINITY, -1e-9, 1e39] {
        let schedule = LrSchedule::Constant { base: bad, warmup_init: 0.0, warmup_steps: 0 };
        assert!(matches!(schedule.validate(), Err(LrScheduleError::Rate { name: "base", .. })));
        let schedule = LrSchedule::Linear { base: 1.0, warmup_init: 0.0, final_rate: bad, warmup_steps: 0, total_steps: 1 };
        assert!(matches!(schedule.validate(), Err(LrScheduleError::Rate { name: "final", .. })));
    }
    let ends_early = LrSchedule::Linear { base: 1.0, warmup_init: 0.0, final_rate: 0.0, warmup_steps: 5, total_steps: 4 };
    assert_eq!(ends_early.validate(), Err(LrScheduleError::Steps { warmup: 5, total: 4 }));
}
