//! The server's tables as lines.

use serde_json::Value;

use super::columns::Columns;

/// How tables are shown.
#[derive(Debug, Clone, Default)]
pub struct Style {
    /// With the columns of lower priority.
    pub wide: bool,
    /// Without the line of headers.
    pub no_headers: bool,
    /// With the namespace of each object in front.
    pub namespaces: bool,
    /// With the kind before each name: `pod/`.
    pub kind: Option<String>,
    /// With all labels at the end.
    pub labels: bool,
    /// With a column for each of these labels.
    pub label_columns: Vec<String>,
    /// With the type of a watch's event in front of all.
    pub event: Option<String>,
}

/// A table that is printed piece by piece, as a watch does.
#[derive(Default)]
pub struct Table {
    columns: Columns,
    definitions: Vec<Definition>,
    begun: bool,
}

#[derive(Debug, Clone)]
struct Definition {
    name: String,
    priority: i64,
    is_name: bool,
}

impl Table {
    /// The lines of one answer of the server.
    pub fn lines(&mut self, table: &Value, style: &Style) -> String {
        if let Some(definitions) = table["columnDefinitions"].as_array().filter(|all| !all.is_empty()) {
            self.definitions = definitions
                .iter()
                .map(|column| Definition {
                    name: column["name"].as_str().unwrap_or_default().to_uppercase(),
                    priority: column["priority"].as_i64().unwrap_or(0),
                    is_name: column["format"] == "name",
                })
                .collect();
        }
        let mut lines = Vec::new();
        if !self.begun && !style.no_headers {
            lines.push(self.headers(style));
        }
        self.begun = true;
        for row in table["rows"].as_array().into_iter().flatten() {
            lines.push(self.row(row, style));
        }
        self.columns.align(&lines)
    }

    fn shown(&self, style: &Style) -> impl Iterator<Item = (usize, &Definition)> {
        let wide = style.wide;
        self.definitions
            .iter()
            .enumerate()
            .filter(move |(_, column)| wide || column.priority == 0)
    }

    fn headers(&self, style: &Style) -> Vec<String> {
        let mut cells = Vec::new();
        if style.event.is_some() {
            cells.push("EVENT".to_owned());
        }
        if style.namespaces {
            cells.push("NAMESPACE".to_owned());
        }
        cells.extend(self.shown(style).map(|(_, column)| column.name.clone()));
        for label in &style.label_columns {
            cells.push(label.rsplit('/').next().unwrap_or(label).to_uppercase());
        }
        if style.labels {
            cells.push("LABELS".to_owned());
        }
        cells
    }

    fn row(&self, row: &Value, style: &Style) -> Vec<String> {
        let metadata = &row["object"]["metadata"];
        let mut cells: Vec<String> = style.event.iter().map(|event| format!("{event:8}")).collect();
        if style.namespaces {
            cells.push(metadata["namespace"].as_str().unwrap_or_default().to_owned());
        }
        for (index, column) in self.shown(style) {
            let text = cell(&row["cells"][index]);
            cells.push(match &style.kind {
                Some(kind) if column.is_name => format!("{kind}/{text}"),
                _ => text,
            });
        }
        for label in &style.label_columns {
            cells.push(metadata["labels"][label].as_str().unwrap_or_default().to_owned());
        }
        if style.labels {
            cells.push(labels(&metadata["labels"]));
        }
        cells
    }
}

/// A cell on one line: what could move the cursor is shown, not done.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Null => "<none>".to_owned(),
        other => other.to_string(),
    };
    match text.find(['\n', '\r', '\u{c}']) {
        Some(end) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// `a=1,b=2`, or `<none>`.
pub fn labels(labels: &Value) -> String {
    let Some(labels) = labels.as_object().filter(|labels| !labels.is_empty()) else {
        return "<none>".to_owned();
    };
    let pairs: Vec<_> = super::yaml::sorted(labels)
        .into_iter()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pods() -> Value {
        json!({
            "columnDefinitions": [
                {"name": "Name", "format": "name", "priority": 0}, {"name": "Ready", "priority": 0},
                {"name": "Node", "priority": 1},
            ],
            "rows": [
                {"cells": ["web", "1/1", "n1"], "object": {"metadata": {"namespace": "x", "labels": {"app": "w", "b": "2"}}}},
                {"cells": ["db-0", "0/1", null], "object": {"metadata": {"namespace": "default"}}},
            ],
        })
    }

    #[test]
    fn styles() {
        for (style, expected) in [
            (Style::default(), "NAME   READY\nweb    1/1\ndb-0   0/1\n"),
            (
                Style {
                    wide: true,
                    ..Style::default()
                },
                "NAME   READY   NODE\nweb    1/1     n1\ndb-0   0/1     <none>\n",
            ),
            (
                Style {
                    namespaces: true,
                    no_headers: true,
                    ..Style::default()
                },
                "x         web    1/1\ndefault   db-0   0/1\n",
            ),
            (
                Style {
                    kind: Some("pod".into()),
                    label_columns: vec!["app".into()],
                    ..Style::default()
                },
                "NAME       READY   APP\npod/web    1/1     w\npod/db-0   0/1     \n",
            ),
            (
                Style {
                    labels: true,
                    ..Style::default()
                },
                "NAME   READY   LABELS\nweb    1/1     app=w,b=2\ndb-0   0/1     <none>\n",
            ),
        ] {
            assert_eq!(Table::default().lines(&pods(), &style), expected);
        }
    }

    #[test]
    fn a_watch_goes_on_below() {
        let mut table = Table::default();
        table.lines(&pods(), &Style::default());
        let event = json!({"rows": [{"cells": ["web", "0/1", "n1"], "object": {}}]});
        assert_eq!(table.lines(&event, &Style::default()), "web    0/1\n");
    }
}
