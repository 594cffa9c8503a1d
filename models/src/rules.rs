//! What is modelled, how much of it, and which rules are broken on purpose.

/// What bounds the age of the leader's word (PROTOCOL.md 3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// As it is: a returned nonce anchors the leader's time to our own. The code of `session/freshness.rs` itself.
    Echoed,
    /// Broken: any signed heartbeat starts the time anew, whatever its counter.
    AnySigned,
    /// Broken: any heartbeat with a higher counter does.
    Counter,
    /// Broken: so many heartbeats since the first one are so many times two seconds of our own clock.
    CounterElapsed,
}

/// The rules; each `false` is one taken away.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How the leader's age is measured.
    pub age: Age,
    /// From the first word of a newer epoch on, nothing is sealed under the old one, key or no key (3.5).
    pub retire: bool,
    /// A wrap opens for the epoch link of our own chain only, not for any link of that epoch number (3.4).
    pub bound_wrap: bool,
    /// A link extends the head it names; a takeover from elsewhere is not followed because it is longer (3.3).
    pub chain: bool,
    /// A takeover takes votes of more than half of those present (3.8).
    pub votes: bool,
    /// Entries that never proved to be here neither vote nor count (3.8).
    pub present: bool,
    /// Nobody follows a takeover while they hear the leader (3.8).
    pub silence: bool,
    /// A takeover by votes ends the old leader's budget (3.8).
    pub cut_budget: bool,
    /// A key is wrapped for the roster after its link, not the one before (3.4).
    pub new_roster: bool,
    /// A key is drawn, not derived from the one before (3.5).
    pub fresh_key: bool,
    /// Of two who lead one steps down when it hears of the other (3.8).
    pub step_down: bool,
    /// Of two who took over from different links of one leader the one from the earlier goes on (3.8).
    pub earlier_first: bool,
}

/// The rules as PROTOCOL.md has them.
pub const AS_WRITTEN: Rules = Rules {
    age: Age::Echoed,
    retire: true,
    bound_wrap: true,
    chain: true,
    votes: true,
    present: true,
    silence: true,
    cut_budget: true,
    new_roster: true,
    fresh_key: true,
    step_down: true,
    earlier_first: true,
};

/// Two people, six ticks, and nothing that happens but heartbeats: what tests start from.
pub const SMALL: Config = Config {
    people: 2,
    ticks: 6,
    rotations: 0,
    removals: 0,
    early_beats: 0,
    sleeps: 0,
    hands: None,
    successors: 0,
    ghosts: 0,
    resignation: false,
    rules: AS_WRITTEN,
};

/// Bob takes over by votes; Alice, who has not heard of it, removes him and resigns to Carol.
pub const TWO_BRANCHES: Config =
    Config { people: 3, ticks: 4, removals: 1, successors: 2, resignation: true, hands: Some(0), ..SMALL };

/// One state space. A tick is the two seconds between two heartbeats.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How many people, the leader counted.
    pub people: u8,
    /// How many ticks.
    pub ticks: u8,
    /// How often leaders may open an epoch for the same people, in all.
    pub rotations: u8,
    /// How often they may remove somebody, in all.
    pub removals: u8,
    /// How many heartbeats may come between two ticks, in all: a newcomer's first pulse causes one.
    pub early_beats: u8,
    /// How often leaders may fall asleep or wake, in all.
    pub sleeps: u8,
    /// How many heartbeats the relay hands over, in all; none for as many as it likes.
    pub hands: Option<u8>,
    /// How many successors are named.
    pub successors: u8,
    /// How many entries of the roster are of devices that never prove to be here. Whoever takes over has their votes.
    pub ghosts: u8,
    /// Whether leaders may resign.
    pub resignation: bool,
    /// The rules.
    pub rules: Rules,
}
