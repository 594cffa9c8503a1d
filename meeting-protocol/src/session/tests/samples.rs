//! One of everything, with bytes that never change.

use super::*;

pub(super) fn announce() -> SignedAnnounce {
    let device = DeviceKey::from_seed(&secret(3));
    let announce = Announce {
        version: 1,
        meeting: MEETING,
        instance: INSTANCE,
        challenge: Some([0x33; 32]),
        participant: BOB,
        device: device.public(),
        kem: vec![0x44; 1216],
        signer: signer().public(),
        name: "Bob".into(),
        role: Role::Bot,
        capabilities: 1,
        suites: vec![5, 4],
        kem_id: 0x647a,
    };
    SignedAnnounce::new(announce, &device)
}

pub(super) fn entry() -> Entry {
    let announce = announce();
    Entry::new(7, announce.unverified(), announce.hash(), true)
}

pub(super) fn link(changes: Vec<Change>) -> SignedLink {
    let opening = Some(EpochOpening { epoch: 9, commitment: [0x55; 32] });
    let digest = [0x66; 32];
    let body = Link {
        meeting: MEETING,
        instance: INSTANCE,
        number: 8,
        previous: [0x77; 32],
        leader: ALICE,
        changes,
        digest,
        time: 10,
        opening,
    };
    Signed::new(body, &signer())
}

pub(super) fn vote() -> Signed<SilenceVote> {
    let body = SilenceVote {
        meeting: MEETING,
        instance: INSTANCE,
        participant: BOB,
        leader: ALICE,
        head_number: 8,
        head: [0x77; 32],
        heartbeat: 5,
    };
    Signed::new(body, &signer())
}

pub(super) fn resignation() -> Signed<Resignation> {
    let body =
        Resignation { meeting: MEETING, instance: INSTANCE, leader: ALICE, head: [0x77; 32], successor: BOB };
    Signed::new(body, &signer())
}

pub(super) fn header() -> crate::roster::Header {
    let mut header = Roster::before_genesis(ALICE).header;
    header.locked = true;
    header.successors = vec![Successor { participant: BOB, signer: StayPublic([0x88; 32]) }];
    header.removed.insert(DevicePublic([0x99; 32]));
    header
}

pub(super) fn lineage() -> Lineage {
    let header = crate::roster::Header { next_index: 8, ..header() };
    let roster = Roster::from_parts(header, vec![entry()]).unwrap();
    let step = Step { last: link(vec![]), roster, takeover: link(vec![]) };
    Lineage { genesis: link(vec![]), creator: announce(), steps: vec![step] }
}

pub(super) fn all_changes() -> Vec<Change> {
    vec![
        Change::Add(entry()),
        Change::Remove(Removal { participant: BOB, reason: LeaveReason::Missing }),
        Change::Present(BOB),
        Change::Lock(true),
        Change::Succession { limit: 2, order: header().successors },
        Change::Takeover(Takeover { leader: BOB, votes: vec![vote()], resignation: Some(resignation()) }),
    ]
}

/// Sealed once: its key seals one message in all tests.
pub(super) fn statement() -> Signed<Statement> {
    static STATEMENT: LazyLock<Signed<Statement>> = LazyLock::new(seal_statement);
    STATEMENT.clone()
}

pub(super) fn seal_statement() -> Signed<Statement> {
    let said = Said::Open(StreamFacts {
        stream: StreamId(1),
        kind: Kind::Audio,
        track: "voice".into(),
        caps: "audio/x-opus".into(),
        instance: [0xcc; 16],
        kid: KeyId::new(StreamId(1), 7, 9),
        suite: CipherSuite::default(),
    });
    let key = EpochKey { epoch: 9, link: [0xdd; 32], key: secret(0xee) };
    let head = Statement {
        meeting: MEETING,
        instance: INSTANCE,
        participant: BOB,
        epoch: 9,
        link: key.link,
        counter: 2,
        sealed: Vec::new(),
    };
    Statement::seal(head, &said, &key, (7, &[0x12; 32]), &signer())
}

pub(super) fn beacon() -> SignedBeacon {
    let span = Span {
        kid: KeyId::new(StreamId(1), 7, 9),
        first: 500,
        frames: vec![FrameDigest([0xf1; 16]), FrameDigest::NONE],
        closed: true,
    };
    let body = Beacon { number: 7, epoch: 9, link: [0x11; 32], time: 60_000, spans: vec![span] };
    let context = Context { meeting: &MEETING.0, instance: &INSTANCE.0, sender: &BOB.0 };
    SignedBeacon::new(body, &context, &signer())
}

/// With one of each kind of word; they prove nothing, but their bytes never change.
pub(super) fn evidence() -> Vec<Evidence> {
    let mut words = messages().into_iter().filter_map(|(_, message)| match message {
        Message::Link(link) => Some(Word::Link(link)),
        Message::Heartbeat(heartbeat) => Some(Word::Heartbeat(heartbeat)),
        Message::Statement(statement) => Some(Word::Statement(statement)),
        Message::Beacon(beacon) => Some(Word::Beacon(beacon)),
        _ => None,
    });
    let mut next = || words.next().unwrap();
    let led = lineage();
    let lineage = Lineage { steps: vec![], ..led.clone() };
    vec![
        Evidence { lineage, announce: None, words: [next(), next()] },
        Evidence { lineage: led, announce: Some(announce()), words: [next(), next()] },
    ]
}

/// One of each.
pub(super) fn messages() -> Vec<(&'static str, Message)> {
    let heartbeat = Heartbeat {
        meeting: MEETING,
        instance: INSTANCE,
        leader: ALICE,
        counter: 1,
        head_number: 8,
        head: [1; 32],
        epoch: 9,
        epoch_link: [2; 32],
        challenge: [3; 32],
        time: 11,
        previous: [4; 32],
        echoes: vec![[5; 16]],
    };
    let pulse = Pulse {
        meeting: MEETING,
        instance: INSTANCE,
        participant: BOB,
        nonce: [6; 16],
        head: [7; 32],
        epoch_link: [8; 32],
        heard: 10,
    };
    let answer = Answer {
        meeting: MEETING,
        instance: INSTANCE,
        leader: ALICE,
        to: BOB,
        announce: [1; 32],
        verdict: Verdict::Locked,
    };
    let ask = Ask { meeting: MEETING, instance: INSTANCE, participant: BOB, head: [5; 32], epoch: 6 };
    let head = Head {
        meeting: MEETING,
        instance: INSTANCE,
        participant: BOB,
        number: 8,
        head: [7; 32],
        epoch: 9,
        epoch_link: [8; 32],
    };
    let show = Show { meeting: MEETING, instance: INSTANCE, participant: BOB, number: 7, epoch: 8 };
    let lineage = lineage();
    let leads = Leads { meeting: MEETING, instance: INSTANCE, leader: ALICE, challenge: [3; 32] };
    let branch = Branch { word: Signed::new(leads, &signer()), lineage: lineage.clone() };
    let welcome = Welcome {
        announce: [1; 32],
        lineage: lineage.clone(),
        leader: announce(),
        head: link(vec![]),
        epoch_link: Some(link(vec![])),
        header: header(),
        entries: vec![entry()],
        signature: [0; 64],
    };
    let offer = Some(Offer { start: 4, enc: vec![0x13; 1120], signature: [0x14; 64] });
    vec![
        ("link", Message::Link(link(all_changes()))),
        ("announce", Message::Announce(announce())),
        (
            "answer",
            Message::Answer(Box::new(Reply {
                answer: Signed::new(answer, &signer()),
                lineage: lineage.clone(),
            })),
        ),
        ("welcome", Message::Welcome(Box::new(welcome.signed(&signer())))),
        ("wrap", Message::Wrap(Wrap { to: BOB, epoch: 9, link: [2; 32], offer, sealed: [3; 48] })),
        ("heartbeat", Message::Heartbeat(Signed::new(heartbeat, &signer()))),
        ("pulse", Message::Pulse(ProvenPulse { pulse: Signed::new(pulse, &signer()), mac: [4; 32] })),
        ("ask", Message::Ask(Signed::new(ask, &signer()))),
        ("links", Message::Links(vec![link(vec![Change::Lock(false)])])),
        ("statement", Message::Statement(statement())),
        (
            "leave",
            Message::Leave(Signed::new(
                Leave { meeting: MEETING, instance: INSTANCE, participant: BOB },
                &signer(),
            )),
        ),
        (
            "over",
            Message::Over(Signed::new(
                Over { meeting: MEETING, instance: INSTANCE, leader: ALICE },
                &signer(),
            )),
        ),
        ("resign", Message::Resign(resignation())),
        ("vote", Message::Vote(vote())),
        ("announces", Message::Announces(vec![announce()])),
        ("beacon", Message::Beacon(beacon())),
        ("head", Message::Head(Signed::new(head, &signer()))),
        ("show", Message::Show(Signed::new(show, &signer()))),
        ("branch", Message::Branch(Box::new(branch))),
    ]
}
