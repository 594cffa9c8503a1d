//! What leader and followers have in common: the roster and its chain, the epochs, the streams.

use std::collections::{HashSet, VecDeque};

use meeting_wire::{InstanceId, ParticipantId, Slot, StreamId};

use super::{
    CommandError, EndReason, Event, LeaveReason, OpenStream,
    claims::{Ask, Heartbeat},
    context::Cx,
    epoch_key::EpochKey,
    epochs::{Epochs, Opened},
    lineage::{Lineage, Step},
    message::{MAX_LINKS, Message},
    statement::Statement,
    streams::{Sealing, Streams},
    vouching::Vouching,
    welcome::Welcome,
    witness::Witness,
};
use crate::{
    BootTime,
    announce::SignedAnnounce,
    crypto::sign::{Hash, Signed},
    frame::CipherSuite,
    identity::DevicePublic,
    roster::{Change, Entry, EpochOpening, Link, Removal, Roster, SignedLink},
    secret::Secret,
    security_code::SecurityCode,
    weakness::{self, Weakness},
};

/// Devices remembered as having been in.
const MAX_KNOWN: usize = 4096;

/// One instance of a meeting as one participant sees it.
pub(super) struct Group {
    pub instance: InstanceId,
    pub roster: Roster,
    pub lineage: Lineage,
    /// Today's leader's announce.
    pub leader_announce: Hash,
    /// The announce itself, where we have it.
    pub leader_signed: Option<SignedAnnounce>,
    /// The newest links, the head last; never empty.
    links: VecDeque<(Hash, SignedLink)>,
    pub epoch_link: SignedLink,
    pub epochs: Epochs,
    pub streams: Streams,
    pub vouching: Vouching,
    pub witness: Witness,
    /// The leader's newest heartbeat.
    pub last_beat: Option<Signed<Heartbeat>>,
    /// Devices that have proved to be here; after a removal others need approval.
    pub known: HashSet<DevicePublic>,
    /// Why this session is over, once it is.
    pub ending: Option<EndReason>,
    pub code: SecurityCode,
}

impl Group {
    /// A group at the link a genesis or a welcome gives.
    pub fn new(
        roster: Roster,
        lineage: Lineage,
        leader: &SignedAnnounce,
        head: SignedLink,
        (epoch_link, now): (SignedLink, BootTime),
        streams: Streams,
    ) -> Option<Self> {
        let opened = Opened::new(&epoch_link.body, epoch_link.body.opening?);
        let genesis = lineage.genesis.body.hash();
        let leader_announce = leader.hash();
        let code = SecurityCode::of_leader(&genesis, &leader_announce, CipherSuite::default().into());
        Some(Self {
            instance: head.body.instance,
            known: roster.entries().filter(|entry| entry.present).map(|entry| entry.device).collect(),
            roster,
            lineage,
            leader_announce,
            leader_signed: Some(leader.clone()),
            links: VecDeque::from([(head.body.hash(), head)]),
            epoch_link,
            epochs: Epochs::new(opened, now),
            streams,
            vouching: Vouching::default(),
            witness: Witness::default(),
            last_beat: None,
            ending: None,
            code,
        })
    }

    /// The newest link.
    pub fn head(&self) -> &SignedLink {
        &self.links[self.links.len() - 1].1
    }

    /// Its hash.
    pub fn head_hash(&self) -> Hash {
        self.links[self.links.len() - 1].0
    }

    /// The link after the head, for its leader to sign; the digest is of the roster after these changes.
    pub fn next_link(
        &self,
        leader: ParticipantId,
        (changes, digest): (Vec<Change>, Hash),
        opening: Option<EpochOpening>,
        time: u64,
    ) -> Link {
        let Link { meeting, number, .. } = self.head().body;
        let (instance, number, previous) = (self.instance, number + 1, self.head_hash());
        Link { meeting, instance, number, previous, leader, changes, digest, time, opening }
    }

    /// The kept link of a number, with its hash.
    pub fn link(&self, number: u64) -> Option<&(Hash, SignedLink)> {
        self.links.iter().find(|(_, link)| link.body.number == number)
    }

    /// All links that are kept.
    pub fn kept(&self) -> impl Iterator<Item = &SignedLink> {
        let opened = (!self.links.iter().any(|(hash, _)| *hash == self.epochs.newest.link))
            .then_some(&self.epoch_link);
        self.links.iter().map(|(_, link)| link).chain(opened)
    }

    /// The hash of the link that opened an epoch; none if that is not known any more or not yet.
    pub fn opened(&self, epoch: u64) -> Option<Hash> {
        let newest = (epoch == self.epochs.newest.epoch).then_some(self.epochs.newest.link);
        let opens = |link: &SignedLink| link.body.opening.is_some_and(|opening| opening.epoch == epoch);
        newest.or_else(|| self.links.iter().find(|(_, link)| opens(link)).map(|(hash, _)| *hash))
    }

    /// Whether this is the hash of a link of the chain; none if it may be older than what is kept.
    pub fn knows(&self, hash: &Hash) -> Option<bool> {
        if self.links.iter().any(|(known, _)| known == hash) || *hash == self.epochs.newest.link {
            Some(true)
        } else if self.links.len() < MAX_LINKS && self.links[0].1.body.number == 0 {
            Some(false)
        } else {
            None
        }
    }

    /// Whether a chain of leaders goes before ours. It has to leave ours at a link that we still hold: what is older is
    /// settled, so that neither hoarded votes nor a leader of long ago end anything for ever.
    pub fn gives_way(&self, theirs: &Lineage) -> bool {
        let Some(step) = theirs.before(&self.lineage) else { return false };
        let (last, head) = (&step.last.body, self.head().body.number);
        match self.link(last.number) {
            Some((known, _)) => *known == last.hash(),
            // What the old leader signed after all we have seen we have to believe it, and what before we came, as far
            // back as the others still hold it.
            None => {
                last.number > head || self.links.len() < MAX_LINKS && head - last.number < MAX_LINKS as u64
            }
        }
    }

    /// The links after the one of this hash; none if that is not kept.
    pub fn links_after(&self, hash: &Hash) -> Option<Vec<SignedLink>> {
        let position = self.links.iter().position(|(known, _)| known == hash)?;
        Some(self.links.iter().skip(position + 1).map(|(_, link)| link.clone()).collect())
    }

    /// What others can fill here.
    #[cfg(feature = "simulator")]
    pub fn sizes(&self) -> Vec<super::inside::Size> {
        let mut sizes = vec![
            ("links", self.links.len(), MAX_LINKS),
            ("known devices", self.known.len(), MAX_KNOWN),
            ("changes of leader", self.lineage.steps.len(), super::lineage::MAX_STEPS),
            self.epochs.size(),
        ];
        sizes.extend(self.streams.sizes(self.roster.entries().len()));
        sizes
    }

    /// A second code over what this device sees of the roster.
    pub fn roster_code(&self) -> SecurityCode {
        SecurityCode::of_roster(&self.lineage.genesis.body.hash(), &self.head_hash())
    }

    /// Goes on to the next link, which has been checked, and the roster it makes.
    pub fn adopt(&mut self, link: SignedLink, roster: Roster, cx: &mut Cx<'_>) {
        let me = cx.me.participant;
        let before = std::mem::replace(&mut self.roster, roster);
        let takeover = link.body.takeover().is_some();
        if takeover {
            let (last, roster) = (self.head().clone(), before.clone());
            self.lineage.steps.push(Step { last, roster, takeover: link.clone() });
        }
        let mut came = Vec::new();
        for change in &link.body.changes {
            match change {
                Change::Add(entry) if entry.participant != me => came.push(entry.name.clone()),
                Change::Remove(Removal { participant, reason }) => {
                    if let Some(entry) =
                        before.entry(*participant).filter(|entry| entry.present && *participant != me)
                    {
                        cx.departed(*participant, &entry.name, *reason);
                    }
                    self.streams.gone(*participant, cx);
                    self.vouching.gone(*participant);
                    self.witness.gone(*participant);
                    if *participant == me {
                        self.ending = Some(match reason {
                            LeaveReason::Replaced => EndReason::Replaced,
                            LeaveReason::Left => EndReason::Left,
                            // Taken for missing while we are here: the way back is a new stay.
                            LeaveReason::Missing => EndReason::Stale,
                            LeaveReason::Removed => EndReason::Removed,
                        });
                    }
                }
                Change::Present(participant) => {
                    let Some(entry) = self.roster.entry(*participant) else { continue };
                    if self.known.len() < MAX_KNOWN {
                        self.known.insert(entry.device);
                    }
                    if *participant != me {
                        let (name, role) = (entry.name.clone(), entry.role);
                        cx.out.event(Event::Arrived { participant: *participant, name, role });
                    }
                }
                Change::Lock(locked) => cx.out.event(Event::Locked(*locked)),
                Change::Add(_) | Change::Succession { .. } => {}
                Change::Takeover(takeover) => {
                    let leader = takeover.leader;
                    if let Some(entry) = self.roster.entry(leader) {
                        self.leader_announce = entry.announce;
                        cx.out.event(Event::LeaderChanged { participant: leader, name: entry.name.clone() });
                    }
                }
            }
        }
        if !came.is_empty() {
            cx.out.event(Event::LetIn(came));
        }
        if takeover {
            (self.leader_signed, self.last_beat) = (None, None);
            let genesis = self.lineage.genesis.body.hash();
            self.code =
                SecurityCode::of_leader(&genesis, &self.leader_announce, CipherSuite::default().into());
            cx.out.event(Event::Code(self.code));
        }
        if let Some(opening) = link.body.opening {
            if takeover {
                self.epochs.new_leader(opening.epoch);
            }
            self.epochs.open(Opened::new(&link.body, opening), link.body.removes(), cx);
            self.epoch_link = link.clone();
        }
        if self.links.len() >= MAX_LINKS {
            self.links.pop_front();
        }
        self.links.push_back((link.body.hash(), link));
    }

    /// A leader's announce is kept for evidence; the hash leaves out the signature, which anybody can spoil.
    pub fn on_announce(&mut self, announce: SignedAnnounce) {
        if announce.hash() == self.leader_announce && announce.verified().is_some() {
            self.leader_signed = Some(announce);
        }
    }

    /// Goes on to a link far ahead, with the roster its leader signed, without the links between.
    pub fn skip_to(&mut self, welcome: Welcome, roster: Roster, cx: &mut Cx<'_>) {
        let epoch_link = welcome.epoch_link().clone();
        let Some(opening) = epoch_link.body.opening else { return };
        let before = std::mem::replace(&mut self.roster, roster);
        let is_new = |entry: &&Entry| {
            entry.participant != cx.me.participant && before.entry(entry.participant).is_none()
        };
        let came: Vec<String> =
            self.roster.entries().filter(is_new).map(|entry| entry.name.clone()).collect();
        if !came.is_empty() {
            cx.out.event(Event::LetIn(came));
        }
        let was_present = |participant| before.entry(participant).is_some_and(|entry| entry.present);
        for entry in self.roster.entries().filter(|entry| entry.present && !was_present(entry.participant)) {
            if entry.participant != cx.me.participant {
                let (participant, name, role) = (entry.participant, entry.name.clone(), entry.role);
                cx.out.event(Event::Arrived { participant, name, role });
            }
        }
        for entry in before.entries().filter(|entry| self.roster.entry(entry.participant).is_none()) {
            cx.departed(entry.participant, &entry.name, LeaveReason::Missing);
            self.streams.gone(entry.participant, cx);
            self.vouching.gone(entry.participant);
            self.witness.gone(entry.participant);
        }
        let room = MAX_KNOWN.saturating_sub(self.known.len());
        let present = self.roster.entries().filter(|entry| entry.present);
        self.known.extend(present.map(|entry| entry.device).take(room));
        if before.header.locked != self.roster.header.locked {
            cx.out.event(Event::Locked(self.roster.header.locked));
        }
        if opening.epoch > self.epochs.newest.epoch {
            self.epochs.open(Opened::new(&epoch_link.body, opening), true, cx);
        }
        self.epoch_link = epoch_link;
        self.links = VecDeque::from([(welcome.head.body.hash(), welcome.head)]);
    }

    /// The key of an epoch is here: hand out what it gives, unless the epoch has closed meanwhile.
    pub fn install(&mut self, epoch: u64, link: Hash, key: Secret<32>, cx: &mut Cx<'_>) {
        if self.epochs.is_closed(epoch) {
            return;
        }
        self.epochs.install(EpochKey { epoch, link, key: key.called("meeting key") });
        if epoch == self.epochs.newest.epoch {
            cx.out.event(Event::Epoch(epoch));
            self.seal_all(None, cx);
        }
        for statement in self.streams.take_held(epoch) {
            if !self.is_forked(&statement, cx) {
                self.open_statement(&statement.body, cx);
            }
        }
    }

    /// Somebody stated a stream.
    pub fn on_statement(&mut self, statement: Signed<Statement>, cx: &mut Cx<'_>) {
        let said = &statement.body;
        if said.participant == cx.me.participant {
            return;
        }
        let Some(entry) = self.roster.entry(said.participant) else {
            cx.counters.unauthorised += 1;
            return;
        };
        let newcomer = !entry.present;
        let signed = statement.is_by(&entry.signer) || weakness::is(Weakness::StatementUnsigned);
        if !signed || said.meeting != cx.me.meeting || said.instance != self.instance {
            cx.counters.forged += 1;
            return;
        }
        if self.streams.has_left(said.participant) {
            cx.counters.stale += 1;
            return;
        }
        if self.is_forked(&statement, cx) {
            return;
        }
        let (said, newest) = (&statement.body, self.epochs.newest);
        if self.epochs.key(said.epoch).is_some() {
            self.open_statement(&statement.body, cx);
        } else if said.epoch >= newest.epoch && said.epoch <= newest.epoch + 2 {
            if !self.streams.hold(statement, newcomer) {
                cx.counters.over_limit += 1;
            }
        } else {
            cx.counters.stale += 1;
        }
    }

    fn open_statement(&mut self, statement: &Statement, cx: &mut Cx<'_>) {
        let sender = self.roster.entry(statement.participant);
        // An epoch that has closed has no key here.
        let key = self.epochs.key(statement.epoch).filter(|key| key.link == statement.link);
        match (sender, key) {
            (Some(entry), Some(key)) if !self.streams.stated(statement, entry, key, cx) => {
                self.misstates(statement.participant, cx);
            }
            (Some(_), Some(_)) => {}
            _ => cx.counters.stale += 1,
        }
    }

    /// A sealing element wants a stream.
    pub fn open_stream(&mut self, wish: OpenStream, cx: &mut Cx<'_>) -> Result<(), CommandError> {
        let half = cx.random16();
        self.streams.open(wish, half)?;
        self.seal_all(None, cx);
        Ok(())
    }

    /// Caps changed.
    pub fn stream_caps(
        &mut self,
        stream: StreamId,
        caps: String,
        cx: &mut Cx<'_>,
    ) -> Result<(), CommandError> {
        if self.streams.set_caps(stream, caps)? {
            self.seal_all(Some(stream), cx);
        }
        Ok(())
    }

    /// A sealing element is gone.
    pub fn close_stream(&mut self, stream: StreamId, cx: &mut Cx<'_>) -> Result<(), CommandError> {
        let sealing = sealing(&self.epochs, &self.roster, self.instance, cx.me.participant);
        self.streams.close(stream, sealing, cx)
    }

    /// Says again what the board may have lost.
    pub fn restate(&mut self, cx: &mut Cx<'_>) {
        if let Some(sealing) = sealing(&self.epochs, &self.roster, self.instance, cx.me.participant) {
            self.streams.restate(&sealing, cx);
        }
    }

    fn seal_all(&mut self, again: Option<StreamId>, cx: &mut Cx<'_>) {
        if let Some(sealing) = sealing(&self.epochs, &self.roster, self.instance, cx.me.participant) {
            self.streams.seal_all(&sealing, again, cx);
        }
    }

    /// Asks somebody for what we miss.
    pub fn ask(&self, whom: ParticipantId, cx: &mut Cx<'_>) {
        let ask = Ask {
            meeting: cx.me.meeting,
            instance: self.instance,
            participant: cx.me.participant,
            head: self.head_hash(),
            epoch: self.epochs.newest_with_key().unwrap_or(0),
        };
        self.tell(whom, &Message::Ask(cx.me.sign(ask)), cx);
    }

    /// Posts to everybody.
    pub fn tell_all(&self, message: &Message, cx: &mut Cx<'_>) {
        cx.post(Slot::Log, self.instance, message);
    }

    /// Posts to one; gives the bytes of it.
    pub fn tell(&self, to: ParticipantId, message: &Message, cx: &mut Cx<'_>) -> usize {
        cx.post(Slot::Direct(to), self.instance, message)
    }
}

/// What is needed to seal under the newest key; none before it is here.
fn sealing<'a>(
    epochs: &'a Epochs,
    roster: &'a Roster,
    instance: InstanceId,
    me: ParticipantId,
) -> Option<Sealing<'a>> {
    let key = epochs.sealing_key()?;
    let entry: &Entry = roster.entry(me)?;
    Some(Sealing { key, instance, entry, keyframe: epochs.newest.adds })
}
