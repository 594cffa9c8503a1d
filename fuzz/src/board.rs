//! Posts as the relay has them: of this meeting and others, altered, made up. Somebody who asks for a place reads them all.

use std::sync::Arc;

use meeting_protocol::{
    BootTime,
    identity::DeviceKey,
    link::MeetingLink,
    secret::Secret,
    session::{
        Input, Joining, Output, Phase, Role, Session,
        fuzzing::{self, Posts},
    },
};
use meeting_wire::{InstanceId, MeetingId, ParticipantId, Post, Slot};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use crate::{CRYPTO, cursor::Cursor, fresh};

/// A post that somebody sealed.
struct Sealed {
    board: usize,
    inside: (InstanceId, Vec<u8>),
    post: Vec<u8>,
}

pub fn run(bytes: &[u8]) {
    let mut rng = ChaCha20Rng::from_seed(fresh::key_of(bytes));
    let mut bytes = Cursor(bytes);
    let device = Arc::new(DeviceKey::from_seed(&Secret::random(&mut rng)));
    let link = MeetingLink::new("relay.example".into(), device.public().fingerprint(), None, &mut rng);
    let boards = [0, 1, 2].map(|board| Posts::of(&other(&link, board)));
    let mut newcomer = Newcomer::new(link, &mut rng);
    let mut sealed: Vec<Sealed> = Vec::new();
    for _ in 0..64 {
        if bytes.is_empty() {
            return;
        }
        match bytes.u8() % 5 {
            0 => {
                let (board, instance) = (bytes.below(boards.len()), InstanceId([bytes.u8(); 16]));
                let len = bytes.scaled(12) as usize;
                let message = bytes.take(len).to_vec();
                let post = boards[board].seal(instance, &message, &mut rng).to_vec();
                newcomer.reads(&post, &mut rng);
                sealed.push(Sealed { board, inside: (instance, message), post });
            }
            1 if !sealed.is_empty() => {
                let known = &sealed[bytes.below(sealed.len())];
                let board = bytes.below(boards.len());
                let opened = boards[board].open(&known.post);
                assert!(board != known.board || opened.as_ref() == Some(&known.inside), "it opens as it was");
                assert!(!CRYPTO || board == known.board || opened.is_none(), "it opens in another meeting");
            }
            2 if !sealed.is_empty() => {
                let mut post = sealed[bytes.below(sealed.len())].post.clone();
                bytes.mutate(&mut post);
                open(&boards, &sealed, &post);
                newcomer.reads(&post, &mut rng);
            }
            3 => newcomer.waits(bytes.scaled(15), &mut rng),
            _ => {
                let len = bytes.scaled(12) as usize;
                let post = bytes.take(len);
                open(&boards, &sealed, post);
                newcomer.reads(post, &mut rng);
            }
        }
    }
}

/// Opens what nobody sealed, unless somebody did; whoever opened it reads the message.
fn open(boards: &[Posts], sealed: &[Sealed], post: &[u8]) {
    for (number, board) in boards.iter().enumerate() {
        let Some((_, message)) = board.open(post) else { continue };
        let was = sealed.iter().any(|known| known.board == number && known.post == post);
        assert!(was || !CRYPTO, "a post opens that nobody sealed");
        fuzzing::message(&message);
    }
}

/// The same link, one to another meeting, or one with another secret.
fn other(link: &MeetingLink, board: usize) -> MeetingLink {
    let mut link = link.duplicate();
    match board {
        0 => {}
        1 => link.meeting = MeetingId([0x11; 16]),
        _ => link.secret = Secret::init_with(|secret| *secret = [0x22; 32]),
    }
    link
}

/// Somebody who asks for a place.
struct Newcomer {
    session: Session,
    now: BootTime,
    seq: u64,
}

impl Newcomer {
    fn new(link: MeetingLink, rng: &mut ChaCha20Rng) -> Self {
        let device = Arc::new(DeviceKey::from_seed(&Secret::random(rng)));
        let joining = Joining { link, device, name: "Bob".into(), role: Role::Participant };
        let now = BootTime(7_000);
        Self { session: Session::join(joining, now, rng), now, seq: 0 }
    }

    fn reads(&mut self, post: &[u8], rng: &mut ChaCha20Rng) {
        self.seq += 1;
        let from = ParticipantId([0xaa; 16]);
        let post = Post { seq: self.seq, from, slot: Slot::Log, body: post.to_vec().into() };
        self.takes(Input::Post(post), rng);
    }

    fn waits(&mut self, ms: u64, rng: &mut ChaCha20Rng) {
        self.now = BootTime(self.now.0 + ms);
        self.takes(Input::Timeout, rng);
    }

    fn takes(&mut self, input: Input, rng: &mut ChaCha20Rng) {
        self.session.handle(input, self.now, rng).expect("only commands are refused");
        let mut said = 0;
        while !matches!(self.session.poll_output(), Output::Timeout(_)) {
            said += 1;
        }
        let phase = self.session.state().phase;
        if CRYPTO {
            assert!(said <= 4, "{said} words to one post of a stranger");
            assert!(!matches!(phase, Phase::Live | Phase::Stale), "let in by nobody's signature");
        }
    }
}
