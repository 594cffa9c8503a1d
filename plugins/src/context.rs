//! How keys get from `meetingkey` to the elements in its reach: a GstContext with an opaque object.
//!
//! A `meetingkey` offers its store under two names, `e2ee.keys/<meeting>` and `e2ee.keys`. An element asks in
//! READY to PAUSED: then every `meetingkey` of the pipeline has spoken, whatever the order on the line. It takes the
//! stores of the nearest bin around it that has any; where that are several meetings, it must say which.
//!
//! A bin forgets its contexts on the way to READY while `meetingkey` keeps its connection until NULL, so the bins
//! around are also searched for `meetingkey` itself.
//!
//! A player is given `meeting://` and nothing else: where nobody has keys, an opener has the nearest `meetingsrc` bring
//! them. A sealer never does.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
    sync::Arc,
};

use gst::{glib, prelude::*};
use meeting_wire::MeetingId;

use crate::{meetingkey::MeetingKey, source::MeetingSrc, store::KeyStore};

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
    for bin in around(element) {
        let stores = stores(&bin);
        match meeting {
            Some(meeting) if stores.contains_key(&meeting) => return one(stores, Some(meeting)),
            None if !stores.is_empty() => return one(stores, None),
            _ => present.extend(stores),
        }
    }

    // Nobody around has keys; the application may, and answers while the message is being posted.
    let name = meeting.map_or_else(|| GENERIC.to_owned(), of_meeting);
    let _ = element.post_message(gst::message::NeedContext::builder(&name).src(element).build());
    present.extend(stores(element));
    one(present, meeting)
}

/// As [`find`], for an opener: where nobody has keys, the nearest `meetingsrc` brings them.
///
/// # Errors
///
/// [`NoKeys`], within 2 s.
pub fn find_to_open(element: &gst::Element, meeting: Option<MeetingId>) -> Result<Arc<KeyStore>, NoKeys> {
    find(element, meeting).or_else(|error| match error {
        NoKeys::Several(_) => Err(error),
        _ => brought(element, meeting)?.ok_or(error),
    })
}

fn brought(element: &gst::Element, meeting: Option<MeetingId>) -> Result<Option<Arc<KeyStore>>, NoKeys> {
    for bin in around(element) {
        let mut sources: Vec<MeetingSrc> = inside(&bin, "meetingsrc");
        let wanted = |serves| meeting.is_none_or(|asked| asked == serves);
        sources.retain(|source| source.meeting().is_some_and(wanted));
        let meetings: BTreeSet<_> = sources.iter().filter_map(MeetingSrc::meeting).collect();
        if meetings.len() > 1 {
            return Err(NoKeys::Several(list(meetings.iter())));
        }
        if !sources.is_empty() {
            let here = sources.iter().find_map(MeetingSrc::store);
            return Ok(here.or_else(|| sources.iter().find_map(MeetingSrc::bring_keys)));
        }
    }
    Ok(None)
}

/// The bins around an element, the nearest first.
fn around(element: &gst::Element) -> impl Iterator<Item = gst::Element> + use<> {
    iter::successors(element.parent(), |object| object.parent())
        .filter_map(|object| object.downcast::<gst::Element>().ok())
}

/// The elements of one factory in a bin and in the bins within.
fn inside<T: IsA<gst::Element>>(bin: &gst::Element, factory: &str) -> Vec<T> {
    let Some(bin) = bin.downcast_ref::<gst::Bin>() else { return Vec::new() };
    let elements = bin.iterate_all_by_element_factory_name(factory);
    elements.into_iter().flatten().filter_map(|element| element.downcast().ok()).collect()
}

fn list<'a>(meetings: impl Iterator<Item = &'a MeetingId>) -> String {
    meetings.map(MeetingId::to_string).collect::<Vec<_>>().join(", ")
}

fn one(
    mut stores: BTreeMap<MeetingId, Arc<KeyStore>>,
    meeting: Option<MeetingId>,
) -> Result<Arc<KeyStore>, NoKeys> {
    let list = list(stores.keys());
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
    let keys = inside::<MeetingKey>(element, "meetingkey");
    let stores = handles.map(|Handle(store)| store).chain(keys.iter().filter_map(MeetingKey::store));
    stores.filter(|store| !store.is_closed()).map(|store| (store.meeting(), store)).collect()
}

fn of_meeting(meeting: MeetingId) -> String {
    format!("{GENERIC}/{meeting}")
}

const GENERIC: &str = "e2ee.keys";
