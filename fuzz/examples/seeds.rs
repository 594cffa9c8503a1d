//! Writes the seeds anew, from real messages: `cargo run -p meeting-fuzz --example seeds`. What was found stays beside them.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::Result;
use gste2ee::recording::{
    format::{self, FrameHead, MAGIC, RECORD_HEAD, Source},
    index::Indexer,
};
use meeting_protocol::{
    BootTime,
    frame::{CipherSuite, KeyId, SealKey, Sealer},
    keyfile::{Cost, KeyFileWriter, RecordedKey},
    local::{FromAgent, MeetingState, Purpose, ToAgent, VERSION, packed},
    roster::SignedLink,
    secret::Secret,
    session::Successors,
    testing::Meeting,
};
use meeting_wire::{
    Admission, AudioDatagram, Claim, Decode, Encode, Envelope, Flags, FromRelay, GroupHeader, Kind,
    MeetingId, ParticipantId, Post, Record, Refusal, Route, Slot, StreamId, ToRelay, Writer,
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

const MEETING: MeetingId = MeetingId([0x11; 16]);
const ALICE: ParticipantId = ParticipantId([0xaa; 16]);

fn main() -> Result<()> {
    // One meeting for all: a second one from the same seed would seal other frames under the same keys.
    let overheard = overheard();
    for (target, seeds) in [
        ("wire", wire()),
        ("local", local()),
        ("text", text()),
        ("message", messages(&overheard)?),
        ("roster", vec![links(&overheard)?]),
        ("board", boards(&overheard)),
        ("wrap", wraps()),
        ("frame", decisions(6, 160)),
        ("beacon", decisions(6, 256)),
        ("insider", decisions(12, 96)),
        ("relay", decisions(12, 96)),
        ("elements", elements()),
        ("rtp", decisions(6, 256)),
        ("recording", recordings()?),
    ] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
        fs::create_dir_all(&folder)?;
        for (n, seed) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("{n:02}")), seed)?;
        }
    }
    Ok(())
}

/// A recording with its index and one without, a key file.
fn recordings() -> Result<Vec<Vec<u8>>> {
    let (kid, source) =
        (KeyId::new(StreamId(7), 2, 9), Source { from: ALICE, stream: StreamId(7), kind: Kind::Video });
    let mut sealer =
        Sealer::new(SealKey::new(kid, CipherSuite::default(), Secret::init_with(|key| *key = [0x55; 32])));
    let mut bytes = MAGIC.to_vec();
    let mut indexer = Indexer::default();
    indexer.track(source);
    bytes.extend(format::Record::Track(source).to_bytes());
    for n in 0..4 {
        let sealed = sealer.seal(&[n as u8; 40])?;
        let pts = Some(n * 1_000_000_000);
        let flags = Flags(Flags::KEYFRAME);
        let frame = Envelope { pts, dts: None, duration: Some(20), flags, layer: 0, sealed: sealed.into() };
        let record = format::Record::Frame { track: 0, envelope: frame }.to_bytes();
        indexer.frame(bytes.len() as u64, &FrameHead::parse(&record[RECORD_HEAD..])?);
        bytes.extend(record);
    }
    bytes.extend(format::Record::End(0).to_bytes());
    let unfinished = bytes.clone();
    let at = bytes.len() as u64;
    bytes.extend(indexer.index.to_record());
    bytes.extend(format::Record::IndexAt(at).to_bytes());

    let cheap = Cost { memory: 8, passes: 1, lanes: 1 };
    let rng = &mut ChaCha20Rng::from_seed([6; 32]);
    let (mut writer, mut keys) = KeyFileWriter::new(MEETING, b"correct horse", cheap, rng)?;
    keys.extend(writer.key(RecordedKey {
        from: ALICE,
        name: "Alice".into(),
        stream: StreamId(7),
        track: "camera".into(),
        caps: "video/x-vp8".into(),
        epoch: 9,
        kid,
        suite: CipherSuite::default(),
        base_key: Secret::init_with(|key| *key = [0x55; 32]),
    }));
    keys.extend(writer.end());
    Ok(vec![bytes, unfinished, keys])
}

fn wire() -> Vec<Vec<u8>> {
    let body = || bytes::Bytes::from_static(&[0xc0, 0xde]);
    let (stream, route) = (StreamId(7), Route(9));
    let hello = |admission| ToRelay::Hello {
        version: 1,
        meeting: MEETING,
        participant: ALICE,
        claim: Claim([0xc1; 16]),
        since: 5,
        admission,
    };
    let to_relay = [
        hello(Admission::Join),
        hello(Admission::Create { token: "token".into() }),
        ToRelay::Post { slot: Slot::Direct(ALICE), body: body() },
        ToRelay::Publish { stream, kind: Kind::Video },
        ToRelay::Subscribe { route },
        ToRelay::Goodbye,
    ];
    let from_relay = [
        FromRelay::Welcome { version: 1, max_participants: 200, max_publish_mbit: 100 },
        FromRelay::Refused(Refusal::Full),
        FromRelay::Post(Post { seq: 3, from: ALICE, slot: Slot::Log, body: body() }),
        FromRelay::Published { from: ALICE, stream, kind: Kind::Audio, route },
        FromRelay::Gone { participant: ALICE },
    ];
    let envelope = Envelope {
        pts: Some(1_000_000_000),
        dts: Some(63),
        duration: Some(0x4000),
        flags: Flags(Flags::KEYFRAME),
        layer: 2,
        sealed: body(),
    };
    let behind_length = |bytes: Vec<u8>| [&(bytes.len() as u32).to_be_bytes()[..], &bytes].concat();
    let control =
        to_relay.iter().map(|message| behind_length(message.to_bytes())).collect::<Vec<_>>().concat();
    let group = GroupHeader { route, group: 5, layer: 2 };
    let records =
        [group.to_bytes(), Record::frame(&envelope).to_bytes(), Record::frame(&envelope).to_bytes()];
    let tagged = |kind: u8, bytes: Vec<u8>| [&[kind][..], &bytes].concat();
    let mut seeds: Vec<Vec<u8>> = to_relay.iter().map(|message| tagged(0, message.to_bytes())).collect();
    seeds.extend(from_relay.iter().map(|message| tagged(1, message.to_bytes())));
    seeds.extend([
        tagged(2, envelope.to_bytes()),
        tagged(3, Post { seq: 3, from: ALICE, slot: Slot::Cell, body: body() }.to_bytes()),
        tagged(4, group.to_bytes()),
        tagged(5, AudioDatagram { route, envelope }.to_bytes()),
        tagged(6, control),
        tagged(7, records.concat()),
        tagged(8, MEETING.to_string().into_bytes()),
    ]);
    seeds
}

fn local() -> Vec<Vec<u8>> {
    let (stream, kid) = (StreamId(1), KeyId::new(StreamId(1), 7, 9));
    let envelope = || Envelope {
        pts: Some(20_000_000),
        dts: None,
        duration: None,
        flags: Flags(0),
        layer: 0,
        sealed: vec![0x88; 24].into(),
    };
    let key = || Secret::init_with(|key| *key = [0xee; 32]);
    let purposes = [
        Purpose::Keys { meeting: None },
        Purpose::Publish { meeting: Some(MEETING) },
        Purpose::Watch { meeting: None, participant: "Bob".into(), track: "video".into() },
        Purpose::Control,
        Purpose::Tracks { meeting: Some(MEETING) },
    ];
    let mut to_agent: Vec<ToAgent> =
        purposes.map(|purpose| ToAgent::Hello { version: VERSION, purpose }).into_iter().collect();
    to_agent.extend([
        ToAgent::OpenStream {
            request: 1,
            kind: Kind::Audio,
            track: "voice".into(),
            caps: "audio/x-opus".into(),
            random: [0xcc; 16],
        },
        ToAgent::StreamCaps { stream, caps: "audio/x-opus, channels=2".into() },
        ToAgent::CloseStream { stream },
        ToAgent::WantOpenKeys,
        ToAgent::Floor { from: ALICE, kid, floor: 12 },
        ToAgent::Frame { stream, envelope: envelope() },
        ToAgent::KeyframeRequest { from: ALICE, stream },
        ToAgent::Control("{\"do\":\"status\"}".into()),
    ]);
    let (name, track) = (|| "Bob".to_owned(), || "voice".to_owned());
    let from_agent = [
        FromAgent::Welcome { version: VERSION, meeting: MEETING },
        FromAgent::Refused { text: "no".into() },
        FromAgent::State(MeetingState { phase: "live".into(), epoch: 3, ..MeetingState::default() }),
        FromAgent::StreamOpened { request: 1, stream, track: track() },
        FromAgent::StreamRefused { request: 1, text: "no".into() },
        FromAgent::SealKey { stream, epoch: 9, kid, suite: 5, base_key: key(), keyframe: true },
        FromAgent::Retire { before: 9, at: BootTime(5) },
        FromAgent::OpenKey {
            from: ALICE,
            name: name(),
            stream,
            track: track(),
            caps: "audio/x-opus".into(),
            epoch: 9,
            kid,
            suite: 5,
            base_key: key(),
            floor: 3,
        },
        FromAgent::CloseKey { from: ALICE, stream },
        FromAgent::Expire { before: 8 },
        FromAgent::Lease { until: BootTime(9) },
        FromAgent::Track {
            from: ALICE,
            name: name(),
            stream,
            track: track(),
            kind: Kind::Audio,
            caps: "audio/x-opus".into(),
        },
        FromAgent::TrackGone { from: ALICE, stream },
        FromAgent::Frame { from: ALICE, stream, envelope: envelope() },
        FromAgent::Trust {
            from: ALICE,
            name: name(),
            stream,
            track: track(),
            trust: "forged".into(),
            detail: "beware".into(),
        },
        FromAgent::KeyframeWanted { stream },
        FromAgent::Control("{}".into()),
    ];
    let tagged = |kind: u8, frame: &[u8]| [&[kind][..], frame].concat();
    let mut seeds: Vec<Vec<u8>> = to_agent.iter().map(|message| tagged(0, &packed(message))).collect();
    seeds.extend(from_agent.iter().map(|message| tagged(1, &packed(message))));
    let all: Vec<u8> = to_agent.iter().flat_map(|message| packed(message).to_vec()).collect();
    seeds.push(tagged(0, &all));
    seeds
}

fn text() -> Vec<Vec<u8>> {
    let link = Meeting::new(1, Successors::Nobody).link().reveal().to_string();
    let settings = "listen = '0.0.0.0:443'\nnames = ['relay.example']\nmonitor = '127.0.0.1:9'\n[meetings]\n\
                    create_tokens = ['0123456789abcdef']\nmax_participants = 5\nkeep_empty_seconds = 9\n";
    let key = [b"e2dk\x01".as_slice(), &[7; 32]].concat();
    let texts: [(u8, &[u8]); 10] = [
        (0, link.as_bytes()),
        (0, b"meeting://[::1]:4433/11111111111111111111111111111111#AAAA.BBBB"),
        (1, settings.as_bytes()),
        (1, b"certificate = 'c.pem'\nkey = 'k.pem'\n"),
        (2, &key),
        (2, &key[..36]),
        (3, br#"{"do":"create","relay":"r.example","certificate":null,"token":"","name":null,"successors":1,"guest":true}"#),
        (3, br#"{"do":"remove","meeting":null,"who":"Bob"}"#),
        (4, b"/run/a.sock\0/run/user/1000"),
        (4, b"\0"),
    ];
    texts.map(|(kind, text)| [&[kind][..], text].concat()).to_vec()
}

/// One of each kind as the snapshots have them, and what two rotations of a real meeting say.
fn messages(overheard: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
    let snapshots = include_str!("../../meeting-protocol/src/session/snapshots.txt");
    let mut seeds = Vec::new();
    for (name, hex) in snapshots.lines().filter_map(|line| line.split_once(' ')) {
        if !["commitment", "announce-hash", "link-hash", "roster-digest", "stream-key"].contains(&name) {
            seeds.push(hex::decode(hex)?);
        }
    }
    let mut kinds: Vec<(u8, usize)> = Vec::new();
    for message in overheard {
        let kind = (message[0], message.len());
        if !kinds.contains(&kind) {
            kinds.push(kind);
            seeds.push(message.clone());
        }
    }
    Ok(seeds)
}

/// Posts of what was overheard, one of each kind, opened in this meeting and in another.
fn boards(overheard: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut kinds = BTreeMap::new();
    for message in overheard.iter().filter(|message| message.len() < 2_048) {
        kinds.entry(message[0]).or_insert(message);
    }
    let seal = |message: &Vec<u8>| {
        let len = (message.len() as u16).to_be_bytes();
        [&[0, 0, 0, 9, 12][..], &len, message].concat()
    };
    let open: Vec<u8> = [[1, 0, 0, 0, 0], [1, 0, 0, 0, 1], [2, 0, 0, 1, 0], [3, 11, 4, 0, 0]].concat();
    let mut seeds: Vec<Vec<u8>> =
        kinds.values().map(|message| [&seal(message)[..], &open].concat()).collect();
    seeds.extend(decisions(4, 256));
    seeds
}

/// What happens on the road between the two: a frame passes, comes again, is altered, is lost and comes late under an old key.
fn elements() -> Vec<Vec<u8>> {
    let push = |fate: &[u8]| [&[0, 4, 0xf0, 0x0f, 0xf0, 0x0f][..], fate, &[0]].concat();
    let alter = |at: u8| push(&[4, 1, 0, at, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    let frames =
        [push(&[0]), push(&[7, 1]), alter(0), alter(2), alter(12), push(&[3]), vec![6, 1], push(&[7, 1])];
    let mut seeds = decisions(6, 160);
    seeds.push([&[2][..], &frames.concat(), &push(&[0])].concat());
    seeds
}

/// Chains, and what a leader hands to a follower: truths, in order and not, and a lie in the end.
fn wraps() -> Vec<Vec<u8>> {
    let (pair, rotate, wait) = (&[2, 0, 0, 0, 0, 0, 0][..], &[1][..], &[0, 12, 0, 100][..]);
    let (truth, unoffered, lie) = (&[5, 0, 0, 0][..], &[5, 0, 0, 8][..], &[5, 0, 0, 4, 0, 7, 1][..]);
    let leaders = &[3, 0, 0, 0][..];
    // One wrap with another link, receiver, epoch and byte in it, as it was, and once more.
    let altered: [&[u8]; 6] = [
        &[2, 0, 0, 4, 0, 5, 1],
        &[2, 0, 0, 1],
        &[2, 0, 0, 2, 3, 0, 1, 0, 0, 0],
        &[2, 0, 0, 8, 0, 40, 1],
        &[1, 0, 0],
        &[1, 0, 0],
    ];
    let handed: Vec<u8> = altered.iter().flat_map(|step| [&[0, 0][..], step].concat()).collect();
    let mut seeds = vec![
        [&[0; 7][..], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 9], &handed].concat(),
        [&[1][..], pair, truth, rotate, wait, unoffered, rotate, wait, truth, lie].concat(),
        [&[1][..], pair, lie].concat(),
        [&[1][..], leaders, pair, truth, rotate, wait, leaders, rotate, wait, leaders].concat(),
        [&[1][..], pair, pair, unoffered, truth, rotate, wait, &[5, 0, 1, 0], truth].concat(),
    ];
    seeds.extend(decisions(6, 160).into_iter().enumerate().map(|(n, mut seed)| {
        seed[0] = n as u8 % 2;
        seed
    }));
    seeds
}

/// The changes of all links of a meeting behind its leader's id.
fn links(overheard: &[Vec<u8>]) -> Result<Vec<u8>> {
    let mut out = Writer::default();
    let links = overheard.iter().filter(|message| message[0] == 0);
    for (n, message) in links.enumerate() {
        let link = SignedLink::from_bytes(&message[1..])?.body;
        if n == 0 {
            link.leader.encode(&mut out);
        }
        out.list(&link.changes);
    }
    Ok(out.into_bytes())
}

fn overheard() -> Vec<Vec<u8>> {
    let mut meeting = Meeting::of(3, 0x5eed, Successors::FirstPresent(1));
    meeting.stream(1, "camera");
    meeting.run(Duration::from_secs(130));
    let posts = meeting.recorded.iter();
    posts.filter_map(|post| meeting.nodes[0].session.overhear(&post.body)).collect()
}

/// Bytes without meaning (xorshift), for targets that read each as a decision.
fn decisions(count: usize, len: usize) -> Vec<Vec<u8>> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..count).map(|_| (0..len).map(|_| byte()).collect()).collect()
}
