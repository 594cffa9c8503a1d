//! `meeting-agent run`: the daemon.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::{Agent, Config, config, hygiene};

#[derive(Debug, Args)]
pub struct Run {
    /// Directory of the device key [default: below $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// How others see you, unless `create` or `join` say otherwise [default: $USER]
    #[arg(long)]
    name: Option<String>,
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
        let state = config::state_path(self.state, |name| std::env::var_os(name)).context(
            "neither $XDG_STATE_HOME nor $HOME says where to keep the device key: give `--state DIR`",
        )?;
        let name = self.name.or_else(|| std::env::var("USER").ok()).unwrap_or_else(|| "somebody".into());
        let config = Config::new(socket, state, name);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            let shutdown = async move {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
            };
            Agent::bind(config)?.run(shutdown).await?;
            Ok(ExitCode::SUCCESS)
        })
    }
}
