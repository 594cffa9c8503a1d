//! A meeting endpoint in one file: joins, publishes a picture and a tone, receives everybody else's.
//!
//!     embed LINK-FILE SECONDS [--main-loop]
//!
//! It needs plain GStreamer, the plugin and a running `meeting-agent`: nothing here links to the meeting.

use std::{env, process::Command, time::Duration};

use gst::{glib, prelude::*};

const PIPELINE: &str = "meetingkey meetingsink name=out meetingsrc name=in \
    videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=15/1 ! vp8enc deadline=1 ! e2eeseal ! out. \
    audiotestsrc is-live=true ! opusenc ! e2eeseal ! out.";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = env::args().collect();
    let agent = env::var("MEETING_AGENT").unwrap_or("meeting-agent".into());
    if !Command::new(agent).args(["join", "--link-file", &arguments[1]]).status()?.success() {
        return Err("could not join: see above".into());
    }

    gst::init()?;
    let pipeline = gst::parse::launch(PIPELINE)?.downcast::<gst::Pipeline>().map_err(|_| "not a pipeline")?;
    let (source, weak) = (pipeline.by_name("in").ok_or("no meetingsrc")?, pipeline.downgrade());
    source.connect_pad_added(move |_, pad| {
        let Some(pipeline) = weak.upgrade() else { return };
        // Opens, decodes and counts: a window or a file would go in place of the fakesink.
        let description = "queue name=first ! e2eeopen ! decodebin ! fakesink";
        let Ok(receive) = gst::parse::bin_from_description(description, false) else { return };
        let Some(first) = receive.by_name("first").and_then(|queue| queue.static_pad("sink")) else { return };
        if let Ok(entry) = gst::GhostPad::with_target(&first)
            && receive.add_pad(&entry).is_ok()
            && pipeline.add(&receive).is_ok()
            && receive.sync_state_with_parent().is_ok()
            && pad.link(&entry).is_ok()
        {
            println!("receiving {}", pad.name());
        }
    });
    pipeline.set_state(gst::State::Playing)?;

    let time = Duration::from_secs(arguments[2].parse()?);
    if arguments.iter().any(|argument| argument == "--main-loop") {
        let main_loop = glib::MainLoop::new(None, false);
        glib::timeout_add_once(
            time,
            glib::clone!(
                #[strong]
                main_loop,
                move || main_loop.quit()
            ),
        );
        main_loop.run();
    } else if let Some(message) = pipeline
        .bus()
        .ok_or("no bus")?
        .timed_pop_filtered(gst::ClockTime::try_from(time)?, &[gst::MessageType::Error])
    {
        return Err(format!("{message:?}").into());
    }
    pipeline.set_state(gst::State::Null)?;
    Ok(())
}
