//! Arguments, log and signals; the rest is [`meeting_relay::Relay`].

mod cli;

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use meeting_relay::{Config, Log, Relay, Sockets, fence, privileges};
use sd_notify::NotifyState;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("meeting-relay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let cli::Cli { args, papers } = cli::Cli::parse();
    if let Some(papers) = papers {
        return Ok(papers.print()?);
    }
    if let Some(monitor) = args.check {
        println!("{}", runtime(1)?.block_on(meeting_relay::check_health(monitor))?);
        return Ok(());
    }
    let config = Config::load(args)?;
    log(config.log);
    let sockets = Sockets::open(&config)?;
    privileges::give_up(config.user.as_deref())?;
    if !fence::raise(&config)? {
        tracing::info!("this kernel has no Landlock: the relay could read whatever its user can");
    }
    runtime(config.threads)?.block_on(serve(sockets, config))
}

/// One thread carries a byte for about a fifth less than several do: `./benches` measures the one.
fn runtime(threads: usize) -> anyhow::Result<Runtime> {
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(threads).enable_all().build().context("starting threads")
}

async fn serve(sockets: Sockets, config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let shutdown = async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        tell_service_manager(NotifyState::Stopping);
    };
    let relay = Relay::on(sockets, config)?;
    privileges::warn_of_root();
    let renewal = relay.renewal();
    let mut hangup = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            renewal.notify_one();
        }
    });
    // Its socket is open: who connects from now on is served.
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

fn log(form: Log) {
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")))
        .with_writer(std::io::stderr);
    match form {
        Log::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        Log::Json => log.json().flatten_event(true).init(),
    }
}
