//! A hostile relay: drops, delays, repeats, reorders, alters, withholds, forgets, while people come, go and change keys.

use meeting_protocol::{
    session::{Command, Successors},
    testing::Fate,
};

use crate::{CRYPTO, cursor::Cursor, invariants::Trio};

pub fn run(bytes: &[u8]) {
    let mut bytes = Cursor(bytes);
    let successors = match bytes.u8() % 4 {
        3 => Successors::FirstPresent(2),
        _ => Successors::Nobody,
    };
    let single = successors == Successors::Nobody;
    let mut trio = Trio::new(successors);
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        step(&mut trio, &mut bytes);
        let all: Vec<usize> = (0..trio.meeting.nodes.len()).collect();
        if CRYPTO {
            trio.check(&all);
            if single {
                trio.nobody_accused(&all);
            }
        } else {
            all.iter().for_each(|node| trio.bounded(*node));
        }
    }
    if CRYPTO {
        trio.meeting.audit();
    }
}

fn step(trio: &mut Trio, bytes: &mut Cursor<'_>) {
    let node = bytes.below(trio.meeting.nodes.len());
    let me = trio.meeting.nodes[node].session.me();
    match bytes.u8() % 18 {
        0 | 1 => trio.run(bytes.scaled(16)),
        2 => trio.run(bytes.scaled(9) * 250),
        3 => {
            trio.weather.borrow_mut().fate.insert(node, Fate::Drop);
        }
        4 => {
            let ms = bytes.u16().into();
            trio.weather.borrow_mut().fate.insert(node, Fate::Delay(ms));
        }
        5 => {
            trio.weather.borrow_mut().fate.remove(&node);
        }
        6 => trio.weather.borrow_mut().withheld = bytes.u8() % 4,
        7 | 8 => repeat(trio, node, bytes),
        9 => alter(trio, node, bytes),
        10 => trio.meeting.forget(),
        11 => trio.meeting.disconnect(node),
        12 => trio.meeting.connect(node),
        13 if trio.meeting.nodes.len() < 6 => {
            trio.meeting.join("Dave");
        }
        14 => {
            // What a person may not do is refused, which is no fault.
            let _ = trio.meeting.command(0, Command::Remove(me));
        }
        15 => {
            let command = match bytes.u8() % 5 {
                0 => Command::Lock(true),
                1 => Command::Lock(false),
                2 => Command::Approve(me),
                3 => Command::Successors(Successors::Nobody),
                _ => Command::Rotate,
            };
            let _ = trio.meeting.command(0, command);
        }
        16 if node > 0 => {
            let _ = trio.meeting.command(node, Command::Leave);
        }
        _ => {
            let _ = trio.meeting.command(0, Command::Rotate);
        }
    }
}

/// Old posts once more, newest or oldest first.
fn repeat(trio: &mut Trio, to: usize, bytes: &mut Cursor<'_>) {
    let end = trio.meeting.recorded.len();
    let first = end.saturating_sub(usize::from(bytes.u16()));
    let mut posts = trio.meeting.recorded[first..end.min(first + 16)].to_vec();
    if bytes.u8() % 2 == 1 {
        posts.reverse();
    }
    posts.into_iter().for_each(|post| trio.hand(to, post));
}

fn alter(trio: &mut Trio, to: usize, bytes: &mut Cursor<'_>) {
    let end = trio.meeting.recorded.len();
    let mut post = trio.meeting.recorded[end.saturating_sub(1 + usize::from(bytes.u8()))].clone();
    if bytes.u8().is_multiple_of(4) {
        post.from = trio.meeting.nodes[bytes.below(trio.meeting.nodes.len())].session.me();
    }
    let mut body = post.body.to_vec();
    bytes.mutate(&mut body);
    post.body = body.into();
    trio.hand(to, post);
}

const STEPS: usize = 48;
