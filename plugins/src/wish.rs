//! When a keyframe is asked for: at once, but not too often. A wish that comes too soon is kept.

use std::time::Duration;

use meeting_protocol::BootTime;

/// The wish for a keyframe of one stream.
#[derive(Debug, Default)]
pub struct Wish {
    open: bool,
    asked: Option<BootTime>,
}

impl Wish {
    /// Somebody wants a keyframe.
    pub fn want(&mut self) {
        self.open = true;
    }

    /// A keyframe has come.
    pub fn fulfil(&mut self) {
        self.open = false;
    }

    /// Whether a wish is kept that nobody was asked for yet.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether to ask now, where nobody is to be asked more than once in `every`. The wish then counts as told.
    pub fn due(&mut self, every: Duration, now: impl FnOnce() -> BootTime) -> bool {
        if !self.open {
            return false;
        }
        let now = now();
        if self.asked.is_some_and(|asked| now.since(asked) < every) {
            return false;
        }
        *self = Self { open: false, asked: Some(now) };
        true
    }
}

/// How often a sender is asked at most: a keyframe costs everybody.
pub const ASK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_that_comes_too_soon_is_told_later_and_each_once() {
        let mut wish = Wish::default();
        let due = |wish: &mut Wish, at| wish.due(Duration::from_secs(1), || BootTime(at));
        assert!(!due(&mut wish, 0), "nobody wants one");
        wish.want();
        assert!(due(&mut wish, 10));
        assert!(!due(&mut wish, 2_000), "it was asked for");
        wish.want();
        assert!(due(&mut wish, 2_000));
        wish.want();
        assert!(!due(&mut wish, 2_500) && wish.is_open());
        assert!(due(&mut wish, 3_000) && !wish.is_open());
        wish.want();
        wish.fulfil();
        assert!(!due(&mut wish, 9_000), "it came by itself");
    }
}
