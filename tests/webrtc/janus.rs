//! Debian's Janus with its video room, spoken to over its Unix socket.

use std::{
    env, fs,
    os::unix::net::UnixDatagram,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rig::until;
use serde_json::{Value, json};

use crate::PATIENCE;

/// The one address of [`in_a_network_of_its_own`], from those that are kept for examples.
pub const NETWORK: &str = "198.51.100.1";

/// Runs this test once more where Janus has an address: it has no candidates on the loopback.
pub fn in_a_network_of_its_own(test: &str, inside: impl FnOnce() -> Result<()>) -> Result<()> {
    const INSIDE: &str = "TEST_IN_A_NETWORK_OF_ITS_OWN";
    if env::var_os(INSIDE).is_some() {
        return inside();
    }
    let network = format!(
        "ip link set lo up && ip link add call0 type veth peer name call1 && ip address add {NETWORK}/24 dev call0 && \
         ip link set call0 up && ip link set call1 up && exec \"$@\""
    );
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", &network, "sh"])
        .arg(env::current_exe()?)
        .args(["--exact", "--nocapture", test])
        .env(INSIDE, "yes")
        .output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    print!("{said}");
    ensure!(output.status.success() && said.contains("1 passed"), "{said}");
    Ok(())
}

pub struct Janus {
    child: Child,
    folder: tempfile::TempDir,
    socket: UnixDatagram,
}

impl Janus {
    pub fn start() -> Result<Self> {
        // The thread of its socket sometimes ends before it has begun, and Janus mostly with it.
        for _ in 0..20 {
            let mut janus = Self::spawn()?;
            let runs = until("Janus, or its end", PATIENCE, || {
                let ended =
                    janus.child.try_wait()?.is_some() || janus.log().contains("Unix Sockets thread ended");
                Ok((ended || janus.answers()).then_some(!ended))
            })?;
            if runs {
                return Ok(janus);
            }
        }
        bail!("Janus does not start")
    }

    fn spawn() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().display();
        let config = format!(
            "general: {{\n configs_folder = \"{path}\"\n plugins_folder = \"{path}/plugins\"\n \
             transports_folder = \"{path}/transports\"\n debug_colors = false\n}}\n\
             nat: {{\n ice_enforce_list = \"{NETWORK}\"\n}}\nmedia: {{\n ipv6 = false\n}}\n"
        );
        fs::write(folder.path().join("janus.jcfg"), config)?;
        let socket =
            format!("general: {{\n enabled = true\n path = \"{path}/api\"\n type = \"SOCK_DGRAM\"\n}}\n");
        fs::write(folder.path().join("janus.transport.pfunix.jcfg"), socket)?;
        // Of its many parts two are enough.
        let library = format!("/usr/lib/{}-linux-gnu/janus", env::consts::ARCH);
        for (kind, part) in [("plugins", "libjanus_videoroom.so"), ("transports", "libjanus_pfunix.so")] {
            fs::create_dir(folder.path().join(kind))?;
            std::os::unix::fs::symlink(
                format!("{library}/{kind}/{part}"),
                folder.path().join(kind).join(part),
            )?;
        }
        let log = fs::File::create(folder.path().join("log"))?;
        let child = Command::new("janus")
            .arg(format!("--configs-folder={path}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("no janus: tests/setup installs it")?;
        let socket = UnixDatagram::bind(folder.path().join("me"))?;
        Ok(Self { child, folder, socket })
    }

    fn answers(&self) -> bool {
        let ping = json!({ "janus": "ping", "transaction": "ping" }).to_string();
        let asked = self.socket.connect(self.folder.path().join("api")).and_then(|()| {
            self.socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            self.socket.send(ping.as_bytes())
        });
        asked.is_ok() && self.socket.recv(&mut [0; 1_000]).is_ok()
    }

    /// A new video room.
    pub fn room(&self) -> Result<Room<'_>> {
        self.socket.set_read_timeout(Some(PATIENCE))?;
        let mut room = Room { janus: self, session: 0, owner: 0 };
        room.session = id(&room.ask(json!({ "janus": "create" }), "success")?)?;
        room.owner = room.attach()?;
        let room_of_two =
            json!({ "request": "create", "room": ROOM, "videocodec": "h264", "audiocodec": "opus" });
        room.say(room.owner, room_of_two, None)?;
        Ok(room)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Janus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const ROOM: u64 = 1;

/// A session with a video room.
pub struct Room<'a> {
    janus: &'a Janus,
    session: u64,
    owner: u64,
}

impl Room<'_> {
    /// Publishes what the offer has, and gives the number of the feed and the answer.
    pub fn publish(&self, offer: &str) -> Result<(u64, String)> {
        let request = json!({ "request": "joinandconfigure", "ptype": "publisher", "room": ROOM });
        let reply = self.say(self.owner, request, Some(json!({ "type": "offer", "sdp": offer })))?;
        let feed = reply["plugindata"]["data"]["id"].as_u64().with_context(|| reply.to_string())?;
        Ok((feed, sdp(&reply)?))
    }

    /// Waits until what is published arrives.
    pub fn until_up(&self) -> Result<()> {
        self.hear(|said| said["janus"] == "webrtcup").map(drop)
    }

    /// Watches a feed, and gives who watches and the offer.
    pub fn subscribe(&self, feed: u64) -> Result<(u64, String)> {
        let handle = self.attach()?;
        let request =
            json!({ "request": "join", "ptype": "subscriber", "room": ROOM, "streams": [{ "feed": feed }] });
        let reply = self.say(handle, request, None)?;
        Ok((handle, sdp(&reply)?))
    }

    /// Sends to who watches.
    pub fn start(&self, handle: u64, answer: &str) -> Result<()> {
        let answer = json!({ "type": "answer", "sdp": answer });
        self.say(handle, json!({ "request": "start", "room": ROOM }), Some(answer))?;
        Ok(())
    }

    fn attach(&self) -> Result<u64> {
        id(&self.ask(json!({ "janus": "attach", "plugin": "janus.plugin.videoroom" }), "success")?)
    }

    fn say(&self, handle: u64, body: Value, jsep: Option<Value>) -> Result<Value> {
        let at_once = body["request"] == "create";
        let mut message = json!({ "janus": "message", "handle_id": handle, "body": body });
        if let Some(jsep) = jsep {
            message["jsep"] = jsep;
        }
        let reply = self.ask(message, if at_once { "success" } else { "event" })?;
        ensure!(reply["plugindata"]["data"]["error"].is_null(), "{reply}");
        Ok(reply)
    }

    /// Sends a request and gives the reply of this kind to it, past acknowledgements and news.
    fn ask(&self, mut request: Value, kind: &str) -> Result<Value> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let transaction = NUMBER.fetch_add(1, Ordering::Relaxed).to_string();
        request["transaction"] = transaction.as_str().into();
        if self.session != 0 {
            request["session_id"] = self.session.into();
        }
        self.janus.socket.send(request.to_string().as_bytes())?;
        let reply = self.hear(|said| {
            let said_of_it = said["transaction"] == transaction.as_str();
            said_of_it && (said["janus"] == kind || said["janus"] == "error")
        })?;
        ensure!(reply["janus"] == kind, "{request}: {reply}");
        Ok(reply)
    }

    /// What Janus says next that is `wanted`.
    fn hear(&self, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        let mut datagram = vec![0; 65_536];
        while Instant::now() < deadline {
            let len = self.janus.socket.recv(&mut datagram).with_context(|| self.janus.log())?;
            let said = serde_json::from_slice(&datagram[..len])?;
            if wanted(&said) {
                return Ok(said);
            }
        }
        bail!("Janus does not say what was waited for:\n{}", self.janus.log())
    }
}

fn id(reply: &Value) -> Result<u64> {
    reply["data"]["id"].as_u64().with_context(|| reply.to_string())
}

fn sdp(reply: &Value) -> Result<String> {
    Ok(reply["jsep"]["sdp"].as_str().with_context(|| reply.to_string())?.to_owned())
}
