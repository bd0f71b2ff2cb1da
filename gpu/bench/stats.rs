//! Medians and ratios of measurements that were taken in turns.

/// Where the middle half of some measurements lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// Quartiles of `values`, interpolated; none of no values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)? as f64;
        let at = |quantile: f64| {
            let place = last * quantile;
            let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        Some(Self { low: at(0.25), median: at(0.5), high: at(0.75) })
    }

    /// Of `values` in their order, the ratios of each to its partner in `peers`.
    pub(crate) fn of_ratios(values: &[f64], peers: &[f64]) -> Option<Self> {
        Self::of(values.iter().zip(peers).map(|(value, peer)| value / peer))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    #[test]
    fn quartiles_are_interpolated_and_do_not_depend_on_the_order() {
        assert_eq!(Spread::of([4.0, 1.0, 3.0, 2.0]), Some(Spread { low: 1.75, median: 2.5, high: 3.25 }));
        assert_eq!(Spread::of([7.0]), Some(Spread { low: 7.0, median: 7.0, high: 7.0 }));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn a_machine_that_slows_both_down_does_not_move_the_ratio() {
        let (ours, peers) = ([1.0, 10.0, 2.0], [2.0, 20.0, 4.0]);
        let ratio = Spread::of_ratios(&ours, &peers).unwrap();
        assert_eq!((ratio.low, ratio.median, ratio.high), (0.5, 0.5, 0.5));
    }
}
