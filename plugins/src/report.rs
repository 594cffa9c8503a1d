//! Small things that several elements say in the same way.

use std::sync::Mutex;

use gst::{glib, prelude::*};
use gst_base::subclass::prelude::*;

use crate::{address, lock::lock};

/// The property `meeting`, the same wherever it is.
pub fn meeting_property() -> glib::ParamSpec {
    glib::ParamSpecString::builder("meeting")
        .nick("Meeting")
        .blurb("Id of the meeting, 32 hex digits; empty takes the only one there is")
        .default_value(Some(""))
        .mutable_ready()
        .build()
}

/// The property `agent`, the same wherever it is.
pub fn agent_property() -> glib::ParamSpec {
    glib::ParamSpecString::builder("agent")
        .nick("Agent")
        .blurb(
            "Unix socket of the agent; empty takes $MEETING_AGENT_SOCKET, else \
             $XDG_RUNTIME_DIR/meeting-agent/agent.sock",
        )
        .default_value(Some(""))
        .mutable_ready()
        .build()
}

/// What a `meeting` property may show: a pasted invitation stays unseen.
pub fn shown_meeting(text: &str) -> &str {
    match address::meeting(text) {
        Ok(_) => text,
        Err(_) => "",
    }
}

/// What an `agent` property may show, as with [`shown_meeting`].
pub fn shown_agent(text: &str) -> &str {
    match address::socket(text) {
        Ok(_) => text,
        Err(_) => "",
    }
}

/// The templates of an element with one pad on each side.
pub fn always_pads(sink: &gst::Caps, src: &gst::Caps) -> Vec<gst::PadTemplate> {
    let pad = |name, direction, caps| gst::PadTemplate::new(name, direction, gst::PadPresence::Always, caps);
    [pad("sink", gst::PadDirection::Sink, sink), pad("src", gst::PadDirection::Src, src)]
        .into_iter()
        .flatten()
        .collect()
}

/// Caps as a caps query wants them.
pub fn filtered(caps: gst::Caps, filter: Option<&gst::Caps>) -> gst::Caps {
    match filter {
        Some(filter) => filter.intersect_with_mode(&caps, gst::CapsIntersectMode::First),
        None => caps,
    }
}

/// Ignores the buffer pools of downstream: they are made for buffers of another size.
pub fn no_pools(query: &mut gst::query::Allocation) {
    while query.allocation_pools().len() > 0 {
        query.remove_nth_allocation_pool(0);
    }
}

/// A buffer with room for `inbuf` and `more`, with all that `inbuf` says of itself.
pub fn output_for<T: BaseTransformImpl>(
    element: &T,
    inbuf: &gst::BufferRef,
    more: usize,
) -> Result<gst::Buffer, gst::FlowError> {
    let size = inbuf.size().checked_add(more).ok_or(gst::FlowError::Error)?;
    let mut outbuf = gst::Buffer::with_size(size).map_err(|_| gst::FlowError::Error)?;
    element.parent_copy_metadata(inbuf, outbuf.make_mut()).map_err(|_| gst::FlowError::Error)?;
    Ok(outbuf)
}

/// The caps whose refusal was told last.
#[derive(Debug, Default)]
pub struct Refusal(Mutex<Option<gst::Caps>>);

impl Refusal {
    /// Looks at an answered query of upstream: if it means that the frames to come have no place in `template`, says why,
    /// and what to do. Upstream itself says no more than "not negotiated".
    pub fn look(
        &self,
        element: &impl IsA<gst::Element>,
        query: &gst::QueryRef,
        template: &gst::CapsRef,
        advice: impl FnOnce(&gst::CapsRef) -> String,
    ) {
        let asked = match query.view() {
            gst::QueryView::AcceptCaps(query) => Some(query.caps_owned()),
            gst::QueryView::Caps(query) => query.filter_owned(),
            _ => None,
        };
        let refused = asked.filter(|caps| !caps.is_empty() && !caps.can_intersect(template));
        let Some(refused) = refused else { return };
        // A sink that waits for its first frame is on its way to PAUSED.
        if element.current_state().max(element.pending_state()) < gst::State::Paused {
            return;
        }
        let told = lock(&self.0).replace(refused.clone());
        if told.as_ref() != Some(&refused) {
            gst::element_warning!(element, gst::StreamError::WrongType, ("{}", advice(&refused)));
        }
    }
}

/// Asks an encoder for a keyframe with all codec headers.
pub fn want_keyframe() -> gst::Event {
    gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build()
}

/// Asks whoever sends for a keyframe. Over RTP it becomes a PLI; with `all_headers` it would be a FIR, which not every SFU
/// passes on.
pub fn lost_picture() -> gst::Event {
    gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(false).build()
}

/// Tells the application where an element stands.
pub fn say_state(element: &gst::Element, state: &str, detail: &str) {
    let structure =
        gst::Structure::builder("e2ee-state").field("state", state).field("detail", detail).build();
    let _ = element.post_message(gst::message::Element::builder(structure).src(element).build());
}
