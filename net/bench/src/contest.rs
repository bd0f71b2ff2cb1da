//! Contestants take turns: A B C, C B A, A B C …, so that what else the machine does keeps out of their ratios.

/// Lets each of `contestants` have `rounds` turns of `turn`; what they measured, by contestant. The first round warms caches up
/// and does not count.
pub(crate) fn in_turns<C: Copy, T, E>(
    contestants: &[C],
    rounds: usize,
    mut turn: impl FnMut(C, usize) -> Result<T, E>,
) -> Result<Vec<Vec<T>>, E> {
    let mut measured: Vec<Vec<T>> = contestants.iter().map(|_| Vec::new()).collect();
    for round in 0..=rounds {
        let mut order: Vec<usize> = (0..contestants.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for place in order {
            let value = turn(contestants[place], round)?;
            if round > 0 {
                measured[place].push(value);
            }
        }
    }
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_every_turn_once_and_the_order_turns_round() -> Result<(), ()> {
        let mut order = Vec::new();
        let measured = in_turns(&['a', 'b'], 2, |who, round| {
            order.push(who);
            Ok::<_, ()>((who, round))
        })?;
        assert_eq!(order, ['a', 'b', 'b', 'a', 'a', 'b']);
        assert_eq!(measured, [vec![('a', 1), ('a', 2)], vec![('b', 1), ('b', 2)]]);
        Ok(())
    }
}
