//! Values and entries: bytes with a hole for the revision, and the same bytes with it filled in.

use std::{
    any::Any,
    fmt,
    sync::{Arc, OnceLock},
};

use bytes::{Bytes, BytesMut};

use crate::{Error, Result, Revision};

/// A value as a writer gives it: without its revision, which it can not know yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The bytes without the revision.
    pub bytes: Bytes,
    /// The offset where the decimal revision of the write is put in whenever the value is handed out.
    pub stamp: Option<usize>,
}

impl Value {
    /// A value that does not show its revision.
    pub fn plain(bytes: impl Into<Bytes>) -> Self {
        Value {
            bytes: bytes.into(),
            stamp: None,
        }
    }

    /// A value that shows its revision at this offset.
    pub fn stamped(bytes: impl Into<Bytes>, stamp: usize) -> Self {
        Value {
            bytes: bytes.into(),
            stamp: Some(stamp),
        }
    }

    /// Refuses a stamp outside the bytes.
    pub fn check(&self, key: &str) -> Result<()> {
        match self.stamp {
            Some(stamp) if stamp > self.bytes.len() => Err(Error::Stamp {
                key: key.into(),
                stamp,
                length: self.bytes.len(),
            }),
            _ => Ok(()),
        }
    }
}

/// A key with the value that one revision gave it. Every reader shares the same one.
pub struct Entry {
    /// The key.
    pub key: Arc<str>,
    /// The revision of the write that made this entry.
    pub revision: Revision,
    /// The revision of the write that first made the key, since it was last absent.
    pub create_revision: Revision,
    /// The value with its revision filled in.
    pub value: Bytes,
    stamp: Option<usize>,
    facets: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Entry {
    /// Fills the revision in. The value's stamp lies inside its bytes ([`Value::check`]).
    pub fn new(key: Arc<str>, revision: Revision, create_revision: Revision, value: Value) -> Self {
        let Value { bytes, stamp } = value;
        let value = match stamp {
            Some(at) => fill(&bytes[..at], revision, &bytes[at..]),
            None => bytes,
        };
        Entry {
            key,
            revision,
            create_revision,
            value,
            stamp,
            facets: OnceLock::new(),
        }
    }

    /// The same entry showing another revision: what a watcher is given when it is deleted, or when it
    /// leaves what the watcher sees.
    pub fn at(&self, revision: Revision) -> Entry {
        let value = match self.stamp {
            Some(_) => {
                let (before, after) = self.unstamped();
                fill(before, revision, after)
            }
            None => self.value.clone(),
        };
        Entry {
            key: self.key.clone(),
            revision,
            create_revision: self.create_revision,
            value,
            stamp: self.stamp,
            facets: OnceLock::new(),
        }
    }

    /// The value as it was written: what comes before the revision, and what comes after it.
    pub(crate) fn unstamped(&self) -> (&[u8], &[u8]) {
        match self.stamp {
            Some(at) => (&self.value[..at], &self.value[at + digits(self.revision)..]),
            None => (&self.value, &[]),
        }
    }

    pub(crate) fn stamp(&self) -> Option<usize> {
        self.stamp
    }

    /// What a reader derives from the bytes, derived once and shared by all readers of this entry.
    ///
    /// One store has one kind of facets: a second type is derived anew on every call.
    pub fn facets<T: Any + Send + Sync>(&self, derive: impl FnOnce(&Entry) -> T) -> Arc<T> {
        if let Some(kept) = self.facets.get() {
            return kept.clone().downcast().unwrap_or_else(|_| Arc::new(derive(self)));
        }
        let derived = Arc::new(derive(self));
        // Two readers may both have come here first; either one's facets will do.
        let _ = self.facets.set(derived.clone());
        derived
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key)
            .field("revision", &self.revision)
            .field("create_revision", &self.create_revision)
            .field("value", &self.value)
            .finish()
    }
}

fn digits(revision: Revision) -> usize {
    revision.checked_ilog10().unwrap_or(0) as usize + 1
}

fn fill(before: &[u8], revision: Revision, after: &[u8]) -> Bytes {
    let mut text = [b'0'; 20];
    let digits = digits(revision);
    let mut rest = revision;
    for digit in text[..digits].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let mut filled = BytesMut::with_capacity(before.len() + digits + after.len());
    filled.extend_from_slice(before);
    filled.extend_from_slice(&text[..digits]);
    filled.extend_from_slice(after);
    filled.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_is_put_in_at_the_stamp() {
        for (bytes, stamp, revision, shown) in [
            ("{\"rv\":\"\"}", Some(7), 1, "{\"rv\":\"1\"}"),
            ("{\"rv\":\"\"}", Some(7), 10, "{\"rv\":\"10\"}"),
            ("{\"rv\":\"\"}", Some(7), u64::MAX, "{\"rv\":\"18446744073709551615\"}"),
            ("", Some(0), 0, "0"),
            ("x", Some(1), 99, "x99"),
            ("x", None, 99, "x"),
        ] {
            let value = Value {
                bytes: bytes.into(),
                stamp,
            };
            let entry = Entry::new("k".into(), revision, 1, value);
            assert_eq!(entry.value, shown);
            assert_eq!(entry.at(revision).value, shown, "putting the same revision in again");
        }
    }

    #[test]
    fn an_entry_can_show_another_revision() {
        let entry = Entry::new("k".into(), 99, 7, Value::stamped("<>", 1));
        let later = entry.at(100);
        assert_eq!(
            (&later.value[..], later.revision, later.create_revision),
            (&b"<100>"[..], 100, 7)
        );
        assert_eq!(later.at(5).value, "<5>");
    }

    #[test]
    fn a_stamp_outside_the_bytes_is_refused() {
        assert!(Value::stamped("abc", 3).check("k").is_ok());
        let error = Value::stamped("abc", 4)
            .check("k")
            .expect_err("4 is past the end of 3 bytes");
        assert_eq!(error.to_string(), "value of \"k\": stamp 4 lies outside its 3 bytes");
    }

    #[test]
    fn facets_are_derived_once() {
        let entry = Entry::new("k".into(), 1, 1, Value::plain("four"));
        let first = entry.facets(|entry| entry.value.len());
        let second = entry.facets::<usize>(|_| unreachable!("derived already"));
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(*entry.facets(|_| "of another type"), "of another type");
    }
}
