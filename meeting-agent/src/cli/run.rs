//! `meeting-agent run`: the daemon.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::{Agent, Config, config, fence, hygiene};

#[derive(Debug, Args)]
pub struct Run {
    /// Directory of the device key [default: below $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// How others see you, unless `create` or `join` say otherwise [default: $USER]
    #[arg(long)]
    name: Option<String>,
    /// Lets pipelines of this group's members use the agent; commands stay its own user's and root's
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
}

impl Run {
    pub fn run(self, socket: PathBuf) -> anyhow::Result<ExitCode> {
        hygiene::protect()?;
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr)
            .init();
        if secret_memory::protection() == secret_memory::Protection::Unlocked {
            tracing::warn!("no memory can be locked (`ulimit -l`): keys may get into the swap");
        }
        let state = config::state_path(self.state, |name| std::env::var_os(name)).context(
            "neither $XDG_STATE_HOME nor $HOME says where to keep the device key: give `--state DIR`",
        )?;
        let name = self.name.or_else(|| std::env::var("USER").ok()).unwrap_or_else(|| "somebody".into());
        let group = self.group.as_deref().map(group_id).transpose()?;
        let config = Config { group, ..Config::new(socket, state, name) };
        let agent = Agent::bind(config.clone())?;
        // From here on only its own files are of use to it, and there is one thread still.
        hygiene::give_up_privileges()?;
        if !fence::raise(&config)? {
            tracing::info!("this kernel has no Landlock: the agent could read whatever its user can");
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            let shutdown = async move {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
                tell_service_manager(NotifyState::Stopping);
            };
            let mut hangup = signal(SignalKind::hangup())?;
            tokio::spawn(async move {
                while hangup.recv().await.is_some() {
                    tracing::info!("the terminal is gone; the meetings go on until SIGTERM");
                }
            });
            tell_service_manager(NotifyState::Ready);
            agent.run(shutdown).await?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

fn group_id(name: &str) -> anyhow::Result<u32> {
    let group = nix::unistd::Group::from_name(name).context("cannot read the list of groups")?;
    let group = group.with_context(|| format!("there is no group {name:?}: `getent group` lists them"))?;
    Ok(group.gid.as_raw())
}

/// For `Type=notify` units; without a service manager nothing is said.
fn tell_service_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager does not listen");
    }
}
