//! What outlives the process: one redb file with the newest entry of every key, and before it the [`log`] of what redb has yet to take in.
//! History is not kept: it begins anew at the revision found, and who asks for an older one is told that it is compacted.
//!
//! ```text
//! <dir>/                  0700
//! |-- lock                held (flock) while a server has the store open; its process id for the reader
//! |-- log                 0600: the newest batches ([`log`])
//! `-- objects.redb        0600
//!     |-- meta            name -> u64
//!     |   |-- format      2, the layout drawn here; a higher number is a newer server's. 1 had no log
//!     |   |-- revision    the newest write's
//!     |   `-- mark        which batches of the log come after what is here
//!     `-- objects         key -> entry ([`record`])
//! ```
//!
//! redb writes copy-on-write with checksums: after a crash the file holds either all of a transaction or
//! nothing of it, and the pages of replaced data are used again. After a failed write (a full disk) redb
//! wants to be opened anew; that happens on the next write, and what a failed transaction or batch may have left
//! is first set back to what readers have seen all the while.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{
    log::{Log, Unreadable},
    record,
};
use crate::{Entry, Error, Result, Revision};

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const OBJECTS: TableDefinition<&str, &[u8]> = TableDefinition::new("objects");
const FORMAT: u64 = 2;

/// Everything is in memory already: redb only needs the pages it is about to change.
const CACHE_BYTES: usize = 4 << 20;

/// A full disk must not make every write check the whole file again.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

/// A key's state to be: an entry, or none.
pub(super) type State = (Arc<str>, Option<Arc<Entry>>);

pub(super) struct Disk {
    path: PathBuf,
    database: Option<Database>,
    log: Log,
    /// The states of the log's batches, newest only: what redb is to take in.
    logged: HashMap<Arc<str>, Option<Arc<Entry>>>,
    /// The revision that readers have seen.
    newest: Revision,
    failed: Option<Failed>,
    _lock: File,
}

/// A transaction or batch of which nobody knows whether it is on disk.
struct Failed {
    keys: Vec<Arc<str>>,
    file: PathBuf,
    cause: Arc<redb::Error>,
    again: Instant,
}

impl Disk {
    /// Takes the directory, and gives what it holds: the newest revision and all entries by key.
    pub(super) fn open(dir: &Path) -> Result<(Disk, Vec<Arc<Entry>>)> {
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
        let Begun { format, revision, mark } = begin(&database).map_err(|cause| open_error(&path, cause))?;
        if format > FORMAT {
            return Err(Error::NewerFormat {
                path,
                found: format,
                known: FORMAT,
            });
        }
        let mut entries = load(&database, &path)?;
        let log_path = dir.join("log");
        let (log, batches) = Log::open(&log_path, mark).map_err(|unreadable| match unreadable {
            Unreadable::Io(cause) => failed("opening", &log_path)(cause),
            Unreadable::Damaged { at } => Error::Corrupt {
                path: log_path.clone(),
                cause: format!("the batch at byte {at} is damaged"),
            },
        })?;
        let shown = entries.values().map(|entry| entry.revision);
        let newest = shown
            .chain(batches.iter().map(|batch| batch.newest))
            .fold(revision, Revision::max);
        let logged: HashMap<_, _> = batches.into_iter().flat_map(|batch| batch.states).collect();
        for (key, state) in &logged {
            match state {
                Some(entry) => drop(entries.insert(key.clone(), entry.clone())),
                None => drop(entries.remove(key)),
            }
        }
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(failed("syncing", dir))?;
        let disk = Disk {
            path,
            database: Some(database),
            log,
            logged,
            newest,
            failed: None,
            _lock: lock,
        };
        Ok((disk, entries.into_values().collect()))
    }

    pub(super) fn newest(&self) -> Revision {
        self.newest
    }

    /// Whether a write of so many bytes is sure to cost no more than one write to the disk and its fsync.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.failed.is_none() && self.log.has_room(bytes)
    }

    /// Makes states durable together, as of a revision. `seen` tells what readers see of a key.
    pub(super) fn commit(
        &mut self,
        states: Vec<State>,
        newest: Revision,
        seen: impl Fn(&str) -> Option<Arc<Entry>>,
    ) -> Result<()> {
        self.recover(seen)?;
        match self.log.append(&states, newest) {
            Ok(true) => {
                self.logged.extend(states);
                self.newest = newest;
                Ok(())
            }
            Ok(false) => self.take_in(states, newest),
            Err(cause) => {
                let file = self.log.path().to_owned();
                Err(self.fail(states, file, cause.into()))
            }
        }
    }

    /// Has redb take in what is in the log, so that a store that was closed is all in one file.
    pub(super) fn close(&mut self) -> Result<()> {
        match self.failed.is_some() || self.logged.is_empty() {
            true => Ok(()),
            false => self.take_in(Vec::new(), self.newest),
        }
    }

    /// Puts the log's states and newer ones into redb, and begins the log anew.
    fn take_in(&mut self, states: Vec<State>, newest: Revision) -> Result<()> {
        self.logged.extend(states);
        let mark = rand::random();
        let outcome = match &self.database {
            Some(database) => write(database, &self.logged, newest, mark),
            None => Err(redb::Error::DatabaseClosed),
        };
        // What may not be in redb is the failure's to know.
        let states = std::mem::take(&mut self.logged);
        match outcome {
            Ok(()) => {
                self.log.begin(mark);
                self.newest = newest;
                Ok(())
            }
            Err(cause) => Err(self.fail(states, self.path.clone(), cause)),
        }
    }

    fn fail(&mut self, states: impl IntoIterator<Item = State>, file: PathBuf, cause: redb::Error) -> Error {
        let cause = Arc::new(cause);
        self.database = None;
        self.failed = Some(Failed {
            keys: states.into_iter().map(|(key, _)| key).collect(),
            file: file.clone(),
            cause: cause.clone(),
            again: Instant::now() + REOPEN_PAUSE,
        });
        Error::Write { path: file, cause }
    }

    /// Opens redb again after a failure, and takes back what that may have left there and in the log.
    fn recover(&mut self, seen: impl Fn(&str) -> Option<Arc<Entry>>) -> Result<()> {
        let Some(failed) = &mut self.failed else { return Ok(()) };
        if Instant::now() >= failed.again {
            let mark = rand::random();
            let reopened = (|| {
                let database = Database::builder().set_cache_size(CACHE_BYTES).open(&self.path)?;
                let keys = failed.keys.iter().chain(self.logged.keys());
                let states = keys.map(|key| (key.clone(), seen(key))).collect();
                write(&database, &states, self.newest, mark)?;
                Ok(database)
            })();
            match reopened {
                Ok(database) => {
                    self.database = Some(database);
                    self.logged.clear();
                    self.log.begin(mark);
                    self.failed = None;
                    return Ok(());
                }
                Err(cause) => {
                    failed.file = self.path.clone();
                    failed.cause = Arc::new(cause);
                    failed.again = Instant::now() + REOPEN_PAUSE;
                }
            }
        }
        Err(Error::Write {
            path: failed.file.clone(),
            cause: failed.cause.clone(),
        })
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

/// What a file says of itself.
struct Begun {
    format: u64,
    revision: Revision,
    mark: u64,
}

/// Reads what a file says of itself; a new one is begun, and an older one brought up to date.
fn begin(database: &Database) -> Result<Begun, redb::Error> {
    let transaction = database.begin_write()?;
    let begun = {
        let mut meta = transaction.open_table(META)?;
        let read = |name: &str, meta: &redb::Table<'_, &str, u64>| -> Result<Option<u64>, redb::Error> {
            Ok(meta.get(name)?.map(|value| value.value()))
        };
        let missing = |name: &str| redb::Error::Corrupted(format!("meta has no {name}"));
        let format = read("format", &meta)?;
        if format.is_none() {
            transaction.open_table(OBJECTS)?;
            meta.insert("revision", 1)?;
        }
        if format.is_none_or(|format| format < FORMAT) {
            meta.insert("format", FORMAT)?;
            meta.insert("mark", rand::random::<u64>())?;
        }
        Begun {
            format: format.unwrap_or(FORMAT),
            revision: read("revision", &meta)?.ok_or_else(|| missing("revision"))?,
            mark: match format {
                // Its marks, if it has any, are for its own server to read.
                Some(newer) if newer > FORMAT => 0,
                _ => read("mark", &meta)?.ok_or_else(|| missing("mark"))?,
            },
        }
    };
    transaction.commit()?;
    Ok(begun)
}

fn load(database: &Database, path: &Path) -> Result<HashMap<Arc<str>, Arc<Entry>>> {
    let broken = |cause: redb::Error| open_error(path, cause);
    let transaction = database.begin_read().map_err(|cause| broken(cause.into()))?;
    let objects = transaction.open_table(OBJECTS).map_err(|cause| broken(cause.into()))?;
    let rows = objects.iter().map_err(|cause| broken(cause.into()))?;
    rows.map(|row| {
        let (key, bytes) = row.map_err(|cause| broken(cause.into()))?;
        let key: Arc<str> = key.value().into();
        match record::decode(key.clone(), bytes.value()) {
            Some(entry) => Ok((key, Arc::new(entry))),
            None => Err(broken(redb::Error::Corrupted(format!(
                "record of {key:?} is cut short"
            )))),
        }
    })
    .collect()
}

fn write(
    database: &Database,
    states: &HashMap<Arc<str>, Option<Arc<Entry>>>,
    newest: Revision,
    mark: u64,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut objects = transaction.open_table(OBJECTS)?;
        for (key, entry) in states {
            match entry {
                Some(entry) => {
                    let length = record::length(entry);
                    record::encode(entry, objects.insert_reserve(&**key, length)?.as_mut());
                }
                None => {
                    objects.remove(&**key)?;
                }
            }
        }
        let mut meta = transaction.open_table(META)?;
        meta.insert("mark", mark)?;
        meta.insert("revision", newest)?;
    }
    Ok(transaction.commit()?)
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
