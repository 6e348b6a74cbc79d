//! `kubectl get`.

use std::io::Write;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::Method;
use serde_json::{Value, json};

use crate::connection::{Ask, Connection};
use crate::failure::{Failure, Result};
use crate::fetch::{Query, TABLE, list_of};
use crate::flags::{Get, Selectors};
use crate::mapping::Mapping;
use crate::output;
use crate::print::sort::sort_by;
use crate::print::table::{Style, Table};
use crate::print::{Format, without_managed_fields};
use crate::selection::{Selection, Target, query, select};

/// Runs the command.
pub async fn run(connection: &Connection, get: &Get) -> Result<()> {
    if let Some(path) = &get.raw {
        let body = connection.bytes(Method::GET, path, Ask::default()).await?;
        return output(&String::from_utf8_lossy(&body));
    }
    let format = Format::parse(get.output.as_deref())?;
    if get.targets.is_empty() && get.files.filename.is_empty() {
        return Err(Failure::Usage(
            "You must specify the type of resource to get. Use \"kubectl api-resources\" for a complete list of supported resources.\n\nerror: Required resource not specified.\nUse \"kubectl explain <resource>\" for a detailed description of that resource (e.g. kubectl explain pods).\nSee 'kubectl get -h' for help and examples"
                .to_owned(),
        ));
    }
    let mapping = Mapping::default();
    let files = &get.files;
    let selection = select(connection, &mapping, &get.targets, &files.filename, files.recursive).await?;
    let named = selection.targets.iter().any(|target| target.name.is_some());
    let selected = get.selectors.selector.is_some() || get.selectors.field_selector.is_some();
    if named && selected {
        return Err(Failure::message(if get.selectors.selector.is_some() {
            "name cannot be provided when a selector is specified"
        } else {
            "field selectors and names may not be used together"
        }));
    }
    if named && get.all_namespaces {
        return Err(Failure::message(
            "a resource cannot be retrieved by name across all namespaces",
        ));
    }
    if get.watch || get.watch_only {
        return watch(connection, get, &format, &selection).await;
    }
    match format {
        Format::Table { wide } => tables(connection, get, wide, &selection).await,
        format => objects(connection, get, &format, &selection).await,
    }
}

fn wanted(get: &Get, table: Option<bool>) -> Query {
    Query {
        all_namespaces: get.all_namespaces,
        selectors: get.selectors.clone(),
        chunk: get.chunk_size,
        table,
    }
}

fn style(get: &Get, wide: bool, target: &Target, show_kind: bool) -> Style {
    Style {
        wide,
        no_headers: get.no_headers,
        namespaces: get.all_namespaces && target.kind.namespaced,
        kind: (show_kind || get.show_kind).then(|| target.kind.group_kind()),
        labels: get.show_labels,
        label_columns: get.label_columns.clone(),
        event: None,
    }
}

/// One after the other each resource's table, with an empty line between.
async fn tables(connection: &Connection, get: &Get, wide: bool, selection: &Selection) -> Result<()> {
    let mut failures = Vec::new();
    let mut groups: Vec<(&Target, Value)> = Vec::new();
    for target in &selection.targets {
        let table = match connection
            .fetch(target, &wanted(get, Some(get.sort_by.is_some())))
            .await
        {
            Ok(table) => table,
            Err(failure) if get.ignore_not_found && failure.is_not_found() => continue,
            Err(failure) => {
                failures.push(failure);
                continue;
            }
        };
        match groups.last_mut() {
            // Objects named one by one are rows of one table.
            Some((last, rows)) if last.kind == target.kind => {
                let more = table["rows"].as_array().cloned().unwrap_or_default();
                if let Some(rows) = rows.get_mut("rows").and_then(Value::as_array_mut) {
                    rows.extend(more);
                }
            }
            _ => groups.push((target, table)),
        }
    }
    let mut text = String::new();
    for (target, mut table) in groups {
        if let (Some(path), Some(rows)) = (&get.sort_by, table.get_mut("rows").and_then(Value::as_array_mut))
            && rows.len() > 1
        {
            sort_by(rows, path, |row| &row["object"]).map_err(Failure::message)?;
        }
        if table["rows"].as_array().is_none_or(Vec::is_empty) {
            continue;
        }
        if !text.is_empty() && !get.no_headers {
            text.push('\n');
        }
        let style = style(get, wide, target, selection.show_kind);
        text += &Table::default().lines(&table, &style);
    }
    output(&text)?;
    if text.is_empty() && failures.is_empty() && !get.ignore_not_found {
        let namespaced = selection.targets.iter().all(|target| target.kind.namespaced);
        // Nothing else says that the command worked.
        let _ = if namespaced && !get.all_namespaces {
            writeln!(
                std::io::stderr(),
                "No resources found in {} namespace.",
                connection.namespace
            )
        } else {
            writeln!(std::io::stderr(), "No resources found")
        };
    }
    finish(failures)
}

fn finish(mut failures: Vec<Failure>) -> Result<()> {
    match failures.len() {
        0 => Ok(()),
        1 => Err(failures.remove(0)),
        _ => Err(Failure::Several(failures)),
    }
}

async fn objects(connection: &Connection, get: &Get, format: &Format, selection: &Selection) -> Result<()> {
    let mut failures = Vec::new();
    let mut objects = Vec::new();
    for target in &selection.targets {
        match connection.fetch(target, &wanted(get, None)).await {
            Ok(mut object) if target.name.is_none() => {
                if let Some(Value::Array(items)) = object.get_mut("items").map(Value::take) {
                    objects.extend(items);
                }
            }
            Ok(object) => objects.push(object),
            Err(failure) if get.ignore_not_found && failure.is_not_found() => {}
            Err(failure) => failures.push(failure),
        }
    }
    if objects.is_empty() && (get.ignore_not_found || !failures.is_empty()) {
        return finish(failures);
    }
    if let Some(path) = &get.sort_by {
        sort_by(&mut objects, path, |object| object).map_err(Failure::message)?;
    }
    if !get.show_managed_fields {
        objects.iter_mut().for_each(without_managed_fields);
    }
    let whole = if selection.single && objects.len() == 1 {
        objects.remove(0)
    } else {
        list_of(objects)
    };
    output(&format.print(&whole, !get.no_headers))?;
    finish(failures)
}

async fn watch(connection: &Connection, get: &Get, format: &Format, selection: &Selection) -> Result<()> {
    let [target] = selection.targets.as_slice() else {
        return Err(Failure::message("you may only specify a single resource type"));
    };
    let wide = matches!(format, Format::Table { wide: true });
    let as_table = matches!(format, Format::Table { .. });
    let style = |event: &str| Style {
        event: get.output_watch_events.then(|| event.to_owned()),
        ..style(get, wide, target, selection.show_kind)
    };
    let mut table = Table::default();

    // One object is watched as the list in which only it is.
    let list = Target {
        name: None,
        ..target.clone()
    };
    let mut selectors = get.selectors.clone();
    if let Some(name) = &target.name {
        selectors = Selectors {
            field_selector: Some(format!("metadata.name={name}")),
            ..selectors
        };
    }
    let wanted = Query {
        selectors: selectors.clone(),
        ..wanted(get, as_table.then_some(false))
    };
    let first = connection.fetch(&list, &wanted).await?;
    if target.name.is_some() {
        let none = first[if as_table { "rows" } else { "items" }]
            .as_array()
            .is_none_or(Vec::is_empty);
        if none {
            // The object itself says best that it is not there; it may also have come this moment.
            connection.fetch(target, &Query::default()).await?;
        }
    }
    if !get.watch_only {
        if as_table {
            if first["rows"].as_array().is_some_and(|rows| !rows.is_empty()) {
                output(&table.lines(&first, &style("ADDED")))?;
            }
        } else {
            for item in first["items"].as_array().into_iter().flatten() {
                print(format, item.clone(), "ADDED", get)?;
            }
        }
    }
    let parameters = [
        ("watch", "true".to_owned()),
        (
            "resourceVersion",
            first["metadata"]["resourceVersion"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        ),
        ("labelSelector", selectors.selector.unwrap_or_default()),
        ("fieldSelector", selectors.field_selector.unwrap_or_default()),
    ];
    let path = connection.path(&list, get.all_namespaces) + &query(&parameters);
    let ask = Ask {
        accept: as_table.then_some(TABLE),
        ..Ask::default()
    };
    let mut lines = Lines::new(connection.stream(Method::GET, &path, ask).await?);
    while let Some(line) = lines.next().await? {
        let mut event: Value = serde_json::from_slice(&line)
            .map_err(|error| Failure::message(format!("unable to decode an event from the watch stream: {error}")))?;
        let object = event["object"].take();
        match event["type"].as_str().unwrap_or_default() {
            "ERROR" => {
                let status = serde_json::from_value(object).unwrap_or_default();
                return Err(Failure::Status(Box::new(status)));
            }
            "BOOKMARK" => {}
            type_ if as_table => output(&table.lines(&object, &style(type_)))?,
            type_ => print(format, object, type_, get)?,
        }
    }
    Ok(())
}

fn print(format: &Format, mut object: Value, event: &str, get: &Get) -> Result<()> {
    if !get.show_managed_fields {
        without_managed_fields(&mut object);
    }
    // A name is an object's, all else is taken of the event.
    if get.output_watch_events && !matches!(format, Format::Name) {
        object = json!({"type": event, "object": object});
    }
    let separator = if matches!(format, Format::Yaml) { "---\n" } else { "" };
    output(&format!("{separator}{}", format.print(&object, false)))
}

/// A stream cut at its line breaks.
struct Lines<S> {
    stream: S,
    rest: Vec<u8>,
}

impl<S: Stream<Item = Result<Bytes>> + Unpin> Lines<S> {
    fn new(stream: S) -> Self {
        Self {
            stream,
            rest: Vec::new(),
        }
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.rest[searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.rest.split_off(searched + end + 1);
                return Ok(Some(std::mem::replace(&mut self.rest, rest)));
            }
            searched = self.rest.len();
            match self.stream.next().await {
                Some(chunk) => self.rest.extend_from_slice(&chunk?),
                None => return Ok(None),
            }
        }
    }
}
