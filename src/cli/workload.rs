//! What workloads share: a steady load over several connections, its mix, and dice that fall the same way in each run.

use crate::error::Result;
use mysql_async::Conn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// Changes of one transaction, at most, whatever is due.
const MOST_ROWS: u64 = 1_000;
/// How often the load gives the server a transaction, at least.
const TICK: Duration = Duration::from_millis(100);

/// Tables that are filled and changed.
pub(super) trait Workload: Clone + Send + Sync + 'static {
    /// Makes database and tables where they don't exist; returns the largest id.
    fn create(conn: &mut Conn, database: &str) -> impl Future<Output = Result<(Self, u64)>> + Send;

    /// Inserts `count` things with ids from `first_id` on, made within the last `within`.
    fn load(
        &self,
        conn: &mut Conn,
        first_id: u64,
        count: u64,
        within: Duration,
        made: &Made,
    ) -> impl Future<Output = Result<()>> + Send;

    /// One transaction of about as many row changes as are due, among ids up to the largest that this connection knows: `(due, last_id)`.
    /// Returns how many things it inserted.
    fn transaction(
        &self,
        conn: &mut Conn,
        load: Load,
        turns: &mut Turns,
        due: (u64, u64),
        made: &Made,
    ) -> impl Future<Output = Result<u64>> + Send;
}

/// Changes rows for ever. `last_id` is the largest id at the start.
pub(super) async fn run(workload: &impl Workload, conn: &mut Conn, load: Load, last_id: u64, made: &Made) -> Result<()> {
    let mut turns = Turns { dice: Dice { state: (last_id + load.connection) << 8 }, turn: load.connection };
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut last_id, mut owed) = (last_id, 0.0);
    loop {
        let asked = ticks.tick().await;
        // what a slow server couldn't take isn't made up for in one go
        owed = f64::min(owed + load.rate * TICK.as_secs_f64(), load.rate.max(1.0));
        while owed >= 1.0 && asked.elapsed() < 5 * TICK {
            let due = (owed as u64).min(load.transaction_rows).clamp(1, MOST_ROWS);
            owed -= due as f64;
            last_id += workload.transaction(conn, load, &mut turns, (due, last_id), made).await?;
        }
    }
}

/// Shares of a load's changes, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mix {
    pub(super) inserts: u64,
    pub(super) updates: u64,
    pub(super) deletes: u64,
}

impl Default for Mix {
    /// Six of ten changes are new, three are updates, one is a delete.
    fn default() -> Self {
        Self { inserts: 60, updates: 30, deletes: 10 }
    }
}

impl std::str::FromStr for Mix {
    type Err = String;

    /// Reads `60/30/10`.
    fn from_str(text: &str) -> Result<Self, String> {
        let shares: Option<Vec<u64>> = text.split('/').map(|share| share.trim().parse().ok()).collect();
        match shares.as_deref() {
            Some(&[inserts, updates, deletes]) if inserts + updates + deletes == 100 => Ok(Self { inserts, updates, deletes }),
            _ => Err(format!("`{text}` is not a mix; write the percent of inserts, updates and deletes, 100 in all: 60/30/10")),
        }
    }
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Insert,
    Update,
    Delete,
}

/// Whose turn it is, and dice.
#[derive(Debug)]
pub(super) struct Turns {
    pub(super) dice: Dice,
    turn: u64,
}

impl Turns {
    /// The next change of a load: spread evenly, whatever the size of a transaction. While there is too little to change, an insert.
    pub(super) fn next(&mut self, load: &Load, last_id: u64) -> Turn {
        self.turn += 1;
        let share = self.turn * 61 % 100;
        if share < load.mix.inserts || last_id < load.connections {
            Turn::Insert
        } else if share < load.mix.inserts + load.mix.updates {
            Turn::Update
        } else {
            Turn::Delete
        }
    }

    /// One of this connection's own ids.
    pub(super) fn own_id(&mut self, load: &Load, last_id: u64) -> u64 {
        let id = 1 + self.dice.below(last_id);
        (id - id % load.connections + load.connection).clamp(1, last_id)
    }
}

/// Changes made so far.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// Rows inserted.
    pub(super) inserted: AtomicU64,
    /// Rows updated.
    pub(super) updated: AtomicU64,
    /// Rows deleted.
    pub(super) deleted: AtomicU64,
}

impl Made {
    /// All of them.
    pub(super) fn changes(&self) -> u64 {
        [&self.inserted, &self.updated, &self.deleted].iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// A steady load on one of several connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Row changes a second, of this connection.
    pub(super) rate: f64,
    /// What they are.
    pub(super) mix: Mix,
    /// Changes of one transaction, at most.
    pub(super) transaction_rows: u64,
    /// This connection, counted from 0. It updates and deletes rows of its own, so that none waits for another.
    pub(super) connection: u64,
    /// All connections.
    pub(super) connections: u64,
}

/// Random enough, and the same in each run.
#[derive(Debug)]
pub(super) struct Dice {
    pub(super) state: u64,
}

impl Dice {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_add(1);
        xxh3_64(&self.state.to_le_bytes()) % end.max(1)
    }

    pub(super) fn choose<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words.get(self.below(words.len() as u64) as usize).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes() {
        assert_eq!("60/30/10".parse(), Ok(Mix { inserts: 60, updates: 30, deletes: 10 }));
        for wrong in ["60/30", "60/30/20", "a/b/c", "100"] {
            assert!(wrong.parse::<Mix>().unwrap_err().contains("60/30/10"), "{wrong}");
        }
    }

    #[test]
    fn turns_come_as_the_mix_says() {
        let load = Load { rate: 1.0, mix: Mix::default(), transaction_rows: 1, connection: 1, connections: 2 };
        let mut turns = Turns { dice: Dice { state: 1 }, turn: 0 };
        let all: Vec<Turn> = (0..100).map(|_| turns.next(&load, 1000)).collect();
        let count = |turn| all.iter().filter(|other| **other == turn).count();
        assert_eq!((count(Turn::Insert), count(Turn::Update), count(Turn::Delete)), (60, 30, 10));
        assert!((0..100).all(|_| turns.own_id(&load, 1000) % 2 == 1));
        assert_eq!(turns.next(&load, 1), Turn::Insert);
    }
}
