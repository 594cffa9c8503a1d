//! The board: posts of one meeting, opaque and bounded. Pure: no clock, no socket.
//!
//! Log posts have one order for all and stay until newer ones push them out; a cell holds its author's newest
//! post only. Nothing here survives the meeting.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use meeting_wire::{NEWCOMER, ParticipantId, Post, Slot};

use crate::limits;

/// The posts of one meeting.
#[derive(Debug)]
pub struct Board {
    newest: u64,
    log: VecDeque<Post>,
    log_bytes: usize,
    cells: HashMap<ParticipantId, Cell>,
    cell_bytes: usize,
    cell_writes: u64,
}

#[derive(Debug)]
struct Cell {
    written: u64,
    body: Bytes,
}

impl Board {
    /// An empty board whose first log post gets the number `base + 1`. A `base` above all numbers that an
    /// earlier board of the meeting gave makes an agent's "since" from there mean "everything".
    pub fn new(base: u64) -> Self {
        Self {
            newest: base,
            log: VecDeque::new(),
            log_bytes: 0,
            cells: HashMap::new(),
            cell_bytes: 0,
            cell_writes: 0,
        }
    }

    /// Appends to the log and returns the post with its number; the oldest posts make room.
    pub fn append(&mut self, from: ParticipantId, body: Bytes) -> Post {
        self.newest += 1;
        let post = Post { seq: self.newest, from, slot: Slot::Log, body };
        self.log_bytes += post.body.len();
        self.log.push_back(post.clone());
        while self.log.len() > limits::LOG_POSTS || self.log_bytes > limits::LOG_BYTES {
            self.forget_post();
        }
        post
    }

    /// Forgets the oldest log post or, where there is none, the longest unwritten cell: first of those who are not `here`,
    /// and never that of `but`. False when nothing is left.
    pub fn forget_oldest(&mut self, but: ParticipantId, here: impl Fn(&ParticipantId) -> bool) -> bool {
        if self.forget_post() {
            return true;
        }
        let others = self.cells.iter().filter(|(author, _)| **author != but);
        let oldest = others.min_by_key(|(author, cell)| (here(author), cell.written));
        let oldest = oldest.map(|(author, _)| *author);
        oldest.inspect(|author| self.clear_cell(*author)).is_some()
    }

    fn forget_post(&mut self) -> bool {
        let oldest = self.log.pop_front();
        self.log_bytes -= oldest.as_ref().map_or(0, |oldest| oldest.body.len());
        oldest.is_some()
    }

    /// Replaces the author's cell; the longest unwritten cells make room.
    pub fn set_cell(&mut self, from: ParticipantId, body: Bytes) -> Post {
        self.clear_cell(from);
        self.cell_writes += 1;
        self.cell_bytes += body.len();
        self.cells.insert(from, Cell { written: self.cell_writes, body: body.clone() });
        while self.cells.len() > limits::CELLS || self.cell_bytes > limits::CELL_BYTES {
            let oldest = self.cells.iter().min_by_key(|(_, cell)| cell.written).map(|(author, _)| *author);
            match oldest {
                Some(author) => self.clear_cell(author),
                None => break,
            }
        }
        Post { seq: 0, from, slot: Slot::Cell, body }
    }

    /// Empties the author's cell.
    pub fn clear_cell(&mut self, author: ParticipantId) {
        if let Some(cell) = self.cells.remove(&author) {
            self.cell_bytes -= cell.body.len();
        }
    }

    /// What a new connection has to read: the cells, then the log after `since`, in order. [`NEWCOMER`] wants no log: it
    /// is told all it needs when it is let in. Any other `since` that this board has not reached comes from another
    /// board and means everything.
    pub fn replay(&self, since: u64) -> impl Iterator<Item = Post> {
        let since = if since > self.newest && since != NEWCOMER { 0 } else { since };
        let start = self.log.partition_point(|post| post.seq <= since);
        let cells = self.cells.iter().map(|(author, cell)| Post {
            seq: 0,
            from: *author,
            slot: Slot::Cell,
            body: cell.body.clone(),
        });
        cells.chain(self.log.range(start..).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: ParticipantId = ParticipantId([0xa; 16]);
    const BOB: ParticipantId = ParticipantId([0xb; 16]);

    fn numbers(board: &Board, since: u64) -> Vec<u64> {
        board.replay(since).map(|post| post.seq).filter(|seq| *seq != 0).collect()
    }

    fn author(n: usize) -> ParticipantId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        ParticipantId(id)
    }

    #[test]
    fn replay_gives_what_came_after() {
        let mut board = Board::new(100);
        for _ in 0..3 {
            board.append(ALICE, Bytes::from_static(b"post"));
        }
        assert_eq!(numbers(&board, 0), [101, 102, 103]);
        assert_eq!(numbers(&board, 102), [103]);
        assert_eq!(numbers(&board, 103), [0; 0]);
        assert_eq!(numbers(&board, 7), [101, 102, 103], "a number of an earlier board");
        assert_eq!(numbers(&board, 104), [101, 102, 103], "a number of a board that got further");
        assert_eq!(numbers(&board, NEWCOMER), [0; 0]);
    }

    #[test]
    fn the_log_keeps_the_newest_posts() {
        let mut board = Board::new(0);
        for _ in 0..limits::LOG_POSTS + 10 {
            board.append(ALICE, Bytes::new());
        }
        let kept = numbers(&board, 0);
        assert_eq!(kept.len(), limits::LOG_POSTS);
        assert_eq!(kept[0], 11);
    }

    #[test]
    fn the_log_is_bounded_in_bytes() {
        let mut board = Board::new(0);
        let large = Bytes::from(vec![0; meeting_wire::MAX_POST]);
        for _ in 0..100 {
            board.append(ALICE, large.clone());
            assert!(board.log_bytes <= limits::LOG_BYTES);
        }
        assert_eq!(numbers(&board, 0).len(), limits::LOG_BYTES / meeting_wire::MAX_POST);
        assert_eq!(numbers(&board, 0).last(), Some(&100));
    }

    #[test]
    fn the_log_may_be_forgotten_post_by_post() {
        let mut board = Board::new(0);
        board.append(ALICE, Bytes::from_static(b"one"));
        board.append(BOB, Bytes::from_static(b"two"));
        assert!(board.forget_oldest(ALICE, |_| true));
        assert_eq!((numbers(&board, 0), board.log_bytes), (vec![2], 3));
        assert!(board.forget_oldest(ALICE, |_| true) && !board.forget_oldest(ALICE, |_| true));
        assert_eq!(board.log_bytes, 0);
    }

    #[test]
    fn cells_give_way_once_there_is_no_log_those_of_the_absent_first() {
        let mut board = Board::new(0);
        for author in [ALICE, author(1), BOB, author(2)] {
            board.set_cell(author, Bytes::from_static(b"cell"));
        }
        board.append(BOB, Bytes::from_static(b"post"));
        let mut forget = || {
            let more = board.forget_oldest(ALICE, |author| [ALICE, BOB].contains(author));
            let mut left: Vec<_> = board.replay(0).map(|post| post.from).collect();
            left.sort();
            (more, left)
        };
        assert_eq!(forget(), (true, vec![author(1), author(2), ALICE, BOB]), "the log first");
        assert_eq!(forget(), (true, vec![author(2), ALICE, BOB]));
        assert_eq!(forget(), (true, vec![ALICE, BOB]));
        assert_eq!(forget(), (true, vec![ALICE]));
        assert_eq!(forget(), (false, vec![ALICE]), "who needs the room keeps its own");
        assert_eq!(board.cell_bytes, 4);
    }

    #[test]
    fn a_cell_holds_its_authors_newest() {
        let mut board = Board::new(0);
        board.set_cell(ALICE, Bytes::from_static(b"one"));
        board.set_cell(BOB, Bytes::from_static(b"bob"));
        board.set_cell(ALICE, Bytes::from_static(b"two"));
        let mut cells: Vec<_> = board.replay(0).map(|post| (post.from, post.body)).collect();
        cells.sort();
        assert_eq!(cells, [(ALICE, Bytes::from_static(b"two")), (BOB, Bytes::from_static(b"bob"))]);
        board.clear_cell(ALICE);
        assert_eq!(board.replay(0).count(), 1);
        assert_eq!(board.cell_bytes, 3);
    }

    #[test]
    fn cells_are_bounded_in_number_and_bytes() {
        let mut board = Board::new(0);
        for n in 0..limits::CELLS + 5 {
            board.set_cell(author(n), Bytes::from_static(b"x"));
        }
        assert_eq!(board.cells.len(), limits::CELLS);
        assert!(!board.cells.contains_key(&author(0)), "the longest unwritten goes first");

        let large = Bytes::from(vec![0; limits::CELL]);
        for n in 0..200 {
            board.set_cell(author(n), large.clone());
            assert!(board.cell_bytes <= limits::CELL_BYTES);
        }
        assert!(board.cells.contains_key(&author(199)));
    }
}
