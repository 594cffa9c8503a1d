//! What `meson install` and the packages put on a machine works there, and goes again.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, ensure};

/// The highest exposure that a service may have; 0 is none, 10 is all.
const EXPOSURE: f64 = 2.0;

#[test]
fn everything_is_where_debian_looks_and_nothing_else() -> Result<()> {
    let tree = tree()?;
    let mut expected: Vec<String> = EXPECTED.lines().map(str::to_owned).collect();
    for command in commands()? {
        expected.push(format!("644 usr/share/man/man1/meeting-agent-{command}.1"));
    }
    expected.sort();
    let mut found = Vec::new();
    list(tree, tree, &mut found)?;
    found.sort();
    assert_eq!(found, expected);
    Ok(())
}

#[test]
fn gstreamer_finds_the_installed_plugin() -> Result<()> {
    let tree = tree()?;
    for element in
        ["e2eeseal", "e2eeopen", "meetingkey", "meetingsink", "meetingsrc", "rtpsframepay", "rtpsframedepay"]
    {
        let said = shown(gst(Command::new("gst-inspect-1.0").arg(element), tree)?)?;
        ensure!(said.contains(&format!("{}", plugins(tree)?.join("libgste2ee.so").display())), "{said}");
    }
    Ok(())
}

#[test]
fn every_manual_page_is_set_without_a_warning() -> Result<()> {
    let pages = tree()?.join("usr/share/man");
    for page in fs::read_dir(pages.join("man1"))?.chain(fs::read_dir(pages.join("man7"))?) {
        let output = Command::new("man")
            .args(["--warnings=w", "--local-file"])
            .arg(page?.path())
            .env("LC_ALL", "C.UTF-8")
            .output()?;
        let warnings = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && warnings.is_empty() && output.stdout.len() > 300, "{warnings}");
    }
    Ok(())
}

#[test]
fn a_tab_completes_commands_in_bash_and_fish_and_zsh_can_read_them() -> Result<()> {
    let share = tree()?.join("usr/share");
    for (program, typed, completed) in
        [("meeting-agent", "appr", "approve"), ("meeting-relay", "--mon", "--monitor")]
    {
        // As bash itself does it: the function that the file has registered, with the words so far.
        let bash = format!(
            ". {}/bash-completion/completions/{program}.bash; \
             function=$(complete -p {program} | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
             COMP_WORDS=({program} {typed}); COMP_CWORD=1; $function {program} {typed} {program}; \
             echo ${{COMPREPLY[@]}}",
            share.display()
        );
        assert_eq!(shown(Command::new("bash").args(["-c", &bash]))?.trim(), completed);
        let fish = format!(
            ". {}/fish/vendor_completions.d/{program}.fish; complete -C '{program} {typed}'",
            share.display()
        );
        let said = shown(Command::new("fish").args(["--no-config", "-c", &fish]))?;
        ensure!(said.starts_with(completed), "{said}");
        shown(Command::new("zsh").arg("-n").arg(share.join(format!("zsh/vendor-completions/_{program}"))))?;
    }
    Ok(())
}

#[test]
fn units_verify_and_expose_little() -> Result<()> {
    let tree = tree()?;
    let folder = tempfile::tempdir()?;
    let readme = fs::read_to_string(root().join("meeting-agent/README.md"))?;
    let of_the_readme = readme
        .split("```\n")
        .find(|block| block.starts_with("[Service]"))
        .context("meeting-agent/README.md shows no unit")?;
    let system = tree.join("lib/systemd/system");
    for (name, text) in [
        ("meeting-relay.service", fs::read_to_string(system.join("meeting-relay.service"))?),
        ("meeting-agent@video.service", fs::read_to_string(system.join("meeting-agent@.service"))?),
        ("of-the-readme.service", of_the_readme.to_owned()),
        (
            "meeting-agent.service",
            fs::read_to_string(tree.join("usr/lib/systemd/user/meeting-agent.service"))?,
        ),
    ] {
        let unit = folder.path().join(name);
        fs::write(&unit, text.replace("=/usr/bin/", &format!("={}/usr/bin/", tree.display())))?;
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no"]).arg(&unit).env("XDG_RUNTIME_DIR", folder.path());
        if name == "meeting-agent.service" {
            verify.arg("--user");
        }
        let output = verify.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && !said.contains(name), "{name}: {said}");
        if text.contains("DynamicUser") {
            let said = shown(
                Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager"]).arg(&unit),
            )?;
            let level =
                said.rsplit("exposure level for ").next().and_then(|line| line.split_whitespace().nth(1));
            let level: f64 = level.context("no figure")?.parse()?;
            ensure!(level <= EXPOSURE, "{name}: {level}");
        }
    }
    Ok(())
}

#[test]
fn installing_again_copies_without_cargo_and_keeps_the_settings() -> Result<()> {
    tree()?;
    let other = tempfile::tempdir()?;
    let settings = other.path().join("etc/gst-e2ee/relay.toml");
    fs::create_dir_all(settings.parent().context("a folder")?)?;
    fs::write(&settings, "listen = '127.0.0.1:1'\n")?;
    let built = build().join("install/meeting-agent");
    let before = fs::metadata(&built)?.modified()?;
    // Debian's own folders: cargo of rustup is in none of them.
    shown(
        Command::new("meson")
            .args(["install", "--quiet", "-C"])
            .arg(build())
            .env("DESTDIR", other.path())
            .env("PATH", "/usr/bin:/bin"),
    )?;
    assert_eq!(fs::read_to_string(&settings)?, "listen = '127.0.0.1:1'\n");
    assert_eq!(fs::metadata(&built)?.modified()?, before, "it was built anew");
    ensure!(other.path().join("usr/bin/meeting-relay").is_file());
    Ok(())
}

#[test]
fn a_meeting_runs_from_the_installed_tree_alone() -> Result<()> {
    let tree = tree()?;
    let mut meeting = Command::new(root().join("tests/installed/meeting"));
    let said = shown(gst(meeting.arg(tree.join("usr")), tree)?)?;
    ensure!(said.contains("Bob saw 30 red pictures"), "{said}");
    Ok(())
}

#[test]
fn debian_packages_install_meet_and_leave_nothing() -> Result<()> {
    tree()?;
    let folder = scratch("packages");
    fs::create_dir_all(&folder)?;
    let record = folder.join("gst-e2ee.buildinfo");
    let into = folder.display();
    let output = from_a_shell("dpkg-buildpackage")
        .args(["-b", "-us", "-uc", "-d"])
        .arg(format!("--buildinfo-option=-u{into}"))
        .arg(format!("--buildinfo-file={}", record.display()))
        .arg(format!("--changes-option=-u{into}"))
        .arg(format!("--changes-file={into}/gst-e2ee.changes"))
        .current_dir(root())
        .env("DESTINATION", &folder)
        .env("CARGO_ARGUMENTS", cargo_arguments())
        .env("DEB_BUILD_OPTIONS", "noopt nostrip noautodbgsym")
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut machine = Command::new(root().join("tests/installed/machine"));
    machine.arg("300").arg(root().join("tests/installed/packages").canonicalize()?).arg(&folder);
    let said = shown(&mut machine)?;
    ensure!(said.contains("removed, and nothing left"), "{said}");
    Ok(())
}

/// The tree that `meson install` makes of this build, once for all tests.
fn tree() -> Result<&'static Path> {
    static TREE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match TREE.get_or_init(|| install().map_err(|error| format!("{error:#}"))) {
        Ok(tree) => Ok(tree),
        Err(error) => anyhow::bail!("{error}"),
    }
}

fn install() -> Result<PathBuf> {
    let tree = scratch("installed");
    for folder in [&tree, &build()] {
        fs::remove_dir_all(folder).or_else(|error| if folder.exists() { Err(error) } else { Ok(()) })?;
    }
    shown(
        from_a_shell("meson")
            .arg("setup")
            .arg(build())
            .arg(root())
            .args(["--prefix=/usr", "-Dbuildtype=debug"])
            .arg(format!("-Dcargo-args={}", cargo_arguments())),
    )?;
    shown(from_a_shell("meson").args(["install", "-C"]).arg(build()).env("DESTDIR", &tree))?;
    Ok(tree)
}

/// As from a shell: what cargo sets for tests would have it build anew what looks at that.
fn from_a_shell(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let of_tests = ["CARGO_MANIFEST_", "CARGO_PKG_"];
        if of_tests.iter().any(|start| name.to_string_lossy().starts_with(start)) {
            command.env_remove(name);
        }
    }
    command
}

/// What `tests/run` has built, so that cargo has nothing to do.
fn cargo_arguments() -> &'static str {
    if cfg!(feature = "ledger") {
        "--workspace,--lib,--bins,--tests,--examples,--features,meeting-tests/ledger"
    } else {
        "--workspace,--lib,--bins,--tests,--examples"
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn build() -> PathBuf {
    scratch("meson")
}

/// Where the plugin is in the tree.
fn plugins(tree: &Path) -> Result<PathBuf> {
    let folder = shown(Command::new("pkg-config").args(["--variable=pluginsdir", "gstreamer-1.0"]))?;
    Ok(tree.join(folder.trim().trim_start_matches('/')))
}

/// With GStreamer's own plugins and the installed one.
fn gst<'a>(command: &'a mut Command, tree: &Path) -> Result<&'a mut Command> {
    Ok(command.env("GST_PLUGIN_PATH", plugins(tree)?).env("GST_REGISTRY", scratch("registry")))
}

/// The agent's commands, as its help lists them.
fn commands() -> Result<Vec<String>> {
    let help = shown(Command::new(tree()?.join("usr/bin/meeting-agent")).arg("--help"))?;
    let commands = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next());
    let names = commands
        .context("the help lists no commands")?
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    Ok(names.filter(|name| *name != "help").map(str::to_owned).collect())
}

fn shown(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

/// Modes and paths of all files below a folder.
fn list(top: &Path, folder: &Path, into: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(top, &entry.path(), into)?;
        } else {
            let path = entry.path();
            let path = path.strip_prefix(top)?.display().to_string();
            // The folder of the machine's architecture.
            let path = path.replace(&format!("{}-linux-gnu", env::consts::ARCH), "ARCH");
            into.push(format!("{:o} {path}", entry.metadata()?.permissions().mode() & 0o7777));
        }
    }
    Ok(())
}

const EXPECTED: &str = "\
600 etc/gst-e2ee/relay.toml
644 lib/systemd/system/meeting-agent@.service
644 lib/systemd/system/meeting-relay.service
755 usr/bin/meeting-agent
755 usr/bin/meeting-relay
644 usr/lib/systemd/user/meeting-agent.service
644 usr/lib/ARCH/gstreamer-1.0/libgste2ee.so
644 usr/share/bash-completion/completions/meeting-agent.bash
644 usr/share/bash-completion/completions/meeting-relay.bash
644 usr/share/doc/gst-e2ee/ARCHITECTURE.md
644 usr/share/doc/gst-e2ee/CHANGELOG.md
644 usr/share/doc/gst-e2ee/PROTOCOL.md
644 usr/share/doc/gst-e2ee/README.md
644 usr/share/doc/gst-e2ee/SECURITY.md
644 usr/share/doc/gst-e2ee/docs/attacks.md
644 usr/share/doc/gst-e2ee/docs/figures.md
644 usr/share/fish/vendor_completions.d/meeting-agent.fish
644 usr/share/fish/vendor_completions.d/meeting-relay.fish
644 usr/share/gst-e2ee/pipelines/agent.py
755 usr/share/gst-e2ee/pipelines/audio-only
755 usr/share/gst-e2ee/pipelines/broadcast
644 usr/share/gst-e2ee/pipelines/broadcast.py
755 usr/share/gst-e2ee/pipelines/caption
644 usr/share/gst-e2ee/pipelines/caption.py
644 usr/share/gst-e2ee/pipelines/captions.py
644 usr/share/gst-e2ee/pipelines/common.sh
755 usr/share/gst-e2ee/pipelines/listen
755 usr/share/gst-e2ee/pipelines/loopback
755 usr/share/gst-e2ee/pipelines/publish-camera
755 usr/share/gst-e2ee/pipelines/publish-file
755 usr/share/gst-e2ee/pipelines/publish-rtsp
755 usr/share/gst-e2ee/pipelines/publish-screen
755 usr/share/gst-e2ee/pipelines/record
755 usr/share/gst-e2ee/pipelines/record-sealed
644 usr/share/gst-e2ee/pipelines/record.py
644 usr/share/gst-e2ee/pipelines/record_sealed.py
644 usr/share/gst-e2ee/pipelines/shield.py
644 usr/share/gst-e2ee/pipelines/shield.svg
755 usr/share/gst-e2ee/pipelines/watch
644 usr/share/gst-e2ee/pipelines/wall.py
755 usr/share/gst-e2ee/pipelines/watch-all
755 usr/share/gst-e2ee/pipelines/watch-wall
644 usr/share/gst-e2ee/pipelines/watch.py
644 usr/share/man/man1/meeting-agent.1
644 usr/share/man/man1/meeting-relay.1
644 usr/share/man/man7/gst-e2ee.7
644 usr/share/zsh/vendor-completions/_meeting-agent
644 usr/share/zsh/vendor-completions/_meeting-relay";
