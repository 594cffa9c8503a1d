//! The key of an epoch: pairing once, then one wrap for each epoch.

use super::{ASK_AFTER, Follow};
use crate::{
    crypto::{
        labels,
        wrap::{Pairing, PairingContext, WrapError},
    },
    session::{context::Cx, epoch_key::EpochKey, group::Group, message::Wrap},
    weakness::{self, Weakness},
};

impl Follow {
    /// Opens a wrap that came before its link.
    pub(in crate::session) fn open_held(&mut self, group: &mut Group, cx: &mut Cx<'_>) {
        if group.ending.is_none()
            && let Some(wrap) = self.held_wrap.take()
        {
            self.on_wrap(wrap, group, cx);
        }
    }

    pub(in crate::session) fn on_wrap(&mut self, wrap: Wrap, group: &mut Group, cx: &mut Cx<'_>) {
        let newest = group.epochs.newest;
        if wrap.to != cx.me.participant {
            cx.counters.unauthorised += 1;
            return;
        }
        if wrap.epoch > newest.epoch {
            self.held_wrap = Some(wrap);
            self.ask_soon(cx.now);
            return;
        }
        let closed = group.epochs.is_closed(wrap.epoch);
        if wrap.epoch < newest.epoch || closed || group.epochs.newest_key().is_some() {
            cx.counters.stale += 1;
            return;
        }
        if wrap.link != newest.link {
            cx.counters.forged += 1;
            return;
        }
        // A new pairing is kept only if its wrap opens, and a wrap that does not costs an old one nothing.
        let new = self.pairing.is_none();
        let key = match &mut self.pairing {
            Some(pairing) => pairing.unwrap(wrap.epoch, &wrap.link, &wrap.sealed),
            None => self.pair(&wrap, group, cx).and_then(|mut pairing| {
                let key = pairing.unwrap(wrap.epoch, &wrap.link, &wrap.sealed)?;
                self.pairing = Some(pairing);
                Ok(key)
            }),
        };
        let Ok(key) = key else {
            cx.counters.forged += 1;
            return;
        };
        let commitment = EpochKey::commitment(&key, cx.me.meeting, group.instance, wrap.epoch);
        if commitment != newest.commitment && !weakness::is(Weakness::CommitmentUnchecked) {
            self.caught("sent a key it had not committed to", group, cx);
            return;
        }
        if group.roster.header.successor_limit == 0 {
            self.kem = None;
        }
        self.next_ask = None;
        self.ask_pause = ASK_AFTER;
        group.install(wrap.epoch, wrap.link, key, cx);
        if new {
            self.pulse(group, cx);
        }
    }

    fn pair(&self, wrap: &Wrap, group: &Group, cx: &Cx<'_>) -> Result<Pairing, WrapError> {
        let offer = wrap.offer.as_ref().ok_or(WrapError::Forged)?;
        let kem = self.kem.as_ref().ok_or(WrapError::Forged)?;
        let own = group.roster.entry(cx.me.participant).ok_or(WrapError::Forged)?;
        let context = PairingContext {
            meeting: cx.me.meeting,
            instance: group.instance,
            leader_announce: group.leader_announce,
            announce: own.announce,
            start: offer.start,
            psk_generation: group.roster.header.psk_generation,
        };
        let signer = group.roster.leader_signer().ok_or(WrapError::Forged)?;
        if !signer.verifies(labels::PAIRING, &context.signed_bytes(&offer.enc), &offer.signature) {
            return Err(WrapError::Forged);
        }
        Pairing::accept(kem, &offer.enc, cx.me.board.invite(), &context)
    }
}
