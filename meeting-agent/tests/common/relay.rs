//! A relay inside the test.

#![allow(dead_code)]

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use meeting_agent::control::Request;
use meeting_relay::{Config, Relay as Program};
use tokio::runtime::Runtime;

/// Where it is; it has a runtime of its own, so that it can be taken away whole.
pub struct Relay {
    pub address: String,
    pub certificate: String,
    files: Option<(PathBuf, PathBuf)>,
    runtime: Option<Runtime>,
}

impl Relay {
    pub fn start(folder: &Path) -> Self {
        Self::stopped(None).started(folder)
    }

    /// With chain and key from these files.
    pub fn with_certificate(folder: &Path, files: (PathBuf, PathBuf)) -> Self {
        Self::stopped(Some(files)).started(folder)
    }

    fn stopped(files: Option<(PathBuf, PathBuf)>) -> Self {
        Self { address: "127.0.0.1:0".into(), certificate: String::new(), files, runtime: None }
    }

    fn started(mut self, folder: &Path) -> Self {
        self.restart(folder);
        self
    }

    /// Comes back at the same address, with the same certificate and an empty memory.
    pub fn restart(&mut self, folder: &Path) {
        self.stop();
        let runtime = Runtime::new().unwrap();
        let bind = || {
            let mut config = Config::development(folder.join("relay"));
            config.certificate = self.files.clone();
            config.listen = self.address.parse().unwrap();
            Program::bind(config)
        };
        let guard = runtime.enter();
        // somebody who called meanwhile may have got the port, and gives it back
        let end = Instant::now() + Duration::from_secs(20);
        let relay = loop {
            match bind() {
                Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
                bound => break bound.unwrap(),
            }
        };
        drop(guard);
        self.address = relay.local_addr().to_string();
        self.certificate = hex::encode(relay.certificate_hash());
        runtime.spawn(relay.run(std::future::pending()));
        self.runtime = Some(runtime);
    }

    /// Goes without a word.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // not in place: a test's own runtime forbids waiting
            std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(5))).join().unwrap();
        }
    }

    /// A request to open a meeting here.
    pub fn create(&self) -> Request {
        Request::Create {
            relay: self.address.clone(),
            certificate: Some(self.certificate.clone()),
            token: String::new(),
            name: None,
            successors: 0,
            guest: false,
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop();
    }
}
