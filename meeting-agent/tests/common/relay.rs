//! A relay inside the test.

#![allow(dead_code)]

use std::path::Path;

use meeting_agent::control::Request;
use meeting_relay::{Config, Relay as Program};

/// Where it is; it stops with the test's runtime.
pub struct Relay {
    pub address: String,
    pub certificate: String,
}

impl Relay {
    pub fn start(folder: &Path) -> Self {
        let relay = Program::bind(Config::development(folder.join("relay"))).unwrap();
        let (address, certificate) = (relay.local_addr().to_string(), hex::encode(relay.certificate_hash()));
        tokio::spawn(relay.run(std::future::pending()));
        Self { address, certificate }
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
