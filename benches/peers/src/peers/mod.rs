//! One file for each log.

mod fjall;
mod okaywal;
mod open_wal;
mod seglog;
mod sqlite;
mod synclog;
mod tephra;
mod walrus;

use crate::peer::Peer;

/// All of them, in the order of the table.
pub fn all() -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(synclog::Synclog { keeps_database: true }),
        Box::new(synclog::Synclog { keeps_database: false }),
        Box::new(sqlite::Sqlite { closes: false }),
        Box::new(sqlite::Sqlite { closes: true }),
        Box::new(fjall::Fjall),
        Box::new(okaywal::Okaywal),
        Box::new(open_wal::OpenWal),
        Box::new(seglog::Seglog),
        Box::new(tephra::Tephra),
        Box::new(walrus::Walrus),
    ]
}
