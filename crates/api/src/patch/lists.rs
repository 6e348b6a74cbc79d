//! Lists in strategic merge patches: how their items are told apart, and the order they end up in.

use serde_json::Value;

/// What makes an item of a list the same as another: the value of a key, or the whole of a plain value.
#[derive(Clone, Copy)]
pub(super) struct Identity<'a> {
    /// The merge key; empty for plain values.
    pub key: &'a str,
}

impl Identity<'_> {
    /// The part of an item that says which one it is.
    pub fn of(self, item: &Value) -> Option<&Value> {
        if self.key.is_empty() {
            Some(item)
        } else {
            item.get(self.key)
        }
    }

    pub fn same(self, a: &Value, b: &Value) -> bool {
        match (self.of(a), self.of(b)) {
            (Some(a), Some(b)) => a == b,
            _ => false,
        }
    }

    pub fn position(self, list: &[Value], item: &Value) -> Option<usize> {
        list.iter().position(|other| self.same(other, item))
    }
}

/// Orders `merged`: the items that `patch_order` names come in its order; the others keep the places that
/// they had in `server_order` relative to them.
pub(super) fn order(
    merged: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    identity: Identity<'_>,
) -> Vec<Value> {
    let (mut patched, mut others): (Vec<Value>, Vec<Value>) = merged
        .into_iter()
        .partition(|item| identity.position(patch_order, item).is_some());
    patched.sort_by_key(|item| identity.position(patch_order, item));
    others.sort_by_key(|item| identity.position(server_order, item).unwrap_or(usize::MAX));
    let mut ordered = Vec::with_capacity(patched.len() + others.len());
    let (mut patched, mut others) = (patched.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let other_first = match (others.peek(), patched.peek()) {
            (None, None) => return ordered,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(other), Some(patch)) => {
                matches!(
                    (identity.position(server_order, other), identity.position(server_order, patch)),
                    (Some(other), Some(patch)) if other < patch
                )
            }
        };
        ordered.extend(if other_first { others.next() } else { patched.next() });
    }
}
