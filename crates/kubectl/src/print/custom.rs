//! `-o custom-columns=NAME:path,…`: a table of the user's own.

use serde_json::Value;

use super::columns::Columns;
use super::jsonpath::{Template, plain};

/// The columns with their headers.
#[derive(Debug)]
pub struct CustomColumns(Vec<(String, Template)>);

impl CustomColumns {
    /// Parses `NAME:path,NAME:path`.
    pub fn parse(spec: &str) -> Result<Self, String> {
        if spec.is_empty() {
            return Err("custom-columns format specified but no custom columns given".into());
        }
        let columns = spec.split(',').map(|column| match column.split_once(':') {
            Some((header, path)) if !path.is_empty() => Ok((header.to_owned(), Template::parse_relaxed(path)?)),
            _ => Err(format!(
                "unexpected custom-columns spec: {column}, expected <header>:<json-path-expr>"
            )),
        });
        columns.collect::<Result<_, _>>().map(Self)
    }

    /// Parses a file of two lines: headers, then paths.
    pub fn parse_file(text: &str) -> Result<Self, String> {
        let mut lines = text.lines();
        let headers: Vec<_> = lines.next().unwrap_or_default().split_whitespace().collect();
        let paths: Vec<_> = lines.next().unwrap_or_default().split_whitespace().collect();
        if headers.len() != paths.len() {
            return Err(format!(
                "number of headers ({}) and field specifications ({}) don't match",
                headers.len(),
                paths.len()
            ));
        }
        let columns = headers.into_iter().zip(paths);
        columns
            .map(|(header, path)| Ok((header.to_owned(), Template::parse_relaxed(path)?)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The table of objects.
    pub fn table(&self, objects: &[Value], headers: bool) -> String {
        let mut lines = Vec::new();
        if headers {
            lines.push(self.0.iter().map(|(header, _)| header.clone()).collect());
        }
        for object in objects {
            let cells = self.0.iter().map(|(_, path)| {
                let values: Vec<_> = path.values(object).into_iter().map(cell).collect();
                if values.is_empty() {
                    "<none>".to_owned()
                } else {
                    values.join(",")
                }
            });
            lines.push(cells.collect());
        }
        Columns::default().align(&lines)
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::Object(_) | Value::Array(_) => go(value),
        other => plain(other),
    }
}

/// A value as Go prints it, which is what upstream shows for lists and maps.
fn go(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let entries = super::yaml::sorted(map);
            let entries: Vec<_> = entries
                .iter()
                .map(|(key, value)| format!("{key}:{}", go(value)))
                .collect();
            format!("map[{}]", entries.join(" "))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(go).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Null => "<nil>".into(),
        other => plain(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables() {
        let objects = [
            json!({"metadata": {"name": "a", "labels": {"x": "1"}}, "c": [{"n": "p"}, {"n": "q"}]}),
            json!({"metadata": {"name": "long-name"}, "c": []}),
        ];
        let columns = CustomColumns::parse("NAME:.metadata.name,C:.c[*].n,L:metadata.labels");
        let columns = columns.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            columns.table(&objects, true),
            "NAME        C        L\na           p,q      map[x:1]\nlong-name   <none>   <none>\n"
        );
        assert_eq!(
            CustomColumns::parse("NAME").map(drop),
            Err("unexpected custom-columns spec: NAME, expected <header>:<json-path-expr>".into())
        );
    }
}
