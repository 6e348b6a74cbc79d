//! `--sort-by`: objects in the order of a field, quantities and numbers inside names by value.

use std::cmp::Ordering;

use api::quantity::Quantity;
use serde_json::Value;

use super::jsonpath::Template;

/// Sorts what has an object each by a field of it. None of them having the field is a mistake.
pub fn sort_by<T>(items: &mut [T], path: &str, object: impl Fn(&T) -> &Value) -> Result<(), String> {
    let template = Template::parse_relaxed(path)?;
    let field = |item: &T| template.values(object(item)).first().map(|value| (*value).clone());
    if !items.is_empty() && items.iter().all(|item| field(item).is_none()) {
        return Err(format!(
            "couldn't find any field with path {:?} in the list of objects",
            braced(path)
        ));
    }
    items.sort_by(|a, b| compare(field(a).as_ref(), field(b).as_ref()));
    Ok(())
}

fn braced(path: &str) -> String {
    let inner = path.trim_start_matches('{').trim_end_matches('}');
    format!("{{.{}}}", inner.trim_start_matches('.'))
}

/// What is missing goes first.
fn compare(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => {
            a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)
        }
        (Some(Value::String(a)), Some(Value::String(b))) => match (a.parse::<Quantity>(), b.parse::<Quantity>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            _ => natural(a, b),
        },
        (Some(Value::Bool(a)), Some(Value::Bool(b))) => a.cmp(b),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

/// Strings with runs of digits compared as numbers: `pod-2` before `pod-10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let (left, right) = (digits(a), digits(b));
        if !left.is_empty() && !right.is_empty() {
            let stripped = |run: &[u8]| -> Vec<u8> { run.iter().copied().skip_while(|digit| *digit == b'0').collect() };
            let (x, y) = (stripped(left), stripped(right));
            let order = x.len().cmp(&y.len()).then(x.cmp(&y)).then(left.len().cmp(&right.len()));
            if order != Ordering::Equal {
                return order;
            }
            (a, b) = (&a[left.len()..], &b[right.len()..]);
            continue;
        }
        match (a.split_first(), b.split_first()) {
            (Some((x, left)), Some((y, right))) => {
                if x != y {
                    return x.cmp(y);
                }
                (a, b) = (left, right);
            }
            (x, y) => return x.is_some().cmp(&y.is_some()),
        }
    }
}

fn digits(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| !byte.is_ascii_digit());
    &text[..end.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn orders() {
        for (values, sorted) in [
            (json!(["b", "a", "c"]), json!(["a", "b", "c"])),
            (json!(["pod-10", "pod-2", "pod-1"]), json!(["pod-1", "pod-2", "pod-10"])),
            (json!(["1Gi", "500Mi", "2Ki"]), json!(["2Ki", "500Mi", "1Gi"])),
            (json!([3, 1.5, 2]), json!([1.5, 2, 3])),
            (json!(["b", null, "a"]), json!([null, "a", "b"])),
        ] {
            let mut items: Vec<Value> = values
                .as_array()
                .into_iter()
                .flatten()
                .map(|value| {
                    if value.is_null() {
                        json!({})
                    } else {
                        json!({"k": value})
                    }
                })
                .collect();
            assert_eq!(sort_by(&mut items, ".k", |item| item), Ok(()));
            let got: Vec<_> = items
                .iter()
                .map(|item| item.get("k").cloned().unwrap_or_default())
                .collect();
            assert_eq!(json!(got), sorted);
        }
        assert_eq!(
            sort_by(&mut [json!({})], "{.x}", |item| item),
            Err("couldn't find any field with path \"{.x}\" in the list of objects".into())
        );
    }
}
