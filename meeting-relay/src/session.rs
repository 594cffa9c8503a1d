//! One agent's connection, from hello to goodbye.
//!
//! ```text
//!  handshake -> hello -> admission -> listen | speak | groups | datagrams -> leave -> last words, close
//!                                     (whichever ends first ends all)
//! ```

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use meeting_wire::{FromRelay, Refusal, ToRelay, VERSION, packed};
use quinn::{Connection, Incoming, RecvStream, SendStream, VarInt};
use thiserror::Error;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::timeout;
use tracing::{debug, info};

use crate::budget::Budget;
use crate::control::{self, Ear};
use crate::counters::Counters;
use crate::forward::priority;
use crate::limits;
use crate::lobby::Lobby;
use crate::media;
use crate::meeting::{Entry, Meeting, Meetings};
use crate::newest::Newest;
use crate::outlet::{Outlet, Taken};
use crate::record::Recorder;
use crate::room::{Fault, Seat};

/// An admitted connection, as its tasks share it.
#[derive(Debug)]
pub struct Member {
    /// Where it is.
    pub meeting: Arc<Meeting>,
    /// Its place there.
    pub seat: Seat,
    /// The way out to it.
    pub outlet: Arc<Outlet>,
    /// What the relay counts.
    pub counters: Arc<Counters>,
    /// Writes down what is seen, if the operator wants that.
    pub recorder: Arc<Recorder>,
    /// The newest groups it publishes.
    pub newest: Newest,
    /// Bytes of its unfinished records.
    pub assembling: Arc<Budget>,
    /// Told when it publishes what needs a larger window.
    pub publishes: Notify,
    /// What of its media rates is left.
    pub rates: media::Rates,
    /// Numbers the groups that the relay makes of audio frames too large for a datagram.
    pub large_audio: AtomicU64,
}

/// How a connection ends.
#[derive(Debug, Error)]
pub enum End {
    /// The agent said so.
    #[error("goodbye")]
    Goodbye,
    /// It went away without a word.
    #[error("connection lost")]
    Lost,
    /// The relay has a reason that has nothing to do with what the agent sent last.
    #[error("{0}")]
    Refused(Refusal),
    /// What the agent sent.
    #[error(transparent)]
    Misbehaved(#[from] Misbehaviour),
}

/// What an agent must not send. Its own connection ends, and nobody else's.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misbehaviour {
    /// Bytes with no meaning.
    #[error("{at}: {error}")]
    Bytes {
        /// What was being read.
        at: &'static str,
        /// What is wrong with it.
        error: meeting_wire::DecodeError,
    },
    /// A stream that ends inside of something.
    #[error("{0} ends too early")]
    Truncated(&'static str),
    /// A message that does not go on.
    #[error("{0} stops in the middle")]
    Stopped(&'static str),
    /// A message at the wrong time.
    #[error("a hello that is not the first message")]
    SecondHello,
    /// No hello at all.
    #[error("no hello in time")]
    NoHello,
    /// Media from a stranger.
    #[error("a datagram before the hello")]
    EarlyDatagram,
    /// A layer above [`limits::LAYERS`].
    #[error("a layer number that is too high")]
    Layer,
    /// A rate passed.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// A rule of the room.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// What all connections share.
#[derive(Debug)]
pub struct House {
    /// The meetings that are open.
    pub meetings: Meetings,
    /// What the relay counts.
    pub counters: Arc<Counters>,
    /// Writes down what is seen, if the operator wants that.
    pub recorder: Arc<Recorder>,
    /// Room for those who said hello.
    pub connections: Arc<Semaphore>,
    /// Room for those who did not yet.
    pub lobby: Arc<Lobby>,
}

impl House {
    /// How many are in.
    pub fn members(&self) -> usize {
        let all = self.meetings.rules().max_connections;
        all.saturating_sub(self.connections.available_permits())
    }
}

/// Serves one connection to its end.
pub async fn serve(incoming: Incoming, house: &House) {
    let mut place = house.lobby.enter(incoming.remote_address().ip());
    let Ok(connecting) = incoming.accept() else { return };
    let deadline = tokio::time::Instant::now() + limits::HELLO;
    let counters = &house.counters;
    let connection = tokio::select! {
        shaken = tokio::time::timeout_at(deadline, connecting) => match shaken {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return debug!(%error, "handshake failed"),
            Err(_) => return debug!("handshake timed out"),
        },
        () = place.lost() => return counters.crowded_out.one(),
    };
    let number = counters.connections.next();
    debug!(number, address = %connection.remote_address(), "connected");

    let hello = tokio::select! {
        hello = tokio::time::timeout_at(deadline, hello(&connection)) => {
            hello.unwrap_or(Err(Misbehaviour::NoHello.into()))
        }
        () = place.lost() => {
            counters.crowded_out.one();
            Err(End::Refused(Refusal::Busy))
        }
    };
    let (hello, send, ear) = match hello {
        Ok(greeted) => greeted,
        Err(end) => {
            counters.misbehaved.add(usize::from(matches!(end, End::Misbehaved(_))));
            debug!(number, reason = %end, "ended before a hello");
            return close(&connection, &end);
        }
    };
    let memory = house.meetings.memory();
    let place_inside = house.connections.clone().try_acquire_owned();
    let entry = match (place_inside, house.meetings.charge_member(&hello)) {
        (Ok(place), Some(memory)) => enter(hello, &house.meetings, (&connection, Taken::new(place, memory))),
        (_, room) => {
            counters.short_of_memory.add(usize::from(room.is_none()));
            Err(Refusal::Busy)
        }
    };
    let Entry { meeting, seat, outlet: (outlet, queue), greeting } = match entry {
        Ok(entry) => entry,
        Err(refusal) => {
            counters.refused.one();
            debug!(number, reason = %refusal, "refused");
            return refuse(&connection, send, refusal).await;
        }
    };
    drop(place);

    let member = Arc::new(Member {
        meeting,
        seat,
        outlet,
        counters: counters.clone(),
        recorder: house.recorder.clone(),
        newest: Newest::default(),
        assembling: Budget::new(limits::ASSEMBLING),
        publishes: Notify::new(),
        rates: media::Rates::new(house.meetings.rules().max_publish_mbit, Instant::now()),
        large_audio: AtomicU64::new(0),
    });
    let (last_words, ending) = oneshot::channel();
    let _ = send.set_priority(priority::CONTROL);
    let room = member.outlet.charge_greeting(greeting.len());
    let messages = greeting.len() * limits::ITEM_BYTES;
    let room = room.or_else(|| member.meeting.charge(seat, messages));
    // What others send at once may be quicker than what the meeting forgets for it: some of all memory is not for that.
    let room = room.or_else(|| memory.charge(messages));
    let greeting = match room {
        Some(charge) => (greeting, Some(charge)),
        None => {
            member.outlet.expel(Refusal::Busy);
            (Vec::new(), None)
        }
    };
    let speaker = tokio::spawn(control::speak(send, greeting, queue, ending));
    let end = tokio::select! {
        biased;
        // First: what was said before the connection ended counts.
        end = control::listen(ear, &member) => end,
        end = media::groups(&member) => end,
        end = media::datagrams(&member) => end,
        refusal = member.outlet.expelled() => End::Refused(refusal),
        () = widen(&member, memory) => End::Lost,
    };
    member.meeting.leave(seat, matches!(end, End::Goodbye));

    let _ = last_words.send(end.refusal().map(|refusal| packed(&FromRelay::Refused(refusal))));
    let abort = speaker.abort_handle();
    let _ = timeout(limits::FAREWELL, speaker).await;
    abort.abort();
    if matches!(end, End::Misbehaved(_)) {
        counters.misbehaved.one();
        info!(number, reason = %end, "ended a connection for what it sent");
    } else {
        debug!(number, reason = %end, "connection ended");
    }
    close(&connection, &end);
}

impl End {
    /// What the agent is told, if there is anything to tell.
    fn refusal(&self) -> Option<Refusal> {
        match self {
            End::Goodbye | End::Lost => None,
            End::Refused(refusal) => Some(*refusal),
            End::Misbehaved(_) => Some(Refusal::Protocol),
        }
    }
}

/// The QUIC application error code that a connection is closed with; 0 is a goodbye.
pub fn close_code(refusal: Refusal) -> u32 {
    match refusal {
        Refusal::Version => 1,
        Refusal::Token => 2,
        Refusal::NoMeeting => 3,
        Refusal::Full => 4,
        Refusal::Busy => 5,
        Refusal::Protocol => 6,
        Refusal::Replaced => 7,
        Refusal::Taken => 8,
        _ => 15,
    }
}

/// The code of a relay that is shutting down.
pub const SHUTDOWN: u32 = 16;

async fn hello(connection: &Connection) -> Result<(ToRelay, SendStream, Ear), End> {
    tokio::select! {
        biased;
        said = first_message(connection) => said,
        // Flow control does not hold them back, and each keeps the packet that it came in for as long as it is not read.
        datagram = connection.read_datagram() => match datagram {
            Ok(_) => Err(Misbehaviour::EarlyDatagram.into()),
            Err(_) => Err(End::Lost),
        },
    }
}

async fn first_message(connection: &Connection) -> Result<(ToRelay, SendStream, Ear), End> {
    let (send, recv): (SendStream, RecvStream) = connection.accept_bi().await.map_err(|_| End::Lost)?;
    let mut ear = Ear::new(recv);
    match ear.hello().await? {
        Some(hello) => Ok((hello, send, ear)),
        None => Err(End::Lost),
    }
}

fn enter(hello: ToRelay, meetings: &Meetings, connection: (&Connection, Taken)) -> Result<Entry, Refusal> {
    match hello {
        ToRelay::Hello { version, meeting, participant, claim, since, admission } if version == VERSION => {
            meetings.admit(meeting, &admission, (participant, claim), connection, since)
        }
        ToRelay::Hello { .. } => Err(Refusal::Version),
        _ => Err(Refusal::Protocol),
    }
}

async fn refuse(connection: &Connection, mut send: SendStream, refusal: Refusal) {
    let _ = timeout(limits::FAREWELL, async {
        send.write_chunk(packed(&FromRelay::Refused(refusal))).await.ok()?;
        send.finish().ok()?;
        send.stopped().await.ok()
    })
    .await;
    connection.close(VarInt::from_u32(close_code(refusal)), refusal.to_string().as_bytes());
}

fn close(connection: &Connection, end: &End) {
    let code = end.refusal().map_or(0, close_code);
    connection.close(VarInt::from_u32(code), end.to_string().as_bytes());
}

/// Lets the send window follow the congestion window, twice over: less would starve a long path, more would
/// only let frames grow old where nothing can drop them. What quinn notes of the packets in it is a quarter of it,
/// and is charged. The receive window of a publisher grows too, as soon as there is room for that; until then it is slower.
/// Ends with the connection.
async fn widen(member: &Member, memory: &Arc<Budget>) {
    let connection = member.outlet.connection();
    let mut publishes = false;
    let mut window = limits::SEND_WINDOW;
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            _ = connection.closed() => return,
            () = member.publishes.notified() => publishes = true,
            _ = tick.tick() => {}
        }
        let windows = member.meeting.windows();
        if publishes && let Some(window) = member.outlet.taken().window.widen(windows) {
            connection.set_receive_window(VarInt::from_u32(window));
        }
        let wanted = connection.stats().path.cwnd.saturating_mul(2);
        let wanted = wanted.clamp(limits::SEND_WINDOW, limits::SEND_WINDOW_MAX);
        if wanted > window {
            match memory.charge_new(wanted as usize / 4) {
                Some(charge) => member.outlet.taken().notes = Some(charge),
                None => continue,
            }
        }
        if wanted != window {
            window = wanted;
            connection.set_send_window(window);
        }
    }
}
