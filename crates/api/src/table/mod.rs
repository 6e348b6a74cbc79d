//! Server-side tables: columns, rows, and the ages in them; and objects of which only the metadata is sent.

mod write;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

pub use write::{IncludeObject, ListHead, partial_list, partial_object, table};

/// One column of a kind's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its heading.
    pub name: &'static str,
    /// The OpenAPI type of its cells: string, integer, number, boolean, date.
    pub kind: &'static str,
    /// `name` for the column that names the object, else empty.
    pub format: &'static str,
    /// What it shows.
    pub description: &'static str,
    /// 0 for a column that is always shown, more for `-o wide`.
    pub priority: i32,
}

impl Column {
    /// A column that is always shown.
    pub const fn new(name: &'static str, kind: &'static str, description: &'static str) -> Self {
        Column {
            name,
            kind,
            format: "",
            description,
            priority: 0,
        }
    }

    /// The same column, shown only with `-o wide`.
    pub const fn wide(self) -> Self {
        Column { priority: 1, ..self }
    }
}

/// The column of the object's name.
pub const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
    priority: 0,
};

/// The column of the object's age.
pub const AGE: Column = Column {
    name: "Age",
    kind: "string",
    format: "",
    description: "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
    priority: 0,
};

/// The table of a kind that has none of its own.
pub const NAME_AND_CREATED: &[Column] = &[
    NAME,
    Column {
        name: "Created At",
        kind: "date",
        ..AGE
    },
];

/// The row for [`NAME_AND_CREATED`].
pub fn name_and_created(meta: &ObjectMeta, _now: Timestamp) -> Vec<Value> {
    let created = meta
        .creation_timestamp
        .as_ref()
        .and_then(|t| serde_json::to_value(t).ok())
        .unwrap_or(Value::Null);
    vec![meta.name.as_deref().unwrap_or_default().into(), created]
}

/// The cell of the object's name.
pub fn name_cell(meta: &ObjectMeta) -> Value {
    meta.name.as_deref().unwrap_or_default().into()
}

/// The cell of the object's age.
pub fn age_cell(meta: &ObjectMeta, now: Timestamp) -> Value {
    age(meta.creation_timestamp.as_ref().map(|time| time.0), now).into()
}

/// How long ago `time` was, as kubectl shows it: `5s`, `3m10s`, `2d3h`; `<unknown>` for none.
pub fn age(time: Option<Timestamp>, now: Timestamp) -> String {
    time.map_or_else(
        || "<unknown>".to_owned(),
        |time| human_duration(now.duration_since(time).as_secs()),
    )
}

/// A duration as kubectl shows it, from whole seconds.
pub fn human_duration(seconds: i64) -> String {
    // A clock that is a little off must not show a negative age; one that is far off should be seen.
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let seconds = seconds.max(0);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let two = |first: i64, first_unit: &str, second: i64, second_unit: &str| {
        if second == 0 {
            format!("{first}{first_unit}")
        } else {
            format!("{first}{first_unit}{second}{second_unit}")
        }
    };
    if seconds < 60 * 2 {
        format!("{seconds}s")
    } else if minutes < 10 {
        two(minutes, "m", seconds % 60, "s")
    } else if minutes < 60 * 3 {
        format!("{minutes}m")
    } else if hours < 8 {
        two(hours, "h", minutes % 60, "m")
    } else if hours < 48 {
        format!("{hours}h")
    } else if hours < 24 * 8 {
        two(hours / 24, "d", hours % 24, "h")
    } else if hours < 24 * 365 * 2 {
        format!("{}d", hours / 24)
    } else if hours < 24 * 365 * 8 {
        two(hours / 24 / 365, "y", (hours / 24) % 365, "d")
    } else {
        format!("{}y", hours / 24 / 365)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        const MINUTE: i64 = 60;
        const HOUR: i64 = 60 * MINUTE;
        const DAY: i64 = 24 * HOUR;
        for (seconds, want) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (1, "1s"),
            (119, "119s"),
            (120, "2m"),
            (190, "3m10s"),
            (10 * MINUTE + 5, "10m"),
            (70 * MINUTE, "70m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + 10 * MINUTE, "3h10m"),
            (8 * HOUR + 10 * MINUTE, "8h"),
            (47 * HOUR, "47h"),
            (49 * HOUR, "2d1h"),
            (5 * DAY + 12 * HOUR, "5d12h"),
            (8 * DAY + 2 * HOUR, "8d"),
            (367 * DAY, "367d"),
            ((365 * 2 + 25) * DAY, "2y25d"),
            ((365 * 8 + 2) * DAY, "8y"),
        ] {
            assert_eq!(human_duration(seconds), want, "{seconds}");
        }
        assert_eq!(age(None, Timestamp::UNIX_EPOCH), "<unknown>");
    }
}
