//! Databases that ask for more than they should.

use std::path::Path;

const PAGE: usize = 4096;
/// Levels that are added to a tree.
const LEVELS: usize = 14;

fn number(bytes: &[u8], at: usize) -> usize {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

fn put(bytes: &mut [u8], at: usize, number: usize) {
    bytes[at..at + 4].copy_from_slice(&u32::try_from(number).unwrap().to_be_bytes());
}

/// Lets every child of an interior page be the same page.
fn share(page: &mut [u8], child: usize) {
    put(page, 8, child);
    let cells = usize::from(u16::from_be_bytes([page[3], page[4]]));
    for cell in 0..cells {
        let at = 12 + 2 * cell;
        let at = usize::from(u16::from_be_bytes([page[at], page[at + 1]]));
        put(page, at, child);
    }
}

/// Puts levels of pages under the roots of all trees of this type on `table`, of which each has one page, whose
/// children are all the one below: a small file, and more leaves than anybody can count. How many trees that are.
pub(crate) fn share_children(database: &Path, table: &str, kind: &str) -> usize {
    let db = rusqlite::Connection::open(database).unwrap();
    let moved = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
    assert_eq!(moved.unwrap(), 0, "somebody has the database open");
    let mut query = db
        .prepare("SELECT rootpage FROM sqlite_schema WHERE tbl_name = ?1 AND type = ?2 AND rootpage > 0")
        .unwrap();
    let roots: Vec<usize> = query
        .query_map([table, kind], |row| row.get::<_, i64>(0))
        .unwrap()
        .map(|root| usize::try_from(root.unwrap()).unwrap())
        .collect();
    drop(query);
    drop(db);
    let mut bytes = std::fs::read(database).unwrap();
    let mut changed = 0;
    for root in roots {
        let at = (root - 1) * PAGE;
        let page = bytes[at..at + PAGE].to_vec();
        if ![2, 5].contains(&page[0]) {
            continue; // a leaf
        }
        changed += 1;
        let first = bytes.len() / PAGE + 1;
        share(&mut bytes[at..at + PAGE], first);
        for level in 1..=LEVELS {
            let mut copy = page.clone();
            if level < LEVELS {
                share(&mut copy, first + level);
            }
            bytes.extend(copy);
        }
    }
    let pages = bytes.len() / PAGE;
    put(&mut bytes, 28, pages);
    assert_eq!(number(&bytes, 28), pages);
    std::fs::write(database, bytes).unwrap();
    changed
}
