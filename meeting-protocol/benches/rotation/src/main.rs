//! A new key for everybody: CPU time of the leader's session, beside an MLS commit (RFC 9420) for as many members.
//!
//! Ours is a `Command::Rotate` of a real leader and all its output: the link signed and posted, a wrap for each
//! participant, every post sealed, the new keys derived. MLS is `mls-rs` over RustCrypto: an empty commit, which draws
//! new keys on the committer's path, made and applied. What it costs depends on the tree: *full* is the cheapest there
//! is, where every member has committed before; *blank* is the one after everybody was added at once.
//!
//! All take turns in one process, and the figure is the median of CPU times of one thread.

mod mls;
mod ours;

use std::io::Write;

use rustix::time::{ClockId, clock_gettime};

const SIZES: [usize; 3] = [50, 200, 1_000];
const ROUNDS: usize = 21;

fn main() {
    for size in SIZES {
        progress(&format!("{size} participants join a leader"));
        let mut leader = ours::leader_of(size);
        progress(&format!("{size} members of a full MLS tree add each other"));
        let mut full = mls::full_tree(size);
        let mut blank = mls::blank_tree(size);
        let mut times = [const { Vec::new() }; 3];
        let mut bytes = 0;
        for _ in 0..ROUNDS {
            times[0].push(cpu(|| bytes = ours::rotate(&mut leader)));
            times[1].push(cpu(|| mls::commit(&mut full)));
            times[2].push(cpu(|| mls::commit(&mut blank)));
        }
        let [ours, full, blank] = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[ROUNDS / 2]
        });
        progress("");
        println!(
            "{size} participants: {ours:.3} ms and {bytes} bytes of posts; MLS {full:.3} to {blank:.3} ms"
        );
        for (tree, theirs) in [("full", full), ("blank", blank)] {
            println!(
                "figure: a new key for {size} | {ours:.2} ms | commit of mls-rs, {tree} tree | {theirs:.2} ms | {:.3} | \
                 at most 0.1 | CPU time of the leader, of the committer",
                ours / theirs
            );
        }
    }
}

/// CPU time of this thread that `work` took, in ms.
fn cpu(work: impl FnOnce()) -> f64 {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
    };
    let start = now();
    work();
    now() - start
}

fn progress(text: &str) {
    eprint!("\r\x1b[K{text}");
    let _ = std::io::stderr().flush();
}
