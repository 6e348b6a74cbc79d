//! The small pieces that every description is made of.

use api::table::human_duration;
use jiff::{Timestamp, Zoned};
use serde_json::Value;

/// A longer annotation is shown below its key, and cut.
const LONGEST_ANNOTATION: usize = 140;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A string field, empty when it is missing.
pub fn string<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// The items of a list field, none when it is missing.
pub fn items<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> + Clone {
    value[field].as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

/// A scalar as Go prints it.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// `Mon, 02 Jan 2006 15:04:05 -0700` in the time zone of `now`.
pub fn date(value: &Value, now: &Zoned) -> String {
    match value.as_str().map(str::parse::<Timestamp>) {
        Some(Ok(time)) => {
            let local = time.to_zoned(now.time_zone().clone());
            local.strftime("%a, %d %b %Y %H:%M:%S %z").to_string()
        }
        _ => "<unset>".to_owned(),
    }
}

/// How long ago something was.
pub fn since(value: &Value, now: &Zoned) -> String {
    match value.as_str().map(str::parse::<Timestamp>) {
        Some(Ok(time)) => human_duration(now.timestamp().as_second() - time.as_second()),
        _ => "<unknown>".to_owned(),
    }
}

/// A title and one `key=value` a line.
pub fn pairs(title: &str, map: &Value) -> String {
    let Some(map) = map.as_object().filter(|map| !map.is_empty()) else {
        return format!("{title}:\t<none>\n");
    };
    let lines = crate::print::yaml::sorted(map);
    let lines: Vec<_> = lines
        .iter()
        .map(|(key, value)| format!("{key}={}", plain(value)))
        .collect();
    format!("{title}:\t{}\n", lines.join("\n\t"))
}

/// The annotations, those with many lines or long ones below their keys.
pub fn annotations(map: &Value) -> String {
    let title = "Annotations:\t";
    let entries: Vec<_> = map
        .as_object()
        .map(crate::print::yaml::sorted)
        .unwrap_or_default()
        .into_iter()
        .filter(|(key, _)| key.as_str() != LAST_APPLIED)
        .collect();
    if entries.is_empty() {
        return format!("{title}<none>\n");
    }
    let mut text = title.to_owned();
    for (index, (key, value)) in entries.iter().enumerate() {
        if index > 0 {
            text.push('\t');
        }
        let value = plain(value);
        let value = value.strip_suffix('\n').unwrap_or(&value);
        if value.len() + key.len() + 2 > LONGEST_ANNOTATION || value.contains('\n') {
            text += &format!("{key}:\n");
            for line in value.split('\n') {
                text += &format!("\t  {}\n", shortened(line, LONGEST_ANNOTATION - 2));
            }
        } else {
            text += &format!("{key}: {value}\n");
        }
    }
    text
}

fn shortened(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let end = (0..=longest).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}...", &text[..end])
}

/// `a=1,b=2` of a resource list, as indented lines below a title.
pub fn quantities(title: &str, indent: &str, list: &Value) -> String {
    let Some(list) = list.as_object().filter(|list| !list.is_empty()) else {
        return String::new();
    };
    let mut text = format!("{indent}{title}:\n");
    for (name, amount) in crate::print::yaml::sorted(list) {
        text += &format!("{indent}  {name}:\t{}\n", plain(amount));
    }
    text
}

/// The first letter as a capital: `True`.
pub fn boolean(value: &Value) -> &'static str {
    if value.as_bool().unwrap_or(false) {
        "True"
    } else {
        "False"
    }
}
