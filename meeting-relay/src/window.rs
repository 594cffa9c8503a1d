//! How much a publisher may send at a time: as much as there is room for, and never the room of newcomers.

use std::sync::Arc;

use crate::budget::{Budget, Charge};
use crate::limits::{self, WINDOWS};

/// Where windows are charged.
#[derive(Clone, Debug)]
pub struct Windows {
    memory: Arc<Budget>,
    /// Of all memory, and of that what one meeting may have.
    shares: [Arc<Budget>; 2],
}

/// The receive window of one connection, with room for it.
#[derive(Debug, Default)]
pub struct Window(Vec<[Charge; 3]>);

impl Windows {
    /// Those of all meetings.
    pub fn new(memory: &Arc<Budget>) -> Self {
        let all = Budget::new(memory.limit() / limits::SHARE);
        Self { memory: memory.clone(), shares: [all.clone(), all] }
    }

    /// Those of one meeting.
    pub fn of_meeting(&self) -> Self {
        let [all, _] = &self.shares;
        let meeting = Budget::new(all.limit() / limits::SHARE);
        Self { memory: self.memory.clone(), shares: [all.clone(), meeting] }
    }
}

impl Window {
    /// The next larger one, if there is room for it now. The largest is given only while most of the room is free: a useful
    /// one for everybody comes first.
    pub fn widen(&mut self, windows: &Windows) -> Option<u32> {
        let [from, to] = *WINDOWS.get(self.0.len()..)?.first_chunk()?;
        let [all, meeting] = &windows.shares;
        let plenty = |share: &Budget| share.used() < share.limit() / limits::SHARE;
        let may = self.0.is_empty() || plenty(all) && plenty(meeting);
        if !may {
            return None;
        }
        let more = (to - from) as usize;
        self.0.push([meeting.charge(more)?, all.charge(more)?, windows.memory.charge_new(more)?]);
        Some(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_leave_room_for_newcomers_and_come_when_there_is_room() {
        let memory = Budget::new(128 * 1024 * 1024);
        let all = Windows::new(&memory);
        let meetings: Vec<Windows> = (0..8).map(|_| all.of_meeting()).collect();
        let mut open = Vec::new();
        for meeting in &meetings {
            for n in 0..100 {
                let mut window = Window::default();
                let first = window.widen(meeting);
                assert!(n > 0 || open.len() > 16 || first == Some(WINDOWS[1]), "a useful one for the first");
                window.widen(meeting);
                open.push(window);
            }
            assert!(meeting.shares[1].used() <= memory.limit() / 16);
        }
        assert!(memory.used() <= memory.limit() / 4 && memory.has_room_for_new(memory.limit() / 2));

        let mut late = Window::default();
        assert_eq!(late.widen(&meetings[0]), None, "no room now");
        open.clear();
        assert_eq!(memory.used(), 0);
        assert_eq!(
            [late.widen(&meetings[0]), late.widen(&meetings[0])],
            [Some(WINDOWS[1]), Some(WINDOWS[2])]
        );
        assert_eq!(late.widen(&meetings[0]), None, "there is no larger one");
    }
}
