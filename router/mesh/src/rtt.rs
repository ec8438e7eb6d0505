//! Round-trip times in sixteen classes: small facts that rarely change.

use std::time::Duration;

/// The class that has no upper bound.
const LAST: u8 = 15;

/// The smallest class whose bound is not exceeded.
pub(crate) fn class(rtt: Duration) -> u8 {
    (0..LAST).find(|class| rtt <= bound(*class)).unwrap_or(LAST)
}

/// The longest time in a class; the last class has none and gives twice that of the one before.
pub(crate) fn bound(class: u8) -> Duration {
    Duration::from_micros(500 << class.min(LAST))
}

/// The class to publish after `current`: another one only if the time lies outside of it by more than half.
pub(crate) fn next_class(current: u8, rtt: Duration) -> u8 {
    let too_slow = current < LAST && rtt > bound(current) * 3 / 2;
    let too_fast = current > 0 && rtt < bound(current - 1) * 2 / 3;
    if too_slow || too_fast { class(rtt) } else { current }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_double_and_small_changes_are_not_news() {
        let ms = Duration::from_millis;
        assert_eq!([ms(0), ms(1), ms(2), ms(3), ms(100), ms(99_999)].map(class), [0, 1, 2, 3, 8, 15]);
        assert_eq!(next_class(3, ms(5)), 3, "a quarter above the bound of 4 ms");
        assert_eq!(next_class(3, ms(7)), 4);
        assert_eq!(
            next_class(3, Duration::from_micros(1500)),
            3,
            "a quarter below the bound of the class before"
        );
        assert_eq!(next_class(3, Duration::from_micros(1300)), 2);
        assert_eq!(next_class(15, ms(1)), 1);
    }
}
