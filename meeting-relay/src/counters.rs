//! What the relay counts: events and bytes, never contents.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($(#[doc = $doc:literal] $name:ident $prometheus:literal),* $(,)?) => {
        /// Counts since the start, by name.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(#[doc = $doc] pub $name: Count,)*
        }

        impl Counters {
            /// One `name value` per line.
            pub fn to_text(&self) -> String {
                let mut text = String::new();
                $(let _ = writeln!(text, concat!(stringify!($name), " {}"), self.$name.value());)*
                text
            }

            /// The Prometheus text format, version 0.0.4.
            pub fn to_prometheus(&self) -> String {
                let mut text = String::new();
                $(sample(&mut text, $prometheus, "counter", $doc.trim(), self.$name.value());)*
                text
            }
        }
    };
}

/// One metric without labels in the Prometheus text format.
pub fn sample(text: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    let name = format!("meeting_relay_{name}");
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
}

counters! {
    /// Connections that finished their handshake.
    connections "connections_total",
    /// Connections closed before their hello to make room for newer ones.
    crowded_out "crowded_out_total",
    /// Hellos that were answered with a refusal.
    refused "refused_total",
    /// Newcomers, posts and records that there was no memory for.
    short_of_memory "short_of_memory_total",
    /// Connections ended for what they sent.
    misbehaved "misbehaved_total",
    /// Posts taken from agents.
    posts "posts_total",
    /// Posts to one agent that were dropped because too much waits for it.
    posts_dropped "posts_dropped_total",
    /// Records and datagrams taken from agents.
    frames_in "frames_in_total",
    /// Records and datagrams handed to subscribers' connections.
    frames_out "frames_out_total",
    /// Records not sent to a subscriber because they, or something before them, came too late.
    frames_dropped_late "frames_dropped_late_total",
    /// Records not sent to a subscriber because its queue was full, or not taken because too much came at one time.
    frames_dropped_full "frames_dropped_full_total",
    /// Records and datagrams of streams that are not published.
    frames_unrouted "frames_unrouted_total",
    /// Media bytes taken from agents.
    bytes_in "media_in_bytes_total",
    /// Media bytes handed to subscribers' connections.
    bytes_out "media_out_bytes_total",
}

/// One counter.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Counts one.
    pub fn one(&self) {
        self.add(1);
    }

    /// Counts `n`.
    pub fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }

    /// Counts one and gives the count.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The count so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_a_name_and_a_value_per_line() {
        let counters = Counters::default();
        counters.frames_in.add(3);
        counters.posts.one();
        let text = counters.to_text();
        assert!(
            text.contains("frames_in 3\n") && text.contains("posts 1\n") && text.contains("bytes_out 0\n")
        );
        assert!(text.lines().all(|line| line.split(' ').count() == 2));
    }
}
