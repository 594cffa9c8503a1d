//! Arguments, log and signals; the rest is [`meeting_relay::Relay`].

mod cli;

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use meeting_relay::{Config, Relay};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("meeting-relay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let cli::Cli { args, papers } = cli::Cli::parse();
    if let Some(papers) = papers {
        return Ok(papers.print()?);
    }
    if let Some(monitor) = args.check {
        println!("{}", meeting_relay::check_health(monitor).await?);
        return Ok(());
    }
    let config = Config::load(args)?;
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();

    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let shutdown = async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        tell_service_manager(NotifyState::Stopping);
    };
    let relay = Relay::bind(config)?;
    tell_service_manager(NotifyState::Ready);
    relay.run(shutdown).await?;
    Ok(())
}

/// For `Type=notify` units; without a service manager nothing is said.
fn tell_service_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager does not listen");
    }
}
