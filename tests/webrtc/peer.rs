//! One end of a call: a `webrtcbin` with one candidate, which its SDP has.

use std::sync::mpsc;

use anyhow::{Context, Result};
use gst::{glib, prelude::*};
use gst_webrtc::{WebRTCICEGatheringState, WebRTCSDPType, WebRTCSessionDescription, gst_sdp::SDPMessage};
use rig::until;

use crate::PATIENCE;

pub struct Peer(pub gst::Element);

impl Peer {
    pub fn new(pipeline: &gst::Pipeline, name: &str, address: &str) -> Result<Self> {
        let webrtc = gst::ElementFactory::make("webrtcbin")
            .name(name)
            .property_from_str("bundle-policy", "max-bundle")
            .build()?;
        pipeline.add(&webrtc)?;
        let ice = webrtc.property::<gst::Object>("ice-agent");
        ice.emit_by_name::<bool>("add-local-ip-address", &[&address]);
        ice.property::<glib::Object>("agent").set_property("ice-tcp", false);
        Ok(Self(webrtc))
    }

    /// An offer of what is linked to it, once it is known what that is.
    pub fn offer(&self) -> Result<String> {
        until("the caps of what is sent", PATIENCE, || {
            Ok(self.0.sink_pads().iter().all(|pad| pad.current_caps().is_some()).then_some(()))
        })?;
        let offer = self.description("create-offer", "offer")?;
        self.settle(&offer)
    }

    /// The answer to an offer.
    pub fn answer(&self, offer: &str) -> Result<String> {
        self.remote(WebRTCSDPType::Offer, offer)?;
        let answer = self.description("create-answer", "answer")?;
        self.settle(&answer)
    }

    /// The answer to an offer of Janus. It places an RTCP packet, and so a wish for a keyframe, by the number of who sends
    /// it, which the line of the pictures has to name; an end that only receives names none by itself.
    pub fn answer_to_janus(&self, offer: &str) -> Result<String> {
        let mut answer = SDPMessage::parse_buffer(self.answer(offer)?.as_bytes())?;
        let bin = self.0.downcast_ref::<gst::Bin>().context("webrtcbin is a bin")?;
        let rtpbin = bin.by_name("rtpbin").context("no rtpbin")?;
        let session = rtpbin.emit_by_name::<glib::Object>("get-internal-session", &[&0u32]);
        let ssrc = format!("{} cname:{}", session.property::<u32>("internal-ssrc"), self.0.name());
        let video = answer.medias_mut().find(|line| line.media() == Some("video"));
        video.context("no pictures")?.add_attribute("ssrc", Some(&ssrc));
        Ok(answer.as_text()?)
    }

    /// Takes the answer to its offer.
    pub fn accept(&self, answer: &str) -> Result<()> {
        self.remote(WebRTCSDPType::Answer, answer)
    }

    fn remote(&self, kind: WebRTCSDPType, sdp: &str) -> Result<()> {
        let sdp = SDPMessage::parse_buffer(sdp.as_bytes())?;
        self.set("set-remote-description", &WebRTCSessionDescription::new(kind, sdp))
    }

    /// Takes its own description, and gives it with all candidates once they are there.
    fn settle(&self, description: &WebRTCSessionDescription) -> Result<String> {
        self.set("set-local-description", description)?;
        until("all candidates", PATIENCE, || {
            let state = self.0.property::<WebRTCICEGatheringState>("ice-gathering-state");
            Ok((state == WebRTCICEGatheringState::Complete).then_some(()))
        })?;
        let local = self.0.property::<Option<WebRTCSessionDescription>>("local-description");
        Ok(local.context("no description")?.sdp().as_text()?)
    }

    fn description(&self, signal: &str, field: &str) -> Result<WebRTCSessionDescription> {
        let reply =
            promised(|promise| self.0.emit_by_name::<()>(signal, &[&None::<gst::Structure>, promise]))?;
        let reply = reply.with_context(|| format!("{signal}: no reply"))?;
        reply.get(field).with_context(|| format!("{signal}: {reply}"))
    }

    fn set(&self, signal: &str, description: &WebRTCSessionDescription) -> Result<()> {
        let reply = promised(|promise| self.0.emit_by_name::<()>(signal, &[description, promise]))?;
        match reply.and_then(|reply| reply.get::<glib::Error>("error").ok()) {
            Some(error) => Err(error).context(signal.to_owned()),
            None => Ok(()),
        }
    }
}

/// What comes of a promise, within a deadline.
fn promised(ask: impl FnOnce(&gst::Promise)) -> Result<Option<gst::Structure>> {
    let (tell, told) = mpsc::channel();
    ask(&gst::Promise::with_change_func(move |reply| {
        let _ = tell.send(reply.map(|reply| reply.map(|reply| reply.to_owned())));
    }));
    told.recv_timeout(PATIENCE)?.map_err(|error| anyhow::anyhow!("a promise was broken: {error:?}"))
}
