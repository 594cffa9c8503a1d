//! How keys get from `meetingkey` to the elements in its reach: a GstContext with an opaque object.
//!
//! A `meetingkey` offers its store under two names, `e2ee.keys/<meeting>` and `e2ee.keys`. An element asks in
//! READY to PAUSED: then every `meetingkey` of the pipeline has spoken, whatever the order on the line. It takes the
//! stores of the nearest bin around it that has any; where that are several meetings, it must say which.
//!
//! A bin forgets its contexts on the way to READY while `meetingkey` keeps its connection until NULL, so the bins
//! around are also searched for `meetingkey` itself.

use std::{collections::BTreeMap, sync::Arc};

use gst::{glib, prelude::*};
use meeting_wire::MeetingId;

use crate::{meetingkey::MeetingKey, store::KeyStore};

/// What the context holds. It prints as nothing but its type.
#[derive(Clone, glib::Boxed)]
#[boxed_type(name = "GstE2eeKeyStore")]
struct Handle(Arc<KeyStore>);

/// Why there are no keys. The text is for a person.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoKeys {
    /// No `meetingkey` in reach.
    #[error(
        "there is no source of keys: add `meetingkey` to the pipeline (and join a meeting with `meeting-agent join`), \
         or `meetingkey loopback=true` to try things out"
    )]
    Nobody,
    /// None for the meeting that was asked for.
    #[error("no `meetingkey` in reach serves the meeting {asked}; there is: {present}")]
    OtherMeeting {
        /// What the property says.
        asked: MeetingId,
        /// What there is.
        present: String,
    },
    /// Several, and the element does not say which.
    #[error("several meetings are in reach: set the property `meeting` to one of {0}")]
    Several(String),
}

/// Offers a store to everything in reach of `element`.
pub fn offer(element: &gst::Element, store: &Arc<KeyStore>) {
    for name in [of_meeting(store.meeting()), GENERIC.to_owned()] {
        let mut context = gst::Context::new(&name, false);
        if let Some(context) = context.get_mut() {
            context.structure_mut().set("store", Handle(store.clone()));
        }
        let _ = element.post_message(gst::message::HaveContext::builder(context).src(element).build());
    }
}

/// The store of the meeting that `element` wants, or of the only one in reach.
///
/// # Errors
///
/// [`NoKeys`], at once.
pub fn find(element: &gst::Element, meeting: Option<MeetingId>) -> Result<Arc<KeyStore>, NoKeys> {
    let mut present = BTreeMap::new();
    let mut around = element.parent();
    while let Some(object) = around {
        if let Some(bin) = object.downcast_ref::<gst::Element>() {
            let stores = stores(bin);
            match meeting {
                Some(meeting) if stores.contains_key(&meeting) => return one(stores, Some(meeting)),
                None if !stores.is_empty() => return one(stores, None),
                _ => present.extend(stores),
            }
        }
        around = object.parent();
    }

    // Nobody around has keys; the application may, and answers while the message is being posted.
    let name = meeting.map_or_else(|| GENERIC.to_owned(), of_meeting);
    let _ = element.post_message(gst::message::NeedContext::builder(&name).src(element).build());
    present.extend(stores(element));
    one(present, meeting)
}

fn one(
    mut stores: BTreeMap<MeetingId, Arc<KeyStore>>,
    meeting: Option<MeetingId>,
) -> Result<Arc<KeyStore>, NoKeys> {
    let list = stores.keys().map(MeetingId::to_string).collect::<Vec<_>>().join(", ");
    match meeting {
        Some(asked) => stores.remove(&asked).ok_or(if list.is_empty() {
            NoKeys::Nobody
        } else {
            NoKeys::OtherMeeting { asked, present: list }
        }),
        None if stores.len() > 1 => Err(NoKeys::Several(list)),
        None => stores.pop_first().map(|(_, store)| store).ok_or(NoKeys::Nobody),
    }
}

fn stores(element: &gst::Element) -> BTreeMap<MeetingId, Arc<KeyStore>> {
    let contexts = element.contexts();
    let ours = contexts.iter().filter(|context| context.context_type().starts_with(GENERIC));
    let handles = ours.filter_map(|context| context.structure().get::<Handle>("store").ok());
    let mut stores: Vec<_> = handles.map(|Handle(store)| store).collect();
    if let Some(bin) = element.downcast_ref::<gst::Bin>() {
        let inside = bin.iterate_all_by_element_factory_name("meetingkey");
        let keys = inside.into_iter().flatten().filter_map(|key| key.downcast::<MeetingKey>().ok());
        stores.extend(keys.filter_map(|key| key.store()));
    }
    stores.into_iter().filter(|store| !store.is_closed()).map(|store| (store.meeting(), store)).collect()
}

fn of_meeting(meeting: MeetingId) -> String {
    format!("{GENERIC}/{meeting}")
}

const GENERIC: &str = "e2ee.keys";
