//! The one connection to the relay of one stay in a meeting: made, kept, and made again.
//!
//! ```text
//!  idle --dial--> hello --welcome--> up ( control both ways | group streams | datagrams ) --lost--> idle
//!    ^                                                                                         |
//!    +------------------ 125 .. 750 ms for half a minute, later up to 7.5 s -------------------+
//! ```
//!
//! For half a minute after a loss the pauses stay short: a relay that was started anew should find its meetings
//! again within their lease, and there the others can only come after the creator. For the same reason a relay that
//! says nothing at all is given up long before the connection's own time is over: what is sent again on it comes
//! ever more rarely.

mod dial;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use meeting_protocol::BootTime;
use meeting_wire::{
    Admission, Claim, Decode, FromRelay, MeetingId, ParticipantId, Refusal, ToRelay, VERSION, message_len,
    packed,
};
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use tokio::{sync::mpsc, time::timeout};
use tracing::{debug, info};

use crate::{clock, error::AgentError, publish::Publisher, task::Task, watch, watch::Watching};

pub use dial::address;

/// Whom to call and what to say first.
#[derive(Clone, Debug)]
pub struct Hail {
    /// `HOST[:PORT]`.
    pub relay: String,
    /// SHA-256 of the only certificate accepted.
    pub certificate: Option<[u8; 32]>,
    /// Which meeting.
    pub meeting: MeetingId,
    /// Our address in it.
    pub participant: ParticipantId,
    /// Proves to the relay that the address is ours.
    pub claim: Claim,
    /// Our right to be there.
    pub admission: Admission,
    /// The newest log post of this stay that the session has: what came after it is asked for, on each connection.
    pub since: Arc<AtomicU64>,
}

/// The media ends of the connection.
#[derive(Clone, Debug)]
pub struct Media {
    /// Ours, out.
    pub publisher: Arc<Publisher>,
    /// Theirs, in.
    pub watching: Arc<Watching>,
}

/// What happens on the connection.
#[derive(Debug)]
pub enum LinkEvent {
    /// The relay let us in.
    Up,
    /// Not connected, or no longer; the text is for a person. It is tried again.
    Down(String),
    /// The relay will not let us in; it is not tried again.
    Refused(Refusal),
    /// The relay said something.
    Message(FromRelay),
}

/// A running connection; dropped, it ends at once.
#[derive(Debug)]
pub struct RelayLink {
    /// To the relay; dropped while there is no connection.
    pub out: mpsc::Sender<ToRelay>,
    /// What happens.
    pub events: mpsc::Receiver<LinkEvent>,
    task: Task,
}

impl RelayLink {
    /// Starts calling.
    pub fn start(hail: Hail, media: Media) -> Result<Self, AgentError> {
        let dialler = dial::Dialler::new(&hail)?;
        let (out, messages) = mpsc::channel(QUEUED);
        let (happened, events) = mpsc::channel(QUEUED);
        let caller = Caller { hail, dialler, media, messages, happened };
        Ok(Self { out, events, task: Task::spawn(caller.run()) })
    }

    /// Sends what waits, says goodbye, and waits a moment for both to arrive.
    pub async fn goodbye(mut self) {
        let _ = self.out.try_send(ToRelay::Goodbye);
        // the driver no longer listens: a full queue must not keep the reader from ending
        self.events.close();
        let _ = timeout(FAREWELL, self.task.ended()).await;
    }
}

struct Caller {
    hail: Hail,
    dialler: dial::Dialler,
    media: Media,
    messages: mpsc::Receiver<ToRelay>,
    happened: mpsc::Sender<LinkEvent>,
}

/// How one connection ended.
enum End {
    /// We said so.
    Goodbye,
    /// The relay said so, for a reason that calling again does not change.
    Refused(Refusal),
    /// Try again.
    Lost(String),
}

/// How far a call came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    /// Nobody answered.
    Nobody,
    /// The relay answered, and did not let us in.
    Relay,
    /// We were in.
    Meeting,
}

impl Caller {
    async fn run(mut self) {
        let mut wait = FIRST_WAIT;
        let mut lost: Option<BootTime> = None;
        let mut before = Reached::Meeting;
        loop {
            let (end, reached) = self.call().await;
            self.media.publisher.detach();
            let reason = match end {
                End::Goodbye => return,
                End::Refused(Refusal::Token) if self.hail.admission == BARE => {
                    // a creator that came back by its link: it may still enter what is open
                    self.hail.admission = Admission::Join;
                    continue;
                }
                End::Refused(refusal) => {
                    let _ = self.happened.send(LinkEvent::Refused(refusal)).await;
                    return;
                }
                End::Lost(reason) => reason,
            };
            debug!(meeting = %self.hail.meeting, reason, "no relay connection");
            if self.happened.send(LinkEvent::Down(reason)).await.is_err() {
                return;
            }
            if reached == Reached::Meeting {
                lost = Some(clock::now());
            }
            if reached == Reached::Meeting || (before == Reached::Nobody && reached == Reached::Relay) {
                wait = FIRST_WAIT;
            }
            before = reached;
            let most = match reached {
                _ if lost.is_none_or(|at| clock::now().since(at) >= SOON) => LAST_WAIT,
                // the call itself took its time
                Reached::Nobody => FIRST_WAIT,
                _ => SOON_WAIT,
            };
            wait = wait.min(most);
            let jittered = wait / 2 + Duration::from_millis(clock::jitter(wait.as_millis() as u64));
            if self.unless_goodbye(tokio::time::sleep(jittered)).await.is_none() {
                return;
            }
            wait = (wait * 2).min(LAST_WAIT);
        }
    }

    /// One connection from dial to end, and how far it came.
    async fn call(&mut self) -> (End, Reached) {
        let dialler = self.dialler.clone();
        let connection = match self.unless_goodbye(timeout(PATIENCE, dialler.dial())).await {
            None => return (End::Goodbye, Reached::Nobody),
            Some(Err(_)) => return (End::Lost("the relay does not answer".into()), Reached::Nobody),
            Some(Ok(Err(reason))) => return (End::Lost(reason), Reached::Nobody),
            Some(Ok(Ok(connection))) => connection,
        };
        let hello = ToRelay::Hello {
            version: VERSION,
            meeting: self.hail.meeting,
            participant: self.hail.participant,
            claim: self.hail.claim,
            since: self.hail.since.load(Ordering::Relaxed),
            admission: self.hail.admission.clone(),
        };
        let (send, recv, mbit) = match self.unless_goodbye(timeout(PATIENCE, greet(&connection, hello))).await
        {
            None => return (End::Goodbye, Reached::Relay),
            Some(Err(_)) => {
                return (End::Lost("the relay does not say hello back".into()), Reached::Relay);
            }
            Some(Ok(Err(end))) => return (end, Reached::Relay),
            Some(Ok(Ok(streams))) => streams,
        };
        // what was meant for the last connection is void on this one
        while let Ok(message) = self.messages.try_recv() {
            if message == ToRelay::Goodbye {
                return (End::Goodbye, Reached::Relay);
            }
        }
        if self.happened.send(LinkEvent::Up).await.is_err() {
            return (End::Goodbye, Reached::Meeting);
        }
        info!(meeting = %self.hail.meeting, participant = %self.hail.participant, "connected to the relay");
        self.media.publisher.attach(connection.clone(), mbit);
        let end = tokio::select! {
            end = speak(send, &mut self.messages) => end,
            end = listen(recv, &self.happened) => end,
            () = watch::run(&connection, &self.media.watching) => {
                End::Lost("the connection to the relay was lost".into())
            }
            () = silence(&connection) => End::Lost("the relay has fallen silent".into()),
        };
        if matches!(end, End::Goodbye) {
            // closing at once would discard what is still on its way: the relay closes when it has read it
            let _ = timeout(FAREWELL / 2, connection.closed()).await;
        }
        let end = named(end, &connection);
        connection.close(0u32.into(), b"");
        (end, Reached::Meeting)
    }

    /// `future`'s outcome; none if we have to leave first. Other messages are void without a connection.
    async fn unless_goodbye<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(future);
        loop {
            tokio::select! {
                outcome = &mut future => return Some(outcome),
                message = self.messages.recv() => match message {
                    None | Some(ToRelay::Goodbye) => return None,
                    Some(_) => {}
                }
            }
        }
    }
}

async fn greet(connection: &Connection, hello: ToRelay) -> Result<(SendStream, RecvStream, u32), End> {
    let answered = async {
        let (mut send, mut recv) = connection.open_bi().await.ok()?;
        // nothing may overtake what says which streams there are
        let _ = send.set_priority(10);
        send.write_all(&packed(&hello)).await.ok()?;
        let answer = read(&mut recv).await?;
        Some((send, recv, answer))
    };
    match answered.await {
        Some((send, recv, FromRelay::Welcome { max_publish_mbit, .. })) => Ok((send, recv, max_publish_mbit)),
        Some((_, _, FromRelay::Refused(refusal))) => Err(refused(refusal)),
        _ => {
            // the streams may end a moment before it is said why
            let _ = timeout(FAREWELL / 2, connection.closed()).await;
            Err(named(End::Lost("the relay hung up at hello".into()), connection))
        }
    }
}

/// What a refusal means for calling again.
fn refused(refusal: Refusal) -> End {
    match refusal {
        Refusal::Version | Refusal::Token => End::Refused(refusal),
        // the creator may still come, somebody may leave, an older connection of ours may still be ending
        _ => End::Lost(refusal.to_string()),
    }
}

/// A relay that has read no hello, such as one of another version, says by its code alone why it closes (PROTOCOL.md 2.1).
fn named(end: End, connection: &Connection) -> End {
    let code = match connection.close_reason() {
        Some(ConnectionError::ApplicationClosed(close)) => close.error_code.into_inner(),
        _ => 0,
    };
    let code = code.checked_sub(1).and_then(|code| u8::try_from(code).ok());
    let refusal = code.and_then(|code| Refusal::from_bytes(&[code]).ok());
    match (end, refusal) {
        (End::Lost(_), Some(refusal)) => refused(refusal),
        (end, _) => end,
    }
}

async fn speak(mut send: SendStream, messages: &mut mpsc::Receiver<ToRelay>) -> End {
    loop {
        let message = messages.recv().await.unwrap_or(ToRelay::Goodbye);
        let last = message == ToRelay::Goodbye;
        if send.write_all(&packed(&message)).await.is_err() {
            return End::Lost("the connection to the relay was lost".into());
        }
        if last {
            let _ = send.finish();
            let _ = timeout(FAREWELL / 2, send.stopped()).await;
            return End::Goodbye;
        }
    }
}

async fn listen(mut recv: RecvStream, happened: &mpsc::Sender<LinkEvent>) -> End {
    while let Some(message) = read(&mut recv).await {
        if let FromRelay::Refused(refusal) = message {
            return refused(refusal);
        }
        if happened.send(LinkEvent::Message(message)).await.is_err() {
            return std::future::pending().await;
        }
    }
    End::Lost("the connection to the relay was lost".into())
}

/// Waits until nothing at all has come from the relay for [`SILENT_LOOKS`]. Counted, not measured: after a sleep of
/// this process what came meanwhile is still in the socket.
async fn silence(connection: &Connection) {
    let (mut heard, mut silent) = (0, 0);
    while silent < SILENT_LOOKS {
        tokio::time::sleep(LOOK).await;
        let received = connection.stats().udp_rx.datagrams;
        silent = if received == heard { silent + 1 } else { 0 };
        heard = received;
    }
}

/// The next message; none when there is none or it makes no sense.
async fn read(recv: &mut RecvStream) -> Option<FromRelay> {
    let mut len = [0; 4];
    recv.read_exact(&mut len).await.ok()?;
    let mut message = vec![0; message_len(len).ok()?];
    recv.read_exact(&mut message).await.ok()?;
    FromRelay::from_bytes(&message).inspect_err(|error| debug!(%error, "the relay makes no sense")).ok()
}

/// The right to create, without the token that a relay may ask for.
const BARE: Admission = Admission::Create { token: String::new() };

/// Messages that wait either way: a leader's wraps for a meeting of 1,000.
const QUEUED: usize = 4_096;
/// The first pause, doubled each time. Jitter makes each pause between half and one and a half of it, so that not all call at
/// once when the relay is back.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest pause: a relay that was away for long is found again within seconds.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// The longest pause while a connection was lost less than [`SOON`] ago.
const SOON_WAIT: Duration = Duration::from_millis(500);
/// For so long after a loss it is worth being quick: a relay that is started anew is back by then.
const SOON: Duration = Duration::from_secs(30);
/// For a dial, and for a hello: three retransmissions.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a goodbye may take, half of it to arrive and half until the relay closes: a user waits for it.
const FAREWELL: Duration = Duration::from_secs(1);
/// Between two looks at what has come: keep-alives are twice as far apart.
const LOOK: Duration = Duration::from_millis(500);
/// Three seconds, in which a relay that lives answers two keep-alives.
const SILENT_LOOKS: u32 = 6;

#[cfg(test)]
mod tests;
