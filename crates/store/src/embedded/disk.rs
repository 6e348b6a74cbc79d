//! What outlives the process: one redb file with the newest entry of every key. History is not kept: it
//! begins anew at the revision found, and who asks for an older one is told that it is compacted.
//!
//! ```text
//! <dir>/                  0700
//! |-- lock                held (flock) while a server has the store open; its process id for the reader
//! `-- objects.redb        0600
//!     |-- meta            name -> u64
//!     |   |-- format      1, the layout drawn here; a higher number is a newer server's
//!     |   `-- revision    the newest write's when no entry shows it, as after a deletion
//!     `-- objects         key ->
//!         |-- revision    u64, little endian
//!         |-- created     u64, little endian: the revision that made the key
//!         |-- stamp       u64, little endian: offset of the hole in the value, u64::MAX for none
//!         `-- value       the rest, without its revision
//! ```
//!
//! redb writes copy-on-write with checksums: after a crash the file holds either all of a transaction or
//! nothing of it, and the pages of replaced data are used again. After a failed write (a full disk) redb
//! wants to be opened anew; that happens on the next write, and what a failed transaction may have left
//! is first set back to what readers have seen all the while.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::{Entry, Error, Result, Revision, Value};

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const OBJECTS: TableDefinition<&str, &[u8]> = TableDefinition::new("objects");
const FORMAT: u64 = 1;
const HEADER: usize = 24;

/// Everything is in memory already: redb only needs the pages it is about to change.
const CACHE_BYTES: usize = 16 << 20;

/// A full disk must not make every write check the whole file again.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

/// A key's state to be: an entry, or none.
pub(super) type State = (Arc<str>, Option<Arc<Entry>>);

pub(super) struct Disk {
    path: PathBuf,
    database: Option<Database>,
    /// The revision that readers have seen.
    newest: Revision,
    failed: Option<Failed>,
    _lock: File,
}

/// A transaction of which nobody knows whether it is on disk.
struct Failed {
    keys: Vec<Arc<str>>,
    cause: Arc<redb::Error>,
    again: Instant,
}

impl Disk {
    /// Takes the directory, and gives what it holds: the newest revision and all entries by key.
    pub(super) fn open(dir: &Path) -> Result<(Disk, Vec<Entry>)> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |cause| Error::Open { action, path, cause }
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed("creating", dir))?;
        let lock = lock(dir)?;
        let path = dir.join("objects.redb");
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed("opening", &path))?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create(&path)
            .map_err(|cause| open_error(&path, cause.into()))?;
        let newest = begin(&database).map_err(|cause| open_error(&path, cause))?;
        let newest = match newest {
            (FORMAT, newest) => newest,
            (found, _) => {
                return Err(Error::NewerFormat {
                    path,
                    found,
                    known: FORMAT,
                });
            }
        };
        let entries = load(&database, &path)?;
        let newest = entries.iter().map(|entry| entry.revision).fold(newest, Revision::max);
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(failed("syncing", dir))?;
        Ok((
            Disk {
                path,
                database: Some(database),
                newest,
                failed: None,
                _lock: lock,
            },
            entries,
        ))
    }

    pub(super) fn newest(&self) -> Revision {
        self.newest
    }

    /// Makes states durable together, as of a revision. `seen` tells what readers see of a key.
    pub(super) fn commit(
        &mut self,
        states: &[State],
        newest: Revision,
        seen: impl Fn(&str) -> Option<Arc<Entry>>,
    ) -> Result<()> {
        let outcome = match self.recover(seen) {
            Ok(()) => self
                .database
                .as_ref()
                .map_or(Err(redb::Error::DatabaseClosed.into()), |database| {
                    write(database, states, newest).map_err(Arc::new)
                }),
            Err(cause) => Err(cause),
        };
        match outcome {
            Ok(()) => {
                self.newest = newest;
                Ok(())
            }
            Err(cause) => {
                self.database = None;
                let keys = states.iter().map(|(key, _)| key.clone());
                match &mut self.failed {
                    Some(_) => {}
                    None => {
                        let again = Instant::now() + REOPEN_PAUSE;
                        self.failed = Some(Failed {
                            keys: keys.collect(),
                            cause: cause.clone(),
                            again,
                        });
                    }
                }
                Err(Error::Write {
                    path: self.path.clone(),
                    cause,
                })
            }
        }
    }

    /// Opens redb again after a failed transaction, and takes back what that may have left.
    fn recover(&mut self, seen: impl Fn(&str) -> Option<Arc<Entry>>) -> Result<(), Arc<redb::Error>> {
        let Some(failed) = &mut self.failed else { return Ok(()) };
        if Instant::now() < failed.again {
            return Err(failed.cause.clone());
        }
        let reopened = (|| {
            let database = Database::builder().set_cache_size(CACHE_BYTES).open(&self.path)?;
            let states: Vec<State> = failed.keys.iter().map(|key| (key.clone(), seen(key))).collect();
            write(&database, &states, self.newest)?;
            Ok(database)
        })();
        match reopened {
            Ok(database) => {
                self.database = Some(database);
                self.failed = None;
                Ok(())
            }
            Err(cause) => {
                failed.cause = Arc::new(cause);
                failed.again = Instant::now() + REOPEN_PAUSE;
                Err(failed.cause.clone())
            }
        }
    }
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let failed = |action, cause| Error::Open {
        action,
        path: path.clone(),
        cause,
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|cause| failed("opening", cause))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Without a number the message says as much without it.
            let _ = file.read_to_string(&mut pid);
            return Err(Error::InUse {
                path: dir.to_owned(),
                pid: pid.trim().parse().ok(),
            });
        }
        Err(TryLockError::Error(cause)) => return Err(failed("locking", cause)),
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(|cause| failed("writing", cause))?;
    Ok(file)
}

/// The format and revision of a file; a new one is begun.
fn begin(database: &Database) -> Result<(u64, Revision), redb::Error> {
    let transaction = database.begin_write()?;
    let found = {
        let mut meta = transaction.open_table(META)?;
        let format = meta.get("format")?.map(|value| value.value());
        match format {
            Some(format) => {
                let revision = meta.get("revision")?.map(|value| value.value());
                (
                    format,
                    revision.ok_or_else(|| redb::Error::Corrupted("meta has no revision".into()))?,
                )
            }
            None => {
                transaction.open_table(OBJECTS)?;
                meta.insert("format", FORMAT)?;
                meta.insert("revision", 1)?;
                (FORMAT, 1)
            }
        }
    };
    transaction.commit()?;
    Ok(found)
}

fn load(database: &Database, path: &Path) -> Result<Vec<Entry>> {
    let broken = |cause: redb::Error| open_error(path, cause);
    let transaction = database.begin_read().map_err(|cause| broken(cause.into()))?;
    let objects = transaction.open_table(OBJECTS).map_err(|cause| broken(cause.into()))?;
    let rows = objects.iter().map_err(|cause| broken(cause.into()))?;
    rows.map(|row| {
        let (key, record) = row.map_err(|cause| broken(cause.into()))?;
        decode(key.value(), record.value()).ok_or_else(|| {
            broken(redb::Error::Corrupted(format!(
                "record of {:?} is cut short",
                key.value()
            )))
        })
    })
    .collect()
}

fn write(database: &Database, states: &[State], newest: Revision) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut objects = transaction.open_table(OBJECTS)?;
        for (key, entry) in states {
            match entry {
                Some(entry) => {
                    let (before, after) = entry.unstamped();
                    let length = HEADER + before.len() + after.len();
                    encode(entry, before, after, objects.insert_reserve(&**key, length)?.as_mut());
                }
                None => {
                    objects.remove(&**key)?;
                }
            }
        }
        let shown = |(_, entry): &State| entry.as_ref().is_some_and(|entry| entry.revision == newest);
        if !states.iter().any(shown) {
            transaction.open_table(META)?.insert("revision", newest)?;
        }
    }
    Ok(transaction.commit()?)
}

fn encode(entry: &Entry, before: &[u8], after: &[u8], record: &mut [u8]) {
    let stamp = entry.stamp().map_or(u64::MAX, |stamp| stamp as u64);
    let parts: [&[u8]; 5] = [
        &entry.revision.to_le_bytes(),
        &entry.create_revision.to_le_bytes(),
        &stamp.to_le_bytes(),
        before,
        after,
    ];
    let mut rest = record;
    for part in parts {
        let (place, others) = rest.split_at_mut(part.len());
        place.copy_from_slice(part);
        rest = others;
    }
}

/// None for a record that no store wrote.
fn decode(key: &str, record: &[u8]) -> Option<Entry> {
    let (header, bytes) = record.split_at_checked(HEADER)?;
    let number = |at: usize| header.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let stamp = match number(16)? {
        u64::MAX => None,
        stamp => Some(usize::try_from(stamp).ok().filter(|stamp| *stamp <= bytes.len())?),
    };
    let value = Value {
        bytes: Bytes::copy_from_slice(bytes),
        stamp,
    };
    Some(Entry::new(key.into(), number(0)?, number(8)?, value))
}

fn open_error(path: &Path, cause: redb::Error) -> Error {
    let path = path.to_owned();
    match cause {
        redb::Error::DatabaseAlreadyOpen => Error::InUse { path, pid: None },
        redb::Error::Io(cause) if cause.kind() != io::ErrorKind::InvalidData => Error::Open {
            action: "opening",
            path,
            cause,
        },
        cause => Error::Corrupt {
            path,
            cause: cause.to_string(),
        },
    }
}
