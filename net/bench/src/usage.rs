//! Processor time of processes and everything that they started, as the kernel tells it.

use std::collections::HashMap;
use std::io;

/// One line of /proc/PID/stat: whose child it is, and its clock ticks, with those of children that have ended.
fn parse(stat: &str) -> Option<(u32, u64)> {
    // The name may hold anything; what follows its closing parenthesis is numbers.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let parent = fields.get(1)?.parse().ok()?;
    let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some((parent, ticks))
}

/// The ticks of `roots` and their descendants, given everybody's parent and ticks.
fn ticks_below(roots: &[u32], all: &HashMap<u32, (u32, u64)>) -> u64 {
    let belongs = |mut id: u32| {
        // As many steps as there are processes, should the table contradict itself.
        for _ in 0..=all.len() {
            if roots.contains(&id) {
                return true;
            }
            match all.get(&id) {
                Some((parent, _)) => id = *parent,
                None => return false,
            }
        }
        false
    };
    all.iter().filter(|(id, _)| belongs(**id)).map(|(_, (_, ticks))| ticks).sum()
}

/// Seconds that `roots` and their descendants have had so far.
pub(crate) fn cpu_s_below(roots: &[u32]) -> io::Result<f64> {
    let mut all = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // It may have ended meanwhile.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{id}/stat")) else { continue };
        all.extend(parse(&stat).map(|found| (id, found)));
    }
    // SAFETY: reads a number.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Ok(ticks_below(roots, &all) as f64 / per_second as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a (b) c) S 7 42 42 0 -1 4194304 1 0 0 0 10 20 3 4 20 0 1 0 5 6 7";
        assert_eq!(parse(stat), Some((7, 37)));
        assert_eq!(parse("42 (short) S 7"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn grandchildren_count_and_strangers_do_not() {
        let all = HashMap::from([(1, (0, 1)), (10, (1, 2)), (11, (10, 4)), (12, (11, 8)), (20, (1, 16))]);
        assert_eq!(ticks_below(&[10], &all), 14);
        assert_eq!(ticks_below(&[99], &all), 0);
    }
}
