//! Whose turn it is to take an index: none is ever used again, so that whoever comes over and over would use them up.

use std::{collections::HashMap, time::Duration};

use crate::{BootTime, identity::DevicePublic, roster::MAX_ENTRIES};

/// The time of one stay of a device, and how many it may take in a row before it waits for that.
const STAY: Duration = Duration::from_secs(10);
const IN_A_ROW: u32 = 3;
/// The last indices are for devices that were present, each of which has so many of them, whatever the others do.
const KEPT: u16 = 4096;
const KEPT_EACH: u8 = (KEPT as usize / MAX_PRESENT) as u8;
/// The first devices that were present.
const MAX_PRESENT: usize = MAX_ENTRIES;

/// Who had an index, and when.
#[derive(Default)]
pub(super) struct Turns {
    /// Until when a device's stays are paid for.
    paid: HashMap<DevicePublic, BootTime>,
    /// What each had of the indices that are kept.
    present: HashMap<DevicePublic, u8>,
}

impl Turns {
    /// Whether it is this device's turn, or it has to wait.
    pub fn is_due(&self, device: DevicePublic, now: BootTime) -> bool {
        self.paid.get(&device).is_none_or(|paid| *paid <= now + STAY * (IN_A_ROW - 1))
    }

    /// Whether this device may ever have an index again, of which this is the next.
    pub fn has_index(&self, device: DevicePublic, next: u16) -> bool {
        next < u16::MAX - KEPT
            || next < u16::MAX && self.present.get(&device).is_some_and(|had| *had < KEPT_EACH)
    }

    /// This device has this index.
    pub fn took(&mut self, device: DevicePublic, index: u16, now: BootTime) {
        let paid = self.paid.entry(device).or_insert(now);
        *paid = (*paid).max(now) + STAY;
        if index >= u16::MAX - KEPT
            && let Some(had) = self.present.get_mut(&device)
        {
            *had += 1;
        }
    }

    /// This device has proved to be here.
    pub fn was_present(&mut self, device: DevicePublic) {
        if self.present.len() < MAX_PRESENT {
            self.present.entry(device).or_insert(0);
        }
    }

    pub fn tick(&mut self, now: BootTime) {
        self.paid.retain(|_, paid| *paid > now);
    }

    /// What others can fill here.
    #[cfg(feature = "simulator")]
    pub fn sizes(&self) -> [crate::session::inside::Size; 2] {
        // As many as are let in in the time of a stay, by one link a second.
        let most = super::NEWCOMERS * STAY.as_secs() as usize;
        [("recent devices", self.paid.len(), most), ("present devices", self.present.len(), MAX_PRESENT)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(number: u8) -> DevicePublic {
        DevicePublic([number; 32])
    }

    #[test]
    fn two_hundred_devices_that_come_each_second_wait_for_their_turn() {
        let (mut turns, mut next) = (Turns::default(), 0);
        for second in 0..600 {
            let now = BootTime(second * 1_000);
            turns.tick(now);
            for device in (0..200).map(device) {
                if turns.is_due(device, now) {
                    assert!(turns.has_index(device, next));
                    turns.took(device, next, now);
                    next += 1;
                }
            }
        }
        assert!((12_000..13_000).contains(&next), "{next} indices in ten minutes");
    }

    #[test]
    fn the_last_indices_are_for_those_who_were_present_and_no_device_has_them_all() {
        let (mut turns, kept) = (Turns::default(), u16::MAX - KEPT);
        assert!(turns.has_index(device(1), kept - 1) && !turns.has_index(device(1), kept));
        turns.was_present(device(1));
        turns.was_present(device(2));
        let mut next = kept;
        while turns.has_index(device(1), next) {
            turns.took(device(1), next, BootTime(0));
            next += 1;
        }
        assert_eq!(next - kept, u16::from(KEPT_EACH));
        assert!(turns.has_index(device(2), next) && !turns.has_index(device(2), u16::MAX));
        assert!(MAX_PRESENT * usize::from(KEPT_EACH) <= KEPT.into());
    }
}
