//! Lets each packet of a sender in once.
//!
//! A sender numbers its packets, to whomever they go. Who receives them remembers the highest number and which of the 127
//! below it came: one that came, or that is older, is a replay, or so late that it counts as lost. A sender's later life
//! begins anew; packets of an earlier one are not believed for its incarnation's sake, and an announcement of a life that is
//! not known counts when its sender has answered a question (see [`super::core`]). All else is for one life of the receiver,
//! so that it is new to one that knows nothing of the sender, unless the receiver forgot it: it remembers the dead for a day.
//!
//! Owns: the numbers that were seen. Does not own: who the sender is.

/// Numbers below the highest that are told apart.
const WIDTH: u64 = 128;

/// What came of one sender.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    incarnation: u64,
    highest: u64,
    /// The lowest bit is the highest number.
    seen: u128,
}

impl Window {
    /// After the first packet.
    pub(super) fn new(incarnation: u64, number: u64) -> Self {
        Self {
            incarnation,
            highest: number,
            seen: 1,
        }
    }

    /// Whether a packet is new. It is not, the next time.
    pub(super) fn admit(&mut self, incarnation: u64, number: u64) -> bool {
        if incarnation < self.incarnation {
            return false;
        }
        // A process goes on counting when it is renewed; one that counts from its beginning is another.
        if incarnation > self.incarnation && number < self.highest {
            *self = Self::new(incarnation, number);
            return true;
        }
        self.incarnation = incarnation;
        if number > self.highest {
            let ahead = number - self.highest;
            let shifted = u32::try_from(ahead).ok().and_then(|by| self.seen.checked_shl(by));
            self.seen = shifted.unwrap_or(0) | 1;
            self.highest = number;
            return true;
        }
        let behind = self.highest - number;
        if behind >= WIDTH {
            return false;
        }
        let bit = 1_u128 << behind;
        let is_new = self.seen & bit == 0;
        self.seen |= bit;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_let_in_once_in_any_order_that_is_not_too_late() {
        let mut window = Window::new(7, 100);
        assert!(!window.admit(7, 100));
        for number in [103, 101, 99, 300, 250, 102 + 100] {
            assert!(window.admit(7, number), "{number} is new");
            assert!(!window.admit(7, number), "{number} was seen");
        }
        assert!(!window.admit(7, 300 - 128), "too old to be told apart");
        assert!(window.admit(7, 300 - 127));
        assert!(window.admit(7, u64::MAX) && !window.admit(7, u64::MAX) && !window.admit(7, 300));
    }

    #[test]
    fn a_later_life_begins_anew_and_one_that_goes_on_counting_goes_on() {
        let mut window = Window::new(7, 100);
        assert!(
            window.admit(8, 101) && !window.admit(8, 101),
            "the same process, renewed"
        );
        assert!(!window.admit(7, 100));
        assert!(window.admit(9, 1) && !window.admit(9, 1), "another process");
        assert!(window.admit(9, 2));
    }
}
