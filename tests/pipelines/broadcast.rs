//! `pipelines/broadcast`: out of the meeting in clear, to players that know nothing of it.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rig::{Agent, Pipeline, Stage, media, screen, until};

use super::{Helper, Script, WHOLE, samples};

const GREEN: [u8; 3] = [0, 255, 0];

#[test]
fn one_person_goes_out_as_a_playlist_that_players_open() -> Result<()> {
    let stage = Stage::open()?;
    let (alice, carol) = with_a_gateway(&stage)?;
    let folder = stage.folder().join("public");
    let to = folder.to_str().context("a path")?;
    let mut broadcast = Script::start(&stage, Some(&carol), &["broadcast", "Alice", to], 440)?;
    broadcast.says("NOT encrypted")?;
    alice.until("a gateway", |status| {
        let people = status["people"].as_array();
        people.is_some_and(|people| people.iter().any(|person| person["role"] == "gateway"))
    })?;
    ensure!(fs::read_dir(&folder)?.next().is_none(), "it is said before the first frame goes out");

    let publish =
        publish(&stage, &alice, "x264enc tune=zerolatency key-int-max=30 ! video/x-h264,profile=baseline")?;
    let playlist = folder.join("live.m3u8");
    until("two segments", Duration::from_secs(60), || {
        ensure!(broadcast.child.try_wait()?.is_none(), "it has ended: {}", broadcast.said());
        let list = fs::read_to_string(&playlist).unwrap_or_default();
        Ok((list.matches("#EXTINF").count() >= 2).then_some(()))
    })?;
    publish.finish()?;
    let status = until("its end", Duration::from_secs(20), || Ok(broadcast.child.try_wait()?))?;
    ensure!(status.success() && broadcast.said().contains("Alice ("), "{}", broadcast.said());
    ensure!(fs::read_to_string(&playlist)?.contains("#EXT-X-ENDLIST"), "a player knows that it is over");

    let pictures = media::pictures(&playlist, 160, 90, usize::MAX)?;
    ensure!(pictures.len() >= 75, "{} pictures", pictures.len());
    ensure!(pictures.iter().all(|picture| screen::share(picture, WHOLE, GREEN) > 0.9));
    let sound = media::sound(&playlist)?;
    ensure!((media::pitch(&sound[sound.len() / 2..]) - 523.0).abs() < 3.0);
    let first = fs::read(folder.join("segment00000.ts"))?;
    let baseline = first.windows(5).any(|bytes| bytes == [0, 0, 1, 0x67, 66]);
    ensure!(baseline, "the pictures go out as their sender has encoded them");
    Ok(())
}

#[test]
fn another_codec_goes_to_an_rtmp_server_as_h264() -> Result<()> {
    let stage = Stage::open()?;
    let (alice, carol) = with_a_gateway(&stage)?;
    let server = RtmpServer::start(stage.folder())?;
    let mut broadcast = Script::start(&stage, Some(&carol), &["broadcast", "Alice", &server.url], 440)?;
    let _publish = publish(&stage, &alice, "vp8enc deadline=1 keyframe-max-dist=15")?;
    broadcast.says("goes out IN CLEAR to 127.0.0.1")?;
    let (seen, heard) = (stage.folder().join("seen"), stage.folder().join("heard"));
    // A player somewhere else, which needs nothing of ours.
    let player = format!(
        "rtmp2src location={} ! decodebin name=d \
         d. ! videoconvert ! videoscale ! video/x-raw,format=RGB,width=160,height=90 \
           ! filesink async=false location={} \
         d. ! audioconvert ! audioresample ! audio/x-raw,format=S16LE,rate=48000,channels=1 \
           ! filesink async=false location={}",
        server.url,
        seen.display(),
        heard.display()
    );
    let _player = Helper(
        Command::new("gst-launch-1.0")
            .arg("-q")
            .args(player.split_whitespace())
            .stdout(Stdio::null())
            .spawn()?,
    );
    until("what the player shows and plays", Duration::from_secs(40), || {
        ensure!(broadcast.child.try_wait()?.is_none(), "it has ended");
        let green =
            screen::last(&seen, 160, 90)?.is_some_and(|last| screen::share(&last, WHOLE, GREEN) > 0.9);
        let sound = samples(&heard).unwrap_or_default();
        let loud = sound.last_chunk::<48_000>().map(|second| (media::pitch(second) - 523.0).abs() < 3.0);
        Ok((green && loud == Some(true)).then_some(()))
    })
    .with_context(|| broadcast.said())?;
    ensure!(!broadcast.said().contains("secret-key"), "an address may hold a password: {}", broadcast.said());
    Ok(())
}

#[test]
fn nobody_goes_out_unseen_and_nothing_is_overwritten() -> Result<()> {
    let stage = Stage::open()?;
    let (alice, carol) = with_a_gateway(&stage)?;
    let there = stage.folder().to_str().context("a path")?;
    for (agent, to, told) in [(&alice, "elsewhere", "--role gateway"), (&carol, there, "name a new folder")] {
        let mut broadcast = Script::start(&stage, Some(agent), &["broadcast", "Alice", to], 440)?;
        let status = until("its end", Duration::from_secs(20), || Ok(broadcast.child.try_wait()?))?;
        ensure!(!status.success() && broadcast.said().contains(told), "{}", broadcast.said());
    }
    Ok(())
}

fn with_a_gateway(stage: &Stage) -> Result<(Agent, Agent)> {
    let (alice, carol) = (stage.agent("Alice")?, stage.agent("Carol")?);
    carol.run(&["join", "--role", "gateway", "-"], &alice.create(stage)?)?;
    Ok((alice, carol))
}

fn publish(stage: &Stage, agent: &Agent, encoder: &str) -> Result<Pipeline> {
    stage.pipeline(
        agent,
        &format!(
            "meetingkey meetingsink name=out videotestsrc is-live=true pattern=green \
             ! video/x-raw,format=I420,width=160,height=90,framerate=15/1 ! {encoder} ! e2eeseal track=camera ! out. \
             audiotestsrc is-live=true freq=523 volume=0.3 ! opusenc ! e2eeseal track=microphone ! out."
        ),
    )
}

/// nginx with its module for RTMP.
struct RtmpServer {
    url: String,
    _process: Helper,
}

impl RtmpServer {
    fn start(folder: &Path) -> Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let config = folder.join("nginx.conf");
        fs::write(
            &config,
            format!(
                "load_module /usr/lib/nginx/modules/ngx_rtmp_module.so; daemon off; master_process off; \
                 pid nginx.pid; error_log stderr; events {{}} \
                 rtmp {{ server {{ listen 127.0.0.1:{port}; application live {{ live on; }} }} }}"
            ),
        )?;
        let mut nginx = Command::new("nginx");
        nginx.args(["-e", "stderr", "-p"]).arg(folder).arg("-c").arg(&config).stderr(Stdio::null());
        let mut process = Helper(nginx.spawn().context("nginx")?);
        until("the RTMP server", Duration::from_secs(20), || {
            ensure!(process.0.try_wait()?.is_none(), "nginx has ended");
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok().map(drop))
        })?;
        Ok(Self { url: format!("rtmp://127.0.0.1:{port}/live/secret-key"), _process: process })
    }
}
