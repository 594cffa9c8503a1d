//! Numbers in a few ranges, where one by one they would be too many.

/// First and last of each, sorted; no two of them touch.
#[derive(Debug, Default)]
pub(super) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Whether the number was put in, or lies in a gap that had to be closed.
    pub fn contains(&self, number: u64) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= number);
        after > 0 && number <= self.0[after - 1].1
    }

    /// How many there are.
    #[cfg(feature = "simulator")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Puts a number in. Where that makes too many ranges, the nearest two become one: whoever puts in far numbers to
    /// close a gap needs as many as the gap has.
    pub fn insert(&mut self, number: u64) {
        if self.contains(number) {
            return;
        }
        let at = self.0.partition_point(|(first, _)| *first <= number);
        let joins_former = at > 0 && self.0[at - 1].1.checked_add(1) == Some(number);
        let joins_next = self.0.get(at).is_some_and(|(first, _)| number.checked_add(1) == Some(*first));
        match (joins_former, joins_next) {
            (true, true) => self.0[at - 1].1 = self.0.remove(at).1,
            (true, false) => self.0[at - 1].1 = number,
            (false, true) => self.0[at].0 = number,
            (false, false) => self.0.insert(at, (number, number)),
        }
        if self.0.len() > MOST {
            let gap = |at: &usize| self.0[at + 1].0 - self.0[*at].1;
            let nearest = (0..self.0.len() - 1).min_by_key(gap).unwrap_or_default();
            self.0[nearest].1 = self.0.remove(nearest + 1).1;
        }
    }
}

/// Ranges at most.
pub(super) const MOST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_stays_in_and_little_else_comes_with_it() {
        let mut ranges = Ranges::default();
        for number in (100..200).chain([u64::MAX, 0]).chain((1_000..3_000).step_by(2)) {
            ranges.insert(number);
        }
        let inside = |number: &u64| ranges.contains(*number);
        assert!(
            (100..200).chain([u64::MAX, 0]).chain((1_000..3_000).step_by(2)).all(|number| inside(&number))
        );
        assert!(ranges.0.len() <= MOST);
        assert_eq!((1..100).chain(200..1_000).chain(3_000..9_000).filter(inside).count(), 0);
        assert!((1_001..3_000).step_by(2).filter(inside).count() <= 1_000);
    }

    #[test]
    fn ranges_that_meet_become_one() {
        let mut ranges = Ranges::default();
        [5, 7, 6, 8, 4].into_iter().for_each(|number| ranges.insert(number));
        assert_eq!(ranges.0, [(4, 8)]);
        assert!(!ranges.contains(3) && ranges.contains(4) && ranges.contains(8) && !ranges.contains(9));
    }
}
