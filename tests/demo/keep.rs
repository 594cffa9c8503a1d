//! `--keep`: the meeting goes on, and a person can join it.

use std::time::Duration;

use anyhow::Result;

use crate::{Arguments, show};

pub fn wait(show: &show::Show, arguments: &Arguments) -> Result<()> {
    let programs = show.stage.programs();
    let plugin = programs.plugin_path()?.canonicalize()?;
    let agent = programs.command("meeting-agent").get_program().to_string_lossy().into_owned();
    println!("The meeting goes on. To join it by hand, in other terminals:\n");
    println!("  {agent} run --socket /tmp/guest/agent.sock --state /tmp/guest/state --name Guest");
    println!("  export MEETING_AGENT_SOCKET=/tmp/guest/agent.sock GST_PLUGIN_PATH={}", plugin.display());
    println!("  {agent} join     # and paste the link: {}", show.link);
    println!("  gst-launch-1.0 meetingkey meetingsrc name=m \\");
    println!("    m.video_0 ! queue ! e2eeopen ! avdec_h264 ! videoconvert ! autovideosink \\");
    println!("    m.audio_0 ! queue ! e2eeopen ! opusdec ! audioconvert ! autoaudiosink\n");
    println!("  {agent} status    # what it looks like; Alice's own view:");
    println!("  MEETING_AGENT_SOCKET={} {agent} status\n", show.alice.socket().display());
    println!("Ctrl-C ends it.");
    let film = arguments.film.canonicalize()?;
    loop {
        let pipeline = show.stage.pipeline(&show.alice, &show::publishing(&film.to_string_lossy()))?;
        pipeline.wait(Duration::from_secs(60))?;
    }
}
