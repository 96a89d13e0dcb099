//! Whose turn it is among lanes of unequal weight.

use inferq_common::job::Priority;

/// How many priorities, and so lanes a vendor has.
pub(crate) const N_LANES: usize = Priority::ALL.len();

/// Of 21 messages taken while all lanes have some, this many are of each: urgent ones go first, and
/// the least urgent lane still moves.
const fn weight(priority: Priority) -> i32 {
    match priority {
        Priority::High => 16,
        Priority::Normal => 4,
        Priority::Low => 1,
    }
}

/// Smooth weighted round robin: turns are spread evenly, not dealt in bursts.
///
/// Each lane that is ready gains its weight; the one with the most takes the turn and pays the
/// weights of all that were ready. A lane that is not ready saves nothing up.
#[derive(Debug, Default)]
pub(crate) struct Weighted {
    credit: [i32; N_LANES],
}

impl Weighted {
    /// The index of the lane to serve, in the order of [`Priority::ALL`]; `None`: none is ready.
    pub(crate) fn pick(&mut self, ready: [bool; N_LANES]) -> Option<usize> {
        let mut paid = 0;
        let mut best: Option<usize> = None;
        for (index, &priority) in Priority::ALL.iter().enumerate() {
            if !ready[index] {
                self.credit[index] = 0;
                continue;
            }
            self.credit[index] += weight(priority);
            paid += weight(priority);
            if best.is_none_or(|best| self.credit[index] > self.credit[best]) {
                best = Some(index);
            }
        }
        self.credit[best?] -= paid;
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(weighted: &mut Weighted, ready: [bool; N_LANES], n: usize) -> [usize; N_LANES] {
        let mut counts = [0; N_LANES];
        for _ in 0..n {
            counts[weighted.pick(ready).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn busy_lanes_share_by_weight() {
        assert_eq!(picks(&mut Weighted::default(), [true; 3], 21), [16, 4, 1]);
        assert_eq!(picks(&mut Weighted::default(), [true; 3], 210), [160, 40, 10]);
    }

    #[test]
    fn the_least_urgent_lane_waits_for_at_most_twenty_others() {
        let mut weighted = Weighted::default();
        let mut since_low = 0;
        for _ in 0..1000 {
            since_low = if weighted.pick([true; 3]) == Some(2) { 0 } else { since_low + 1 };
            assert!(since_low <= 20);
        }
    }

    #[test]
    fn a_lane_alone_gets_every_turn() {
        for index in 0..N_LANES {
            let ready = std::array::from_fn(|lane| lane == index);
            let mut weighted = Weighted::default();
            assert_eq!(picks(&mut weighted, ready, 50)[index], 50);
        }
        assert_eq!(Weighted::default().pick([false; N_LANES]), None);
    }

    #[test]
    fn an_idle_lane_saves_nothing_up() {
        let mut weighted = Weighted::default();
        picks(&mut weighted, [false, true, true], 1000);
        assert_eq!(weighted.pick([true; 3]), Some(0), "the urgent one goes first at once");
        let counts = picks(&mut weighted, [true; 3], 210);
        assert!(counts[0] >= 155 && counts[0] <= 165, "{counts:?}");
    }
}
