//! Every size, rate and time of the relay, each with its reason.

use std::time::Duration;

use meeting_wire::Rate;

/// From the first packet to the end of the hello: five round trips on a bad path, and no longer, because an
/// unknown peer holds memory meanwhile.
pub const HELLO: Duration = Duration::from_secs(5);

/// The longest hello: a token of 256 characters and some ids.
pub const HELLO_BYTES: usize = 1024;

/// Connections without a hello at one time, all networks together: 10 to 30 MB, and at 500 newcomers a second an
/// honest one has a second for its three round trips.
pub const LOBBY: usize = 512;

/// Connections without a hello from one network at one time: everybody of one company comes to a meeting at once.
pub const LOBBY_OF_NETWORK: usize = 256;

/// How long the last words to a peer may take before its connection is closed all the same.
pub const FAREWELL: Duration = Duration::from_millis(500);

/// Above this age a frame no longer helps a conversation: the rest of its group goes instead of adding delay.
pub const LATE: Duration = Duration::from_millis(150);

/// Above this age a droppable frame goes, so that the frames others depend on need not.
pub const LATE_DROPPABLE: Duration = Duration::from_millis(75);

/// A first frame of a group has this long if no newer group comes: large keyframes pass a slow link whole.
pub const STALLED: Duration = Duration::from_secs(2);

/// Keyframe requests for one stream reach its publisher at most this often: a keyframe costs everybody.
pub const KEYFRAME_EVERY: Duration = Duration::from_millis(500);

/// Silence after which a connection counts as lost.
pub const IDLE: Duration = Duration::from_secs(15);

/// Keeps NAT bindings open, which may close after 30 s; three fit into [`IDLE`].
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Log posts the board keeps: an hour of a lively meeting.
pub const LOG_POSTS: usize = 4096;

/// Bytes of log posts the board keeps.
pub const LOG_BYTES: usize = 8 * 1024 * 1024;

/// Cells the board keeps: one for each member of the largest meeting.
pub const CELLS: usize = 1024;

/// Bytes of all cells together.
pub const CELL_BYTES: usize = 4 * 1024 * 1024;

/// The longest cell: a heartbeat that returns a thousand nonces of 16 bytes, four times over.
pub const CELL: usize = 64 * 1024;

/// Places that one meeting remembers the claims of, so that stays of the past are not taken over: 48 bytes each. Who has been
/// away for longest is forgotten first.
pub const CLAIMS: usize = 16 * 1024;

/// Streams that one participant may have published: the 64 of its elements, a few cameras with layers, and its beacons.
pub const STREAMS: usize = 64 + 1;

/// Subscriptions of one connection.
pub const SUBSCRIPTIONS: usize = meeting_wire::MAX_SUBSCRIPTIONS;

/// Layers of one stream: three spatial by three temporal ones, and room.
pub const LAYERS: u8 = 32;

/// Streams and layers of one publisher whose newest group is known: as many as it may have groups open. Each takes 400 bytes.
pub const NEWEST: usize = INCOMING_STREAMS as usize;

/// Group streams a publisher may have open: quinn keeps state for each allowed one (64 to 128 measured well).
pub const INCOMING_STREAMS: u32 = 128;

/// Bytes of unfinished records one connection may hold: one largest record and some, and beside them small ones. The stream
/// of a record that does not fit is stopped, and nothing else is.
pub const ASSEMBLING: usize = meeting_wire::Record::MAX + 2 * BESIDE_LARGE;

/// So much of [`ASSEMBLING`] records beyond [`AHEAD`] leave to smaller ones: sound, beacons.
pub const BESIDE_LARGE: usize = 1024 * 1024;

/// Bytes of records that one connection has memory for when they are claimed: a large picture or some small ones. Whoever
/// claims more has memory for what has come.
pub const AHEAD: usize = 128 * 1024;

/// How long somebody has for the next of the [`STEPS`] in which a record or message comes: agents give up what takes as long.
pub const PROGRESS: Duration = Duration::from_secs(10);

/// So many steps make a whole record or message. A picture of 16 MiB may come at 134 kbit/s.
pub const STEPS: usize = 100;

/// Room for what has come first of a message, or of a record beyond [`AHEAD`]: a packet's worth.
pub const PACKET: usize = 2 * 1024;

/// Bytes waiting for one subscriber, over all its streams; they are shared with the other subscribers.
pub const QUEUED_MEDIA: usize = 8 * 1024 * 1024;

/// How much of that is of one publisher, so that the others' frames find room: one large picture, or 0.15 s at 100 Mbit/s.
pub const QUEUED_MEDIA_OF_ONE: usize = QUEUED_MEDIA / 4;

/// Bytes of data that are handed to a subscriber's connection in one piece: what waits beside it waits for no more.
pub const DATA_PIECE: usize = 4 * 1024;

/// So long a piece of data lets pictures go first that wait beside it.
pub const DATA_STANDS_BACK: Duration = Duration::from_millis(100);

/// No piece keeps other data of its publisher waiting for longer: it may be of a stream that its subscriber does not read.
pub const DATA_TURN: Duration = Duration::from_millis(500);

/// For so long a group of which nothing comes holds the connections of subscribers who have gone.
pub const SETTLES: Duration = Duration::from_secs(1);

/// Records waiting for one subscriber in one group.
pub const QUEUED_RECORDS: usize = 256;

/// Groups on their way to one subscriber at one time.
pub const LANES: usize = 1024;

/// How many of them are of one publisher: one for each of its streams, which is half of the streams that an agent allows.
pub const LANES_OF_ONE: usize = STREAMS;

/// Control messages waiting for one agent.
pub const QUEUED_MESSAGES: usize = 16 * 1024;

/// Bytes of control messages waiting for one agent: a replayed board's worth.
pub const QUEUED_CONTROL: usize = 8 * 1024 * 1024;

/// How much of that are posts to this agent alone, which may be dropped: what goes to everybody has the rest.
pub const QUEUED_DIRECT: usize = QUEUED_CONTROL / 2;

/// How much of that is by one author: a successor gets the announces of a thousand, 1.5 MB.
pub const QUEUED_DIRECT_OF_ONE: usize = QUEUED_CONTROL / 4;

/// What a message counts beside its bytes where others have to find room: its place among [`QUEUED_MESSAGES`].
pub const PLACE_BYTES: usize = QUEUED_CONTROL / QUEUED_MESSAGES;

/// quinn's unsent and unacknowledged bytes for one subscriber before its bandwidth is known: more would only
/// age there, out of reach of [`LATE`].
pub const SEND_WINDOW: u64 = 32 * 1024;

/// Bytes on their way to one subscriber before the first acknowledgement: the send window, or what a board replays to a
/// newcomer would take round trips more.
pub const INITIAL_WINDOW: u64 = SEND_WINDOW;

/// The most that the send window grows to.
pub const SEND_WINDOW_MAX: u64 = 4 * 1024 * 1024;

/// Datagrams waiting for one subscriber: about 0.3 s of three voices; quinn drops the oldest.
pub const DATAGRAM_SEND: usize = 16 * 1024;

/// Datagrams received and not yet read.
pub const DATAGRAM_RECEIVE: usize = 256 * 1024;

/// Flow control over all streams of a connection that has published nothing but sound, or said nothing yet: a hello, posts,
/// the keys of a large meeting. What strangers send before their hello waits unread.
pub const RECEIVE_WINDOW: u32 = 64 * 1024;

/// The same for a connection that publishes video or data, one after the other where there is memory for it: 80 Mbit/s at
/// 100 ms round trip, and four times that.
pub const WINDOWS: [u32; 3] = [RECEIVE_WINDOW, 1024 * 1024, 4 * 1024 * 1024];

/// Flow control of one stream: 8 Mbit/s at 1 s round trip.
pub const STREAM_RECEIVE_WINDOW: u32 = 1024 * 1024;

/// What one member costs whatever it does: its connection and streams, windows, queues of small things.
pub const MEMBER_BYTES: usize = 256 * 1024;

/// How much of that is for its queues, half of it for media: it has this much, however short memory is.
pub const MEMBER_OWN: usize = 64 * 1024;

/// What one meeting has for its posts and media, half of it for each, however short memory is: a picture, and many words.
pub const MEETING_OWN: usize = 512 * 1024;

/// What one message, record or post costs beside its bytes, for each queue it is in.
pub const ITEM_BYTES: usize = 96;

/// What one group on its way to one subscriber costs beside its records.
pub const LANE_BYTES: usize = 4 * 1024;

/// How much of all memory one meeting may fill with what is sent in it, and how much is left alone by whatever is new. So
/// much of it are the windows of publishers too, and of those the windows of one meeting.
pub const SHARE: usize = 4;

/// How much of all memory is left alone by what is sent, so that whoever comes back to its place finds room for its connection.
pub const SPARE: usize = 8;

/// Messages of one connection: a leader wraps a key for a thousand, once a second.
pub const MESSAGES: Rate = Rate { per_second: 1_000.0, burst: 8_192.0 };

/// Log posts of one connection: its 64 streams are stated anew in each epoch, and people who come and go make three of those a
/// second. Nobody may flush the board in one breath: this takes 14 s.
pub const LOG: Rate = Rate { per_second: 256.0, burst: 512.0 };

/// Bytes that one connection sends to everybody: posts on log and cell, and the news of its streams. Each of the others has
/// them waiting, so they come in no larger lump than a quarter of [`QUEUED_CONTROL`], and one author does not flush the log in a
/// breath. A leader of a thousand has a link of 60 KB each second and a heartbeat of 16 KB each other one.
pub const TO_ALL: Rate = Rate { per_second: 256.0 * 1024.0, burst: 2.0 * 1024.0 * 1024.0 };

/// How much of the burst a new connection has, as connecting anew is easy: the longest post, and some short ones.
pub const TO_ALL_AT_FIRST: f64 = 640.0 * 1024.0;

/// Bytes of one connection's posts.
pub const POST_BYTES: Rate = Rate { per_second: 4.0 * 1024.0 * 1024.0, burst: 16.0 * 1024.0 * 1024.0 };

/// Group streams of one connection: large audio frames travel as a group each.
pub const GROUPS: Rate = Rate { per_second: 1_000.0, burst: 2_048.0 };

/// Records and datagrams of one connection: nine layers of two cameras at 60 frames a second, three times over. Each
/// costs a system call per subscriber.
pub const FRAMES: Rate = Rate { per_second: 4_000.0, burst: 16_384.0 };

/// Bytes of one connection's sound in groups that go before pictures: raw and in stereo, and no more.
pub const URGENT_SOUND: Rate = Rate { per_second: 512.0 * 1024.0, burst: 1024.0 * 1024.0 };

/// Bytes of one connection's sound in datagrams that go by every path, however narrow: Opus in stereo at 96 kbit/s, sealed.
/// What is more goes where there is room.
pub const VOICE: Rate = Rate { per_second: 16.0 * 1024.0, burst: 16.0 * 1024.0 };

/// Where half of [`DATAGRAM_SEND`] waits for longer, the path has too little room: what only came together has gone by then.
pub const PILED: Duration = Duration::from_millis(50);

/// How long a path that had none takes voices alone: what waited beside the datagrams goes meanwhile.
pub const NARROW: Duration = Duration::from_secs(1);

/// Bytes of one connection's beacons that go before pictures: those for forty streams of 50 frames a second.
pub const BEACONS: Rate = Rate { per_second: 64.0 * 1024.0, burst: 256.0 * 1024.0 };

/// Media bytes of one connection at so many Mbit/s: what came late over a bad path comes at once, and the largest
/// record has to fit.
pub fn media_bytes(mbit: u32) -> Rate {
    let per_second = f64::from(mbit) * 125_000.0;
    Rate { per_second, burst: (4.0 * per_second).max(2.0 * meeting_wire::Record::MAX as f64) }
}
